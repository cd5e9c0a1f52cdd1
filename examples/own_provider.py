"""A provider of your own, with a fall-back behind it and prices of its own.

Two sandboxes stand in for two vendors, so that this runs anywhere; the first one is broken.
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from droveway import AsyncAgent, Engine, Retrying
from droveway.sandbox import Rule, Sandbox, Script

SETTINGS = """
[providers.cheap]
base_url = "{cheap}"
concurrency = 20
rpm = 600

[providers.dear]
base_url = "{dear}"
models = ["big-model"]

[models."answer-me"]
candidates = ["cheap/small-model", "dear/big-model"]

[prices."cheap/small-model"]
input = "0.10"
output = "0.40"
cached = "0.01"

[prices."dear/big-model"]
input = "2.00"
output = "8.00"
"""


async def main() -> None:
    broken = Script(rules=(Rule(fault="500"),))
    async with Sandbox(script=broken) as cheap, Sandbox() as dear:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "droveway.toml"
            file.write_text(SETTINGS.format(cheap=cheap.base_url, dear=dear.base_url))
            engine = Engine.from_file(file)
        async with engine:
            agent = AsyncAgent(engine=engine, model="answer-me", max_tokens=60)
            async with agent.stream_chat("Who answers this?") as stream:
                async for event in stream:
                    if isinstance(event, Retrying):
                        print(f"{event.reason}; asking {event.provider}")
            reply = stream.reply()
            print(f"{reply.provider} answered after {reply.attempts} attempts for {reply.cost}")


asyncio.run(main())
