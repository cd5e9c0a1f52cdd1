"""A hundred tasks, twenty at a time, worked off by the roles in turn."""

import asyncio

from droveway import AgentSupervisor, Task


async def main() -> None:
    async with AgentSupervisor(max_tokens=40) as supervisor:
        tasks = (Task(id=f"t{n}", query=f"Summarise ticket {n} in a line.") for n in range(100))
        workflow = supervisor.run_parallel_workflow(tasks, concurrency=20)
        async for result in workflow:
            if result.outcome.status != "ok":
                print(f"{result.task.id}: {result.outcome.error}")
        spent = workflow.spending
        print(f"{spent.requests} requests, {spent.failed} failed, {spent.cost}")


asyncio.run(main())
