"""Functions as tools, and an answer as an object."""

from dataclasses import dataclass

from droveway import Agent


def stock(article: str, warehouse: int = 1) -> int:
    """Tell how many pieces of an article are in stock.

    Args:
        article: Name of the article.
        warehouse: Number of the warehouse.
    """
    return 7 * warehouse + len(article)


@dataclass
class Verdict:
    """What the agent is asked for."""

    title: str
    score: int


with Agent(tools=[stock]) as clerk:
    reply = clerk.chat("Use stock for lanterns in warehouse 2.")
    print([turn.role for turn in reply.messages], reply.cost)

with Agent(output_type=Verdict) as judge:
    print(judge.chat("Rate the plan from 1 to 10.").output)
