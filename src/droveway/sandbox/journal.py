"""This file knows what the sandbox remembers of each request it saw."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class Seen:
    """One request as the vendor's side saw it.

    Token counts are the true ones of the answer that was meant; a fault may claim others or cut
    the answer short (`tokens_sent`). A request that was refused has none.

    Attributes:
        id: The answer's id.
        connection: Number of the TCP connection it came on.
        method: HTTP method.
        path: Path with its query.
        at: When it was read, UTC.
        headers: Its headers in lower case, without those that hold a key.
        body: Its raw body, where `journal_bodies` is on.
        attempt: How often this very body was sent, this one included.
        model: The model it asked for.
        stream: Whether it asked for a stream.
        fault: The fault that was applied, as it was asked for.
        status: The HTTP status of the answer; 0 where no head was sent.
        prompt_tokens: Tokens of the prompt, cached ones among them.
        cached_tokens: Prompt tokens that came from the prefix cache.
        completion_tokens: Tokens of the answer, reasoning among them.
        reasoning_tokens: How many of those were reasoning.
        events_sent: Events of a stream that were written, `[DONE]` among them.
        tokens_sent: Completion tokens that were written.
        began_at: When it was read, on the monotonic clock.
        ended_at: When the last byte was written; None while it runs.
        client_gone_at: When the client was seen to be gone before the end.
    """

    id: str
    connection: int
    method: str
    path: str
    at: datetime
    began_at: float
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    attempt: int = 1
    model: str | None = None
    stream: bool = False
    fault: str | None = None
    status: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    events_sent: int = 0
    tokens_sent: int = 0
    ended_at: float | None = None
    client_gone_at: float | None = None

    @property
    def client_gone(self) -> bool:
        """Whether the client went away before the answer was whole."""
        return self.client_gone_at is not None

    def as_json(self) -> dict[str, Any]:
        """The record as `GET /sandbox/journal` shows it; a body as text, broken bytes replaced."""
        shown: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        if self.body is not None:
            shown["body"] = self.body.decode(errors="replace")
        return shown | {"client_gone": self.client_gone}


class Journal:
    """The last requests, oldest first.

    Args:
        most: How many are kept at least; up to twice as many are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: list[Seen] = []

    def add(self, seen: Seen) -> None:
        """Remember a request."""
        if len(self._seen) >= 2 * self._most:
            del self._seen[: self._most]
        self._seen.append(seen)

    def all(self) -> list[Seen]:
        """A copy that other threads may read."""
        return list(self._seen)

    def forget(self) -> None:
        """Start anew."""
        self._seen.clear()
