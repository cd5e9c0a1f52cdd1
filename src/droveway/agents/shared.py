"""This file knows which engines the agents of an event loop share.

Agents that name the same address and key, or none, use one engine: one set of lines, so that
seventeen of them are seventeen voices of one account and not seventeen storms.
"""

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

from droveway.engine.engine import Engine

Address = tuple[str | None, str | None]


class _Shared:
    """An engine and how many agents hold it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.holders = 0


_ENGINES: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Address, _Shared]]] = (
    WeakKeyDictionary()
)


def hold_engine(base_url: str | None, api_key: str | None) -> Engine:
    """Return the running loop's engine for an address, and keep it open until it is let go."""
    engines = _ENGINES.setdefault(asyncio.get_running_loop(), {})
    address = (base_url, api_key and api_key.strip())
    if address not in engines:
        engine = Engine() if base_url is None else Engine.at(base_url, api_key)
        engines[address] = _Shared(engine)
    engines[address].holders += 1
    return engines[address].engine


async def let_go(engine: Engine) -> None:
    """Let an engine of `hold_engine` go; the last holder closes it."""
    engines = _ENGINES.get(asyncio.get_running_loop(), {})
    for address, shared in list(engines.items()):
        if shared.engine is engine:
            shared.holders -= 1
            if shared.holders == 0:
                del engines[address]
                await engine.aclose()


async def close_all() -> None:
    """Close every shared engine of the running loop, whoever holds it."""
    engines = _ENGINES.pop(asyncio.get_running_loop(), {})
    for shared in engines.values():
        await shared.engine.aclose()
