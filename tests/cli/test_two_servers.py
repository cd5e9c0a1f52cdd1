"""Two servers and the command line on one ledger at once: nobody is in anybody's way."""

import asyncio
from pathlib import Path

from crash_site import Load, Server, Site, make_template, site
from lab import run
from processes import until

OPEN = "SELECT id FROM hold WHERE state = ?"
ROUNDS = 1


async def drive(place: Site, one: Server, other: Server) -> None:
    """Ask two servers, and give commands beside them."""
    loads = [Load(place, one.port), Load(place, other.port)]
    asking = [asyncio.create_task(load.run()) for load in loads]
    for load in loads:
        await load.warm.wait()
    for number in range(ROUNDS):
        name = f"beside-{number}"
        await place.top_up(name)
        await place.command("accounts", "freeze", "umbra")
        await place.command("accounts", "budget", "set", "account:acme", "500", "--per", "day")
        await place.command("ledger", "verify")
        await place.command("accounts", "thaw", "umbra")
        await place.command("ledger", "backup", str(place.folder / f"{name}.db"))
    for load in loads:
        load.over.set()
    await asyncio.gather(*asking)


def test_two_servers_and_commands_share_one_ledger(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    make_template(template)

    async def check() -> None:
        async with site(template, tmp_path / "site", seed=3) as place:
            async with place.serving() as one, place.serving() as other:
                assert one.port != other.port
                await drive(place, one, other)
                await until(lambda: not place.read(OPEN, "held"), "all is settled")
            place.check()
            assert place.ends["whole"] + place.ends["streamed"] > 20, place.ends
            assert len(place.told.top_ups) == ROUNDS + 3

    run(check(), within_s=120)
