"""This file knows the asynchronous agent: a model with instructions, tools and limits."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Generic, Self, TypedDict

import msgspec

from droveway.agents.answer_type import T
from droveway.agents.conversation import Conversation, ReplyStream
from droveway.agents.limits import Limits, allowance_of
from droveway.agents.output import Output
from droveway.agents.reply import Reply, Tally, UsageReport
from droveway.agents.shared import hold_engine, let_go
from droveway.agents.talk import Asking, Talk
from droveway.agents.tools import Toolbox
from droveway.agents.turns import Turns, conversation_of
from droveway.clock import SystemClock
from droveway.engine.engine import Engine
from droveway.engine.settling import Ledger
from droveway.engine.terms import Terms
from droveway.errors import BadRequestError
from droveway.resilience.retry import RetryPolicy
from droveway.settings import Timeout

DEFAULT_MODEL: Final = "auto"
RESERVED: Final = frozenset({"model", "messages", "stream"})


class AgentOptions(TypedDict, total=False):
    """What an agent can be made with besides its name and `output_type`; see `AsyncAgent`."""

    base_url: str | None
    api_key: str | None
    model: str
    instructions: str | None
    tools: Sequence[Callable[..., Any]]
    temperature: float | None
    max_tokens: int | None
    reasoning_effort: str | None
    extra: Mapping[str, Any] | None
    retry: RetryPolicy | None
    timeout: Timeout | None
    limits: Limits | None
    engine: Engine | None
    role: str | None


class AsyncAgent(Generic[T]):
    """An agent.

    Args:
        name: What it is called in reports.
        base_url: A vendor, a gateway or any compatible server; without it the agent runs on the
            embedded engine: the providers whose keys are in the environment, or the sandbox.
        api_key: Its key; spaces around it are dropped.
        model: A plain name, `provider/model`, an alias, a tier, or "auto" for the keyword rule.
        instructions: The system prompt.
        tools: Functions with type hints that the model may call.
        output_type: str, or a dataclass, msgspec struct or pydantic model that `reply.output` is.
        temperature: Sent when given.
        max_tokens: Cap of output tokens, reasoning included.
        reasoning_effort: "none" to switch thinking off, up to "max".
        extra: Further fields of the request body.
        retry: How often and how patiently a call is tried again.
        timeout: The clocks of a call.
        limits: What this agent may spend in its life; `deadline_s` holds for each call.
        engine: The engine to run on, instead of a shared one.
        role: Its role, for reports.

    Raises:
        ToolError: A function cannot be a tool.
        BadRequestError: An argument cannot be used.
    """

    def __init__(
        self,
        name: str = "agent",
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str = DEFAULT_MODEL,
        instructions: str | None = None,
        tools: Sequence[Callable[..., Any]] = (),
        output_type: type[T] = str,  # type: ignore[assignment] # the default of T
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        extra: Mapping[str, Any] | None = None,
        retry: RetryPolicy | None = None,
        timeout: Timeout | None = None,
        limits: Limits | None = None,
        engine: Engine | None = None,
        role: str | None = None,
    ) -> None:
        _checked(timeout=timeout, retry=retry, limits=limits, extra=extra)
        if not isinstance(model, str):
            raise BadRequestError(f"model is a name, not {model!r}")
        if engine is not None and base_url is not None:
            raise BadRequestError("give an engine or a base_url: an engine has its addresses")
        if api_key is not None and base_url is None:
            raise BadRequestError(
                "api_key goes with base_url; vendors' own keys are read from the environment"
            )
        self.name = name
        self.role = role
        self.instructions = instructions
        self._base_url, self._api_key = base_url, api_key
        self._asking = Asking(
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning_effort=reasoning_effort,
            extra=extra or {},
        )
        self._toolbox = Toolbox(tools)
        self._output = Output(output_type)
        self._retry = retry or RetryPolicy()
        self._timeout = timeout
        self._limits = limits
        self._allowance = allowance_of(limits)
        self._engine = engine
        self._held: Engine | None = None
        self._tally = Tally()
        self._tags = {"agent": name} | ({"role": role} if role is not None else {})

    async def __aenter__(self) -> Self:
        self._the_engine()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def chat(
        self,
        message: Turns,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        limits: Limits | None = None,
        timeout: Timeout | None = None,  # noqa: ASYNC109 - four clocks, not one
    ) -> Reply[T]:
        """Ask, and wait for the whole answer; tools are called on the way.

        Args:
            message: A user's message, or a whole conversation: `Message`s, or dicts as the OpenAI
                SDK takes them. To go on, send `[*reply.messages, Message(...)]`.
            system_prompt: Instead of the agent's instructions; the conversation stays as it is.
            model: Instead of the agent's model.
            limits: Limits of this call alone, besides the agent's own.
            timeout: Instead of the agent's clocks.

        Raises:
            DrovewayError: There is no answer; the error says whose fault that is.
        """
        own = Own(system_prompt, model, limits, timeout)
        return await self.conversation(message, own).whole()

    def stream_chat(
        self,
        message: Turns,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        limits: Limits | None = None,
        timeout: Timeout | None = None,
    ) -> ReplyStream[T]:
        """Ask, and iterate over what comes: an async context manager. Arguments as for `chat`."""
        own = Own(system_prompt, model, limits, timeout)
        return ReplyStream(self.conversation(message, own))

    def conversation(
        self,
        message: Turns,
        own: "Own | None" = None,
        *,
        tally: Tally | None = None,
    ) -> Conversation[T]:
        """Prepare a call without running it; for supervisors.

        Args:
            message: A user's message, or a whole conversation.
            own: What this call sets for itself.
            tally: Where its requests are added up besides the agent's own report.
        """
        own = own or Own()
        _checked(timeout=own.timeout, limits=own.limits)
        engine = self._the_engine()
        asking = self._asking
        if own.model is not None:
            asking = msgspec.structs.replace(asking, model=own.model)
        talk = Talk(
            asking,
            conversation_of(message, own.system_prompt or self.instructions),
            toolbox=self._toolbox,
            output=self._output,
            started_at=engine.clock.now(),
        )
        ledgers = (self._allowance, allowance_of(own.limits), *own.also)
        terms = Terms(
            timeout=own.timeout or self._timeout or engine.settings.streams,
            retry=self._retry,
            ledgers=tuple(ledger for ledger in ledgers if ledger is not None),
            tags=self._tags,
        )
        tallies = (self._tally, *own.tallies, *(() if tally is None else (tally,)))
        deadline_s = _shortest(self._limits, own.limits, own.deadline_s)
        return Conversation(engine, talk, terms=terms, tallies=tallies, deadline_s=deadline_s)

    def usage_report(self) -> UsageReport:
        """Return what this agent has used so far: requests, tokens by class, cost."""
        return self._tally.report(SystemClock().now())

    async def aclose(self) -> None:
        """Let the shared engine go; the last agent that does so closes its connections."""
        if self._held is not None:
            held, self._held = self._held, None
            if held.belongs_here():
                await let_go(held)

    def _the_engine(self) -> Engine:
        if self._engine is not None:
            return self._engine
        if self._held is None or not self._held.belongs_here():
            # Another `asyncio.run`, or a forked child: an engine stays with its event loop.
            self._held = hold_engine(self._base_url, self._api_key)
        return self._held


class Own(msgspec.Struct, frozen=True):
    """What one call sets for itself."""

    system_prompt: str | None = None
    model: str | None = None
    limits: Limits | None = None
    timeout: Timeout | None = None
    also: tuple[Ledger, ...] = ()
    deadline_s: float | None = None
    tallies: tuple[Tally, ...] = ()


def _checked(
    *, timeout: object = None, retry: object = None, limits: object = None, extra: object = None
) -> None:
    for name, value, kind in (
        ("timeout", timeout, Timeout),
        ("retry", retry, RetryPolicy),
        ("limits", limits, Limits),
        ("extra", extra, Mapping),
    ):
        if value is not None and not isinstance(value, kind):
            raise BadRequestError(f"{name} is a {kind.__name__}, not {value!r}")
    taken = RESERVED & extra.keys() if isinstance(extra, Mapping) else None
    if taken:
        raise BadRequestError(f"extra cannot set {min(taken)!r}: the agent does")


def _shortest(*given: Limits | float | None) -> float | None:
    spans = [each.deadline_s if isinstance(each, Limits) else each for each in given]
    return min((span for span in spans if span is not None), default=None)
