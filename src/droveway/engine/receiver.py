"""This file knows somebody's server that is told of something: one try, signed, and its answer.

Headers and signature are those of Standard Webhooks 1.0.0, symmetric (`v1`):
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import asyncio
import base64
import hmac
import ipaddress
from typing import Final
from urllib.parse import urlsplit

import msgspec

from droveway.clock import Clock
from droveway.errors import SettingsError, UpstreamError
from droveway.settings import Secret
from droveway.transport import Call, Origin, Pool, Request, ResponseHead, parse_url

TRY_S: Final = 10
SAID_MAX: Final = 200
# An answer is not read for its own sake; a short one leaves its connection to the next notice.
_ANSWER_BYTES_MAX: Final = 65_536
# So many bytes hold the signs that are kept, however many bytes each takes.
_KEPT_BYTES: Final = 4 * SAID_MAX
_PREFIX: Final = "whsec_"


def signing_key(secret: Secret) -> bytes:
    """Return the bytes that sign: those that `whsec_` and base64 stand for, or the text itself.

    Raises:
        SettingsError: What follows `whsec_` is no base64; the message does not repeat it.
    """
    text = secret.reveal()
    if not text.startswith(_PREFIX):
        return text.encode()
    coded = text.removeprefix(_PREFIX)
    try:
        key = base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise SettingsError(
            "a secret that begins with whsec_ goes on in base64; make one with: "
            'echo "whsec_$(openssl rand -base64 32)"'
        )
    return key


def sign(body: bytes, *, key: bytes, notice_id: str, at_s: int) -> str:
    """Sign one try.

    Args:
        body: The body as it is sent, to the byte.
        key: What `signing_key` returned.
        notice_id: The value of `webhook-id`; it holds no full stop.
        at_s: The value of `webhook-timestamp`: seconds since 1970, of this try.

    Returns:
        The value of `webhook-signature`.
    """
    digest = hmac.digest(key, f"{notice_id}.{at_s}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a try ended.

    Attributes:
        status: What they answered; None where no answer came.
        text: The beginning of their answer's body, or why there is no answer; printable.
    """

    status: int | None
    text: str

    @property
    def taken(self) -> bool:
        """Whether they have taken it; a redirect, which is never followed, is no yes."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether they want to hear nothing any more."""
        return self.status == 410

    @property
    def word(self) -> str:
        """The status, or why there is none; what they said themselves is not in it."""
        return self.text if self.status is None else str(self.status)

    @property
    def said(self) -> str:
        """The word, and where they refused what they said about it."""
        if self.status is None or self.taken or not self.text:
            return self.word
        return f"{self.status} {self.text}"


class Receiver:
    """Somebody's server, at one URL.

    Args:
        url: Where it is told; https, or http on this machine itself. It may have a query.
        secret: What it knows us by.
        pool: Sends the requests.
        clock: Tells how long a try takes, and when it was made.

    Attributes:
        address: Host and port, for people.

    Raises:
        SettingsError: The URL or the secret cannot be used.
    """

    def __init__(self, *, url: str, secret: Secret, pool: Pool, clock: Clock) -> None:
        self._origin, self._path = _target(url)
        self._key = signing_key(secret)
        self._pool = pool
        self._clock = clock
        self.address = self._origin.address

    async def tell(self, notice_id: str, body: bytes) -> Answer:
        """Send a notice once, and wait for the answer as long as a try may take in all."""
        reply = _Reply()
        call: Call | None = None
        try:
            # Without a limit of its own: the clock's alarm ends it.
            async with asyncio.timeout(None) as patience:
                alarm = self._clock.call_at(
                    self._clock.monotonic() + TRY_S, lambda: patience.reschedule(0.0)
                )
                try:
                    call = await self._pool.send(
                        self._request(notice_id, body), reply, body_bytes_max=_ANSWER_BYTES_MAX
                    )
                    await reply.ended.wait()
                finally:
                    alarm.cancel()
        except TimeoutError:
            reply.failed = f"timeout: no answer within {TRY_S} s"
        except UpstreamError as error:
            reply.fail(error)
        finally:
            if call is not None:
                call.abort()
        return reply.answer()

    def _request(self, notice_id: str, body: bytes) -> Request:
        at_s = int(self._clock.now().timestamp())
        headers = (
            ("content-type", "application/json"),
            ("user-agent", "droveway"),
            ("webhook-id", notice_id),
            ("webhook-timestamp", str(at_s)),
            ("webhook-signature", sign(body, key=self._key, notice_id=notice_id, at_s=at_s)),
        )
        return Request("POST", self._origin, self._path, headers, body)


class _Reply:
    """The transport's sink; a status counts, whatever becomes of the body after it."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.failed = ""
        self._status: int | None = None
        self._body = b""

    def on_head(self, head: ResponseHead) -> None:
        self._status = head.status

    def on_chunk(self, data: bytes) -> None:
        self._body += data[: _KEPT_BYTES - len(self._body)]

    def on_done(self) -> None:
        self.ended.set()

    def on_error(self, error: UpstreamError) -> None:
        self.fail(error)
        self.ended.set()

    def fail(self, error: UpstreamError) -> None:
        # Behind it stands advice, on the settings of providers.
        self.failed = error.message.partition("; ")[0]

    def answer(self) -> Answer:
        text = self.failed if self._status is None else self._body.decode("utf-8", "replace")
        return Answer(status=self._status, text=_printable(text))


def _printable(text: str) -> str:
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split())[:SAID_MAX]


def _target(url: str) -> tuple[Origin, str]:
    """Read where notices go; a query, which may hold a key, is in no message."""
    base, mark, query = url.partition("?")
    try:
        origin, _ = parse_url(base)
    except SettingsError as error:
        raise SettingsError(f"notices cannot be sent to this URL: {error}") from None
    if not query.isascii() or not query.isprintable() or " " in query or "#" in query:
        raise SettingsError(
            "notices cannot be sent to this URL: its query is not percent-encoded, or a fragment "
            "stands behind it"
        )
    if origin.scheme != "https" and not _is_loopback(origin.host):
        raise SettingsError(
            f"notices cannot be sent to {origin.address} over http: who listens in would read "
            "them; write https://"
        )
    return origin, (urlsplit(base).path or "/") + mark + query


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
