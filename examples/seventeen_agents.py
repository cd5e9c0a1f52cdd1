"""One question to seventeen agents at once, under one budget; every one has an outcome."""

import asyncio

from droveway import AgentSupervisor, Limits, Outcome


async def main() -> None:
    limits = Limits(max_cost="0.50", deadline_s=60)
    async with AgentSupervisor(limits=limits, max_tokens=200) as supervisor:
        question = "Our checkout fails for one customer in fifty. What would you look at first?"

        # Three roles that fit the question, side by side.
        result = await supervisor.route_request(question)
        for role, outcome in result.outcomes.items():
            print(f"{role}: {outcome.status}, {outcome.spending.cost}")

        # All seventeen, their events interleaved as they come.
        async with supervisor.stream(question, list(supervisor.roles)) as stream:
            async for event in stream:
                if isinstance(event.event, Outcome):
                    print(f"{event.role} ended {event.event.status} after {event.sequence} events")
        total = stream.result().total
        print(f"{total.requests} requests, {total.usage.output} tokens out, {total.cost}")


asyncio.run(main())
