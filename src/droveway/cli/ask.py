"""This file knows `droveway ask`: one question, one answer."""

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from droveway.agents.agent import AsyncAgent
from droveway.agents.limits import Limits
from droveway.agents.reply import Reply
from droveway.agents.roles import Role, built_in_roles, known_roles
from droveway.chat import TextDelta, Usage
from droveway.cli import options, providers
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import remark
from droveway.cli.running import run_async
from droveway.engine.outbox import Retrying
from droveway.errors import DrovewayError, StreamTruncatedError
from droveway.money import Money

STDIN: Final = "-"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and how."""

    text: str
    role: str | None
    model: str
    max_cost: Money | None
    stream: bool


@make_command(
    "ask",
    'droveway ask "What is a droveway?" --stream',
    'droveway ask "Review this: eval(input())" --role code_reviewer --max-cost 0.01',
)
@click.argument("text", metavar="QUESTION")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@options.model
@click.option("--role", metavar="ROLE", help="Ask as one of the 17 roles.")
@options.provider
@options.max_cost
@options.as_json
def command(text: str, *, stream: bool, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Put one question to a model and print its answer; "-" reads the question from stdin."""
    if stream and as_json:
        raise click.UsageError("--stream prints text as it comes, --json one document; choose one")
    text = sys.stdin.read() if text == STDIN else text
    if not text.strip():
        raise click.UsageError("the question is empty")
    role: str | None = given["role"]
    if role is not None:
        known_roles([role], built_in_roles())
    config: Path | None = given["config"]
    chosen = providers.choose(given["base_url"], given["api_key"], config)
    providers.tell_sandbox(chosen)
    question = Question(
        text=text,
        role=role,
        model=given["model"] or providers.default_model(chosen.engine),
        max_cost=given["max_cost"],
        stream=stream,
    )
    reply = run_async(_ask(chosen, question))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(reply_json(reply))))
        return
    if not stream:
        click.echo(reply.text)
    remark(summary(reply))


async def _ask(chosen: providers.Chosen, question: Question) -> Reply[str]:
    role = built_in_roles()[question.role] if question.role is not None else None
    async with (
        chosen.engine as engine,
        AsyncAgent(
            question.role or "agent",
            role=question.role,
            model=_model_of(role, question),
            instructions=None if role is None else role.instructions,
            limits=Limits(max_cost=question.max_cost),
            engine=engine,
        ) as agent,
    ):
        return await (_stream(agent, question) if question.stream else agent.chat(question.text))


async def _stream(agent: AsyncAgent[str], question: Question) -> Reply[str]:
    printed = False
    try:
        async with agent.stream_chat(question.text) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    click.echo(event.text, nl=False)
                    printed = True
                elif isinstance(event, Retrying):
                    remark(f"{event.reason}; asking again")
            return stream.reply()
    except StreamTruncatedError as error:
        came = len(error.partial.text)
        raise DrovewayError(
            f"the stream was cut after {came:,} characters; the answer is not whole, ask again"
        ) from error
    finally:
        if printed:
            click.echo()


def _model_of(role: Role | None, question: Question) -> str:
    return (role.model if role is not None else None) or question.model


def reply_json(reply: Reply[Any]) -> dict[str, Any]:
    """Write a reply as data; `cost` is a decimal string, or null where it is not known."""
    return {
        "text": reply.text,
        "reasoning": reply.reasoning,
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "provider": reply.provider,
        "usage": usage_json(reply.usage),
        "cost": None if reply.cost is None else reply.cost.decimal(),
        "currency": None if reply.cost is None else reply.cost.currency,
        "attempts": reply.attempts,
        "latency_ms": round(reply.latency_ms, 3),
        "first_token_ms": None if reply.first_token_ms is None else round(reply.first_token_ms, 3),
        "at": reply.started_at.isoformat(),
    }


def usage_json(usage: Usage) -> dict[str, int | str]:
    """Write tokens by class; input, cached_read and cache_write do not overlap."""
    return {
        "input": usage.input,
        "cached_read": usage.cached_read,
        "cache_write": usage.cache_write,
        "output": usage.output,
        "reasoning": usage.reasoning,
        "source": usage.source,
    }


def summary(reply: Reply[Any]) -> str:
    """Say in one line who answered, and what it took."""
    usage = reply.usage
    cached = f" ({usage.cached_read:,} cached)" if usage.cached_read else ""
    thought = f" ({usage.reasoning:,} reasoning)" if usage.reasoning else ""
    parts = [
        f"{reply.provider}/{reply.model}",
        f"{usage.input_total:,} tokens in{cached}, {usage.output:,} out{thought}",
        "cost unknown" if reply.cost is None else str(reply.cost),
        f"{reply.latency_ms / 1e3:.2f} s",
    ]
    if reply.attempts > 1:
        parts.append(f"{reply.attempts} attempts")
    return " · ".join(parts)
