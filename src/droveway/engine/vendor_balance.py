"""This file knows what a vendor says is left in our account there, and how far that has fallen.

DeepSeek, `GET /user/balance` (api-docs.deepseek.com, page get-user-balance, read 2026-11-23):
`is_available` and `balance_infos`, each with `currency` (CNY or USD) and, as decimal strings of
two places in its example, `total_balance`, `granted_balance` and `topped_up_balance`; the total has
both in it. How soon after an answer its price is taken off, and how places beyond the second are
rounded, is on no page. A granted balance may expire, which makes the total fall as well.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec

from droveway.clock import Clock
from droveway.dialects.openai_chat import one_line
from droveway.engine import statements
from droveway.engine.provider import Provider
from droveway.errors import APITimeoutError, BadRequestError, ProtocolError, UpstreamError
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.moments import micros, moment
from droveway.transport import Pool, Request, ResponseHead

# Whose prices a provider has → where its balance is told, beside the version of the API.
BALANCE_PAGES: Final[Mapping[str, str]] = MappingProxyType({"deepseek": "/user/balance"})
PATIENCE_S: Final = 20.0
BODY_BYTES_MAX: Final = 64 * 1024
RETRY_AFTER_MAX_S: Final = 60.0
# Rows are in the store 50 ms after their request was over; a busy store takes longer.
ROWS_WRITTEN_AFTER_S: Final = 0.5
_VERSION: Final = re.compile(r"/v[0-9]+(beta)?$")


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor says is left in one currency, and what happened since it was asked before.

    Attributes:
        provider: The vendor's name in the settings.
        account: Which of the accounts there, from 1 on.
        at: When it said so, UTC.
        left: What is left.
        since: When it was asked before; None for the first time.
        before: What was left then.
        ours: What requests that were over in between cost by our journal, in this currency.
        requests: How many attempts these were.
        unpriced: How many more have tokens and no price.
        elsewhere: What our attempts cost meanwhile in other currencies.
    """

    provider: str
    account: int = 1
    at: datetime
    left: Money
    since: datetime | None = None
    before: Money | None = None
    ours: Money | None = None
    requests: int = 0
    unpriced: int = 0
    elsewhere: tuple[Money, ...] = ()

    @property
    def fell(self) -> Money | None:
        """How far it fell; negative where it rose, None at the first time."""
        return None if self.before is None else self.before - self.left

    @property
    def unexplained(self) -> Money | None:
        """The fall that our journal does not know of.

        None at the first time, and where the balance rose: what was spent is hidden in what was
        topped up, and a guess at either would explain any figure.
        """
        fell = self.fell
        if fell is None or self.ours is None or fell.nano < 0:
            return None
        return fell - self.ours


async def poll(
    provider: Provider, store: Store, *, account: int = 1, pool: Pool, clock: Clock
) -> list[Poll]:
    """Ask a vendor what is left, write it down, and compare it with what it said before.

    Args:
        provider: Whom to ask.
        store: Where balances and the journal are.
        account: In which of our accounts there, from 1 on.
        pool: The connections.
        clock: Tells when it was asked.

    Returns:
        One for each currency.

    Raises:
        BadRequestError: This vendor has no page for it.
        UpstreamError: The vendor did not say.
        StoreUnavailableError: It could not be written down.
    """
    balances = await ask_balance(provider, account, pool=pool, clock=clock)
    at = clock.now()
    told = [Poll(provider=provider.name, account=account, at=at, left=left) for left in balances]
    await clock.sleep(ROWS_WRITTEN_AFTER_S)
    before = await store.write(lambda db: _exchange(db, told))
    return [_compared(each, store, earlier) for each, earlier in zip(told, before, strict=True)]


async def ask_balance(
    provider: Provider, account: int = 1, *, pool: Pool, clock: Clock
) -> list[Money]:
    """Ask a vendor what is left in one of our accounts, from 1 on; raises as `poll` does."""
    page = BALANCE_PAGES.get(provider.prices or "")
    if page is None:
        raise BadRequestError(
            f"{provider.name} has no page that tells a balance; {', '.join(BALANCE_PAGES)} has; "
            "compare a usage export instead"
        )
    request = Request(
        method="GET",
        origin=provider.origin,
        path=_VERSION.sub("", provider.path) + page,
        headers=provider.headers[account - 1],
    )
    whole = _Whole()
    try:
        async with asyncio.timeout(PATIENCE_S):
            call = await pool.send(request, whole, body_bytes_max=BODY_BYTES_MAX)
            try:
                await whole.over
            finally:
                call.abort()
    except TimeoutError:
        raise APITimeoutError(
            f"{provider.name} did not tell its balance within {PATIENCE_S:g} s", phase="total"
        ) from None
    head, body = whole.head, bytes(whole.body)
    assert head is not None, "a response that ended well had a head"
    if head.status != 200:
        raise provider.status_error(
            head.status,
            dict(head.headers),
            body,
            now=clock.now(),
            retry_after_max_s=RETRY_AFTER_MAX_S,
        )
    return _balances(provider, body)


class _BalanceInfo(msgspec.Struct):
    currency: str
    total_balance: str


class _Balances(msgspec.Struct):
    balance_infos: list[_BalanceInfo]


def _balances(provider: Provider, body: bytes) -> list[Money]:
    try:
        said = msgspec.json.decode(body, type=_Balances).balance_infos
        found = [Money.parse(each.total_balance, each.currency) for each in said]
    except (ValueError, RecursionError) as error:
        text = one_line(provider.redact(str(error)))
        raise ProtocolError(f"{provider.name} told its balance in another way: {text}") from None
    if not found or len({each.currency for each in found}) < len(found):
        raise ProtocolError(f"{provider.name} told no balance, or two of one currency")
    return found


class _Whole:
    """Takes a whole response."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = bytearray()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_head(self, head: ResponseHead) -> None:
        self.head = head

    def on_chunk(self, data: bytes) -> None:
        self.body += data

    def on_done(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def on_error(self, error: UpstreamError) -> None:
        if not self.over.done():
            self.over.set_exception(error)


def _exchange(db: Connection, told: Sequence[Poll]) -> list[tuple[int, int] | None]:
    """Write balances down, and return those before them: moment and amount."""
    before: list[tuple[int, int] | None] = []
    for each in told:
        left = each.left
        where = (each.provider, each.account, left.currency, micros(each.at))
        rows = db.rows(statements.BALANCE_BEFORE, where)
        before.append((int(rows[0][0]), int(rows[0][1])) if rows else None)
        db.run(statements.ADD_BALANCE, (*where, left.nano))
    return before


def _compared(told: Poll, store: Store, before: tuple[int, int] | None) -> Poll:
    if before is None:
        return told
    since_us, nano = before
    own = told.left.currency
    spent = {
        str(currency): (int(requests), int(cost))
        for currency, requests, cost in store.read(
            statements.OWN_SETTLED, (told.provider, since_us, micros(told.at), told.account)
        )
    }
    requests, ours = spent.pop(own, (0, 0))
    unpriced, _ = spent.pop("", (0, 0))
    return msgspec.structs.replace(
        told,
        since=moment(since_us),
        before=Money(nano, own),
        ours=Money(ours, own),
        requests=requests,
        unpriced=unpriced,
        elsewhere=tuple(Money(cost, name) for name, (_, cost) in sorted(spent.items())),
    )
