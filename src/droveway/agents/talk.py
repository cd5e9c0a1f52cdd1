"""This file knows one call of an agent: rounds of asking and tool calls until there is an answer.

It only keeps the books of the conversation; the agent does the asking.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic

import msgspec

from droveway.agents.answer_type import T
from droveway.agents.output import Output
from droveway.agents.reply import Reply
from droveway.agents.tools import Toolbox, ToolResult, as_message
from droveway.chat import NO_USAGE, Answer, ChatRequest, Message, Usage
from droveway.engine.records import Row
from droveway.errors import ToolError
from droveway.money import Money

TOOL_ROUNDS_MAX: Final = 8


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """What every request of one agent has in common."""

    model: str
    temperature: float | None
    max_tokens: int | None
    reasoning_effort: str | None
    extra: Mapping[str, Any]


class Talk(Generic[T]):
    """The books of one call.

    Args:
        asking: What every request has in common.
        messages: The conversation so far.
        toolbox: The tools.
        output: How the answer is read.
        started_at: When the call began, UTC.
    """

    def __init__(
        self,
        asking: Asking,
        messages: Sequence[Message],
        *,
        toolbox: Toolbox,
        output: Output[T],
        started_at: datetime,
    ) -> None:
        self._asking = asking
        self._messages = list(messages)
        self._toolbox = toolbox
        self._output = output
        self._started_at = started_at
        self._rounds = 0
        self._rows: list[Row] = []
        self._answer: Answer | None = None

    def request(self, *, stream: bool) -> ChatRequest:
        """Return the request of the next round."""
        asking = self._asking
        return ChatRequest(
            model=asking.model,
            messages=tuple(self._messages),
            stream=stream,
            temperature=asking.temperature,
            max_tokens=asking.max_tokens,
            tools=self._toolbox.tools,
            output_schema=self._output.schema,
            output_name=self._output.name,
            reasoning_effort=asking.reasoning_effort,
            extra=asking.extra,
        )

    async def take(self, answer: Answer, row: Row) -> list[ToolResult]:
        """Take the answer of a round and make the calls it wants.

        Returns:
            The results, which went into the conversation; none when the answer is the last one.

        Raises:
            ToolError: The model has called tools for too many rounds.
        """
        self._answer = answer
        self._rows.append(row)
        self._messages.append(answer.as_message())
        if not answer.tool_calls or not self._toolbox.tools:
            return []
        self._rounds += 1
        if self._rounds > TOOL_ROUNDS_MAX:
            raise ToolError(
                f"the model called tools for more than {TOOL_ROUNDS_MAX} rounds; "
                "make the tools' results clearer or ask for less at once",
                attempts=self.attempts,
            )
        results = await self._toolbox.call_all(answer.tool_calls)
        self._messages.extend(map(as_message, results))
        return results

    @property
    def attempts(self) -> int:
        """Requests that were sent, in all rounds."""
        return sum(len(row.attempts) for row in self._rows)

    def reply(self) -> Reply[T]:
        """Return the reply; the last round has been taken.

        Raises:
            OutputValidationError: The answer does not fit `output_type`.
        """
        answer, last = self._answer, self._rows[-1]
        assert answer is not None, "a reply follows an answer"
        earlier_ms = sum(row.total_ms for row in self._rows[:-1])
        first = last.first_token_ms
        return Reply(
            text=answer.text,
            output=self._output.read(answer.text),
            reasoning=answer.reasoning,
            finish_reason=answer.finish_reason,
            model=answer.model,
            provider=last.attempts[-1].provider if last.attempts else None,
            usage=_usage(self._rows),
            cost=_cost(self._rows),
            attempts=self.attempts,
            messages=tuple(self._messages),
            request_ids=tuple(row.id for row in self._rows),
            started_at=self._started_at,
            first_token_ms=None if first is None else earlier_ms + first,
            latency_ms=earlier_ms + last.total_ms,
        )


def _usage(rows: Sequence[Row]) -> Usage:
    total = NO_USAGE
    for row in rows:
        total += row.usage or NO_USAGE
    return total


def _cost(rows: Sequence[Row]) -> Money | None:
    """Sum the rounds; one round without a price leaves the whole without one."""
    total: Money | None = None
    for row in rows:
        if row.cost is None:
            return None
        total = row.cost if total is None else total + row.cost
    return total
