"""This file knows how the gateway's metrics are kept, shared by its processes, and served.

Where several processes share the port, each puts its sums into one file of its own, in a directory
that all of them know, and whoever is scraped adds them up. prometheus-client's own way for several
processes is not taken: it keeps money in floats, takes the values of a histogram one at a time,
bounds the labels of no two processes together, and has no gauge that is asked when it is read.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from droveway.clock import Clock
from droveway.engine.records import Row
from droveway.gateway.present import Present
from droveway.gateway.traffic import Sums, added_up
from droveway.gateway.visit import Visit

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway

LOG: Final = logging.getLogger("droveway.gateway")
PUBLISH_EVERY_S: Final = 1.0
GONE: Final = "gone"


class Metrics:
    """Counts what the gateway does; it belongs to the event loop on which rows are written.

    Make it in the process that serves, not before a fork.

    Args:
        directory: Where the processes of one gateway put their sums; whoever starts them makes it
            new for each start. None for a process that is alone.
        present: Tells how this process stands.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        present: Callable[[], Present] = Present,
    ) -> None:
        self._sums = Sums()
        self._present = present
        self._published = b""
        # A process may be given the number of one that is gone, whose sums still count.
        name = f"{os.getpid()}-{secrets.token_hex(4)}.sums"
        self._file = None if directory is None else directory / name
        # The method itself: it is called for every request.
        self.note: Callable[[Row], None] = self._sums.note

    def refused(self, code: str) -> None:
        """Count a request that was refused at the door, before the engine saw it."""
        self._sums.refuse(code)

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """Write the sums of all processes.

        Args:
            accept: The Accept header.

        Returns:
            The page and its content type.
        """
        # With hundreds of models it takes a tenth of a second: not the event loop's.
        return await asyncio.to_thread(_page, self._snapshot(), self._file, accept)

    def publish(self) -> None:
        """Put the sums where the other processes find them; nothing where they have not changed.

        Raises:
            OSError: The directory cannot be written.
        """
        snapshot = self._snapshot()
        if self._file is not None and snapshot != self._published:
            _replace(self._file, snapshot)
            self._published = snapshot

    async def keep_published(self, clock: Clock) -> None:
        """Publish every second, until cancelled, and then once more."""
        failed = False
        try:
            while True:
                failed = self._published_or_told(told=failed)
                await clock.sleep(PUBLISH_EVERY_S)
        finally:
            self._published_or_told(told=failed)

    def _published_or_told(self, *, told: bool) -> bool:
        """Publish, and return whether that failed; the first failure in a row is logged."""
        try:
            self.publish()
        except OSError as error:
            if not told:
                LOG.warning("other processes do not see the metrics of this one: %s", error)
            return True
        return False

    def _snapshot(self) -> bytes:
        self._sums.stand(self._present())
        return msgspec.msgpack.encode(self._sums)


def metrics(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /metrics`."""

    async def tell() -> None:
        accept = (visit.header(b"accept") or b"").decode("latin-1")
        page, kind = await gateway.metrics.page(accept)
        visit.respond(200, page, kind=kind.encode())

    gateway.later(visit, tell())


def mark_dead(directory: Path, pid: int) -> None:
    """Note that a process is gone: what it has counted stays, and nothing is in flight there.

    For the one process that watches over the others.
    """
    for file in directory.glob(f"{pid}-*.sums"):
        try:
            gone = _gone(directory)
            sums = _SUMS.decode(file.read_bytes())
            sums.present = Present()
            gone.sums = added_up((gone.sums, sums))
            gone.files.append(file.name)
            _replace(directory / GONE, msgspec.msgpack.encode(gone))
            file.unlink()
        except OSError as error:
            LOG.warning("the metrics of process %d stay as it left them: %s", pid, error)


class _Gone(msgspec.Struct, kw_only=True):
    """What processes that are gone have counted, and the files that held it."""

    sums: Sums = msgspec.field(default_factory=Sums)
    files: list[str] = []


_SUMS: Final = msgspec.msgpack.Decoder(Sums)
_GONE: Final = msgspec.msgpack.Decoder(_Gone)


def _page(own: bytes, file: Path | None, accept: str) -> tuple[bytes, str]:
    # Imported here: it takes a tenth of a second that only a scrape is to pay.
    from droveway.gateway.metrics_page import page  # noqa: PLC0415

    parts = [_SUMS.decode(own)] if file is None else _parts(file, own)
    return page(added_up(parts), accept)


def _parts(file: Path, own: bytes) -> list[Sums]:
    found: dict[str, bytes] = {}
    for each in file.parent.glob("*.sums"):
        with suppress(FileNotFoundError):  # its process is gone, and `_Gone` has what it counted
            found[each.name] = each.read_bytes()
    found[file.name] = own
    # After the others: of a file that is taken up meanwhile, it says so.
    gone = _gone(file.parent)
    # Always in one order: which models get a label must not depend on who is scraped.
    running = [_SUMS.decode(found[name]) for name in sorted(found) if name not in gone.files]
    return [gone.sums, *running]


def _gone(directory: Path) -> _Gone:
    try:
        return _GONE.decode((directory / GONE).read_bytes())
    except FileNotFoundError:
        return _Gone()


def _replace(file: Path, content: bytes) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(file)
