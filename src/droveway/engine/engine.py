"""This file knows the engine: the one door to the corridor, for every face."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from droveway.chat import Answer, ChatRequest
from droveway.clock import Clock, SystemClock
from droveway.engine.assembly import (
    Parts,
    assemble,
    book_with_own_prices,
    default_model,
    embedded_sandbox,
    provider_at,
)
from droveway.engine.billing import billing_of
from droveway.engine.calibration import Calibration
from droveway.engine.dispatch import Dispatch
from droveway.engine.exchange import Exchange
from droveway.engine.inquiry import Inquiry, inquiry_of
from droveway.engine.journal import Journal
from droveway.engine.line import Line
from droveway.engine.lines import Lines
from droveway.engine.outbox import StreamEvent
from droveway.engine.placing import Placing
from droveway.engine.provider import Provider
from droveway.engine.records import Row
from droveway.engine.settling import Ledger, NoLedger
from droveway.engine.terms import Drain, Terms
from droveway.errors import CancelledCallError, DrovewayError, SettingsError
from droveway.routing.placement import Planned, equals, placed
from droveway.routing.plan import Candidate, plan
from droveway.routing.tiers import TIERS, tier_of
from droveway.sandbox import Sandbox
from droveway.settings import Secret, Settings, load_settings
from droveway.transport import Pool, ProxyRules

LOG: Final = logging.getLogger("droveway")
# Names are the callers' to choose: those that come first are remembered.
PLANS_KEPT: Final = 1_000


class Engine:
    """Runs requests through the corridor, on lines and connections that all callers share.

    It binds itself to the event loop in which it is first used, and belongs to that loop.

    Args:
        settings: What was set; nothing takes providers from the environment, or the sandbox.
        environ: Where keys and proxies are looked up; the process's own by default.
        clock: Where time and jitter come from.
        ledger: Who must agree to every cost.
        journal: Where the rows go; memory by default. Whoever made it closes it, after the engine.
        providers: Who can be asked, instead of the settings' providers.

    Raises:
        SettingsError: The settings cannot be used.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        ledger: Ledger | None = None,
        journal: Journal | None = None,
        providers: list[Provider] | None = None,
    ) -> None:
        told = settings or Settings()
        self._environ = os.environ if environ is None else environ
        self._parts = (
            assemble(told, self._environ)
            if providers is None
            else Parts(
                settings=told,
                providers=providers,
                book=book_with_own_prices(told),
                sandbox=False,
            )
        )
        self.settings = self._parts.settings
        self.billing = billing_of(self.settings.billing)
        self.currency = self.billing.currency
        self.calibration = Calibration()
        self.drain = (
            Drain(self.billing.drain_s, self.billing.drain_tokens) if self.billing.drains else None
        )
        self.book = self._parts.book
        self.clock: Clock = clock or SystemClock()
        self.ledger: Ledger = ledger or NoLedger()
        self.journal = journal or Journal()
        self.providers: dict[str, Provider] = {each.name: each for each in self._parts.providers}
        self.pool = Pool(clock=self.clock, proxy=ProxyRules.from_environment(self._environ))
        self._lines = Lines(self.providers, self.clock)
        self.dispatch = Dispatch(
            self.providers, pool=self.pool, clock=self.clock, line_of=self._lines.of
        )
        self.placing = Placing(self.settings.rollout, clock=self.clock, journal=self.journal)
        self._plans: dict[str, Planned] = {}
        self._aliases = {name: told.candidates for name, told in self.settings.models.items()}
        self.sandbox: Sandbox | None = None
        self._open: set[Exchange] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Lock | None = None
        self._closed = False

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Make an engine of a settings file.

        Raises:
            SettingsError: The file cannot be used.
        """
        return cls(load_settings(Path(path)))

    @classmethod
    def at(cls, base_url: str, api_key: str | None = None, *, clock: Clock | None = None) -> Self:
        """Make an engine that asks one URL: a vendor, a gateway, or any compatible server.

        Raises:
            SettingsError: The URL or the key cannot be used.
        """
        key = Secret(api_key) if api_key and api_key.strip() else None
        return cls(providers=[provider_at(base_url, key)], clock=clock)

    async def __aenter__(self) -> Self:
        await self._bind()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def chat(self, request: ChatRequest, terms: Terms | None = None) -> tuple[Answer, Row]:
        """Get a whole answer, and the row that was written about it.

        Raises:
            DrovewayError: There is no answer; the error says whose fault that is.
        """
        exchange = await self.begin(request, terms)
        try:
            await asyncio.shield(exchange.task)
        except asyncio.CancelledError:
            exchange.give_up()
            raise
        if exchange.error is not None:
            raise exchange.error
        assert exchange.answer is not None, "a settled exchange has an answer or an error"
        assert exchange.row is not None, "a settled exchange has its row"
        return exchange.answer, exchange.row

    async def begin(self, request: ChatRequest | Inquiry, terms: Terms | None = None) -> Exchange:
        """Send a request into the corridor and return at once; for streams."""
        await self._bind()
        return self.start(inquiry_of(request), terms or Terms(timeout=self.settings.streams))

    def start(self, request: Inquiry, terms: Terms) -> Exchange:
        """Send a request into the corridor of an engine that was entered; for gateways."""
        exchange = Exchange(self, request, terms)
        self._open.add(exchange)
        exchange.task.add_done_callback(lambda _: self._open.discard(exchange))
        return exchange

    async def events(self, exchange: Exchange) -> AsyncIterator[StreamEvent]:
        """Iterate over the events of a stream; abandoning it gives the request up."""
        try:
            while (event := await exchange.outbox.take()) is not None:
                yield event
        finally:
            exchange.give_up()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it belongs to."""
        assert self._loop is not None, "it is bound before anything is sent"
        return self._loop

    def belongs_here(self) -> bool:
        """Whether it may be used on the running event loop: it was not yet, or only there."""
        return self._loop is None or self._loop is asyncio.get_running_loop()

    def admit(self) -> None:
        """Let a request in.

        Raises:
            CancelledCallError: The engine is closed.
        """
        if self._closed:
            raise CancelledCallError("the engine is closed; make a new one")

    def plan(
        self, asked: str, conversation: Callable[[], bytes] | None = None
    ) -> tuple[Candidate, ...]:
        """Return who may answer, best first.

        Args:
            asked: The name that is asked for.
            conversation: Returns what stands for the conversation, by which one of equals is
                chosen; asked for only where there are equals.
        """
        known = self._plans.get(asked)
        if known is None:
            offers = [provider.offer for provider in self.providers.values()]
            found = plan(asked, offers=offers, aliases=self._aliases)
            alias = self.settings.models.get(asked)
            known = Planned(equals(found, alias.weights if alias else (), self._weights_of))
            if len(self._plans) < PLANS_KEPT:
                self._plans[asked] = known
        if conversation is None or not known.has_equals:
            return known.candidates
        return placed(known.groups, conversation())

    def _weights_of(self, candidate: Candidate) -> Sequence[int]:
        return self.providers[candidate.provider].weights

    def model_for(self, request: Inquiry, instead: str | None = None) -> str:
        """Return the model a request asks for, with "auto" and tier names looked up.

        Args:
            request: What is asked.
            instead: The name to be looked up instead of the request's own.
        """
        asked = request.model if instead is None else instead
        if asked != "auto" and asked not in TIERS:
            return asked
        routing = self.settings.routing
        model: str = getattr(routing, tier_of(request.messages(), asked))
        return default_model(model, routing, list(self.providers.values()))

    def line_of(self, candidate: Candidate) -> Line:
        """Return the one line before a provider's account and model."""
        return self._lines.of(candidate)

    @property
    def lines(self) -> Mapping[Candidate, Line]:
        """The lines before vendors' accounts and models, as far as they were needed lately."""
        return self._lines.known

    def successor(self, settings: Settings) -> Self:
        """Make the engine that serves from now on by other settings, on the same event loop.

        What is on its way ends by the settings with which it began. Connections, the journal, the
        retry budget and the lines of accounts that stay as they are go over; this engine still
        closes all of it.

        Raises:
            SettingsError: The settings cannot be used, and nothing has changed.
        """
        heir = type(self)(
            settings,
            environ=self._environ,
            clock=self.clock,
            ledger=self.ledger,
            journal=self.journal,
        )
        if not heir.providers:
            if not self._parts.sandbox:
                raise SettingsError(
                    "they name no provider, and the embedded sandbox starts only with the server; "
                    "name one, or restart"
                )
            heir.providers.update(self.providers)
        heir.sandbox, heir.calibration = self.sandbox, self.calibration
        heir.placing = Placing(
            settings.rollout, clock=self.clock, journal=self.journal, before=self.placing
        )
        heir.pool, heir._open = self.pool, self._open  # noqa: SLF001 - it is one of us, as below
        heir.dispatch = Dispatch(
            heir.providers,
            pool=self.pool,
            clock=self.clock,
            line_of=heir._lines.of,  # noqa: SLF001
        )
        # Who waits in a line drew a number before: those who come later have higher ones.
        heir.dispatch.numbers = self.dispatch.numbers
        heir.dispatch.budget = self.dispatch.budget
        heir._loop, heir._ready = self._loop, self._ready  # noqa: SLF001
        heir._lines.keep_those_of(self._lines)  # noqa: SLF001
        return heir

    def on_their_way(self) -> list[Exchange]:
        """Return the requests that are not settled yet."""
        return list(self._open)

    @property
    def open_exchanges(self) -> int:
        """How many requests are on their way or being settled."""
        return len(self._open)

    def own_failure(self, request_id: str, error: Exception) -> DrovewayError:
        """Record a failure of our own, with its trace, and return what the caller is told."""
        LOG.error("request %s failed inside the engine", request_id, exc_info=error)
        return DrovewayError(f"the engine failed inside ({type(error).__name__}: {error})")

    def guarded(self, request_id: str, listener: Callable[[Row], None], row: Row) -> None:
        """Tell a listener; one that raises is recorded and changes nothing else."""
        try:
            listener(row)
        except Exception as error:  # noqa: BLE001 - foreign code, told of what is done already
            self.own_failure(request_id, error)

    async def aclose(self) -> None:
        """Give up what is open, wait until it is settled, and close every connection."""
        self._closed = True
        for exchange in list(self._open):
            exchange.give_up()
        if self._open:
            # Not `gather`: being cancelled here must not cancel a settlement.
            await asyncio.wait([exchange.task for exchange in self._open])
        await self.pool.aclose()
        if self.sandbox is not None:
            await self.sandbox.close()

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._ready = loop, asyncio.Lock()
        if self._loop is not loop:
            raise SettingsError(
                "this engine belongs to another event loop; make one engine for each loop"
            )
        if not self._parts.sandbox or self.providers or self._closed:
            return
        assert self._ready is not None, "set together with the loop"
        async with self._ready:
            if not self.providers and not self._closed:
                LOG.warning(
                    "no provider is configured, so the sandbox answers; export DEEPSEEK_API_KEY "
                    "or another vendor's key, or give a base_url"
                )
                self.sandbox, provider = await embedded_sandbox()
                self.providers[provider.name] = provider
                self._plans.clear()
                if self._closed:  # while it was being started
                    await self.sandbox.close()
