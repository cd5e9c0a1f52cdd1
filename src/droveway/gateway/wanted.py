"""This file knows what may be asked of the admin API, in a query or a body; the rest is refused."""

from datetime import datetime
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from droveway.accounts.key import KeyTerms
from droveway.errors import BadRequestError
from droveway.ledger.budgets import Period
from droveway.ledger.vouchers import COUNT_MAX
from droveway.money import Money

# Whole numbers; everything else in a query is text.
_COUNTS: Final = ("limit", "after")
_DIGITS_MAX: Final = 19
_DAYS_MAX: Final = 36_500
# Any zone's end of that year is still a moment in UTC.
_YEAR_MAX: Final = 9998
# Printed on one line. What Unicode calls printable is no pattern.
LINE: Final = r"^[^\u0000-\u001f\u007f-\u009f]*$"

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Word = Annotated[str, msgspec.Meta(min_length=1)]
Line = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=LINE)]
Amount = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
Code = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
Days = Annotated[int, msgspec.Meta(ge=1, le=_DAYS_MAX)]
Subject = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^((key|account):[^\u0000-\u001f\u007f-\u009f]+|"
        r"tag:[^=\u0000-\u001f\u007f-\u009f]+=([^\u0000-\u001f\u007f-\u009f]*[^=\u0000-\u001f\u007f-\u009f]))$"
    ),
]
Wanted = TypeVar("Wanted", bound=msgspec.Struct)


class NewKey(KeyTerms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/keys`."""

    name: str
    account: Word | None = None


class NewAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/accounts`.

    Attributes:
        name: No other account has it.
        currency: What it is kept in, for good; without it that of the settings.
    """

    name: Line
    currency: Code | None = None


class _Worth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An amount in a body."""

    amount: Amount
    currency: Code

    def __post_init__(self) -> None:
        # A pattern's end may be before a line end.
        Money.parse(self.amount, self.currency)

    @property
    def money(self) -> Money:
        """The amount."""
        return Money.parse(self.amount, self.currency)


class NewTopUp(_Worth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/accounts/{account}/topups`.

    Attributes:
        amount: What came in, as a decimal string.
        currency: In which; converted by the declared rate where the account is in another.
        reference: Whose word it is, such as a bank's; it is booked once.
    """

    reference: Line


class NewRefund(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/topups/{reference}/refunds`.

    Attributes:
        amount: What goes back, as a decimal string; without it all that is unspent.
        currency: In which: the one in which it came; with amount only.
        reference: Why; it is booked once.
    """

    reference: Line
    amount: Amount | None = None
    currency: Code | None = None

    def __post_init__(self) -> None:
        if self.amount is not None and self.currency is not None:
            Money.parse(self.amount, self.currency)
        elif self.amount is not None or self.currency is not None:
            raise ValueError("amount and currency belong together; send both or none")

    @property
    def money(self) -> Money | None:
        """The amount; None for all that is unspent."""
        if self.amount is None or self.currency is None:
            return None
        return Money.parse(self.amount, self.currency)


class NewCredit(_Worth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/accounts/{account}/credits`.

    Attributes:
        amount: How much promotional credit, as a decimal string.
        currency: That of the account.
        reference: Why; it is given once.
        days: After how many days what is left of it goes.
    """

    reference: Line
    days: Days


class NewVouchers(_Worth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/vouchers`.

    Attributes:
        amount: What each is worth, as a decimal string.
        currency: In which; only an account in the same one redeems it.
        count: How many.
        credit_days: For how many days it is promotional credit; without it it is worth money.
        expires_at: Until when it can be redeemed, in the future; without it for ever.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)] = 1
    credit_days: Days | None = None
    expires_at: Moment | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expires_at is not None and self.expires_at.year > _YEAR_MAX:
            raise ValueError(f"expires_at is after {_YEAR_MAX}; leave it out for ever")


class Redemption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/accounts/{account}/vouchers`.

    Attributes:
        code: That of a voucher, in any case, with or without its dashes.
    """

    code: Line


class NewBudget(_Worth, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /admin/v1/budgets`.

    Attributes:
        subject: key:NAME or account:NAME, or their ids, or tag:NAME=VALUE.
        period: How long a spell is.
        amount: What may be spent in each, as a decimal string.
        currency: In which.
    """

    subject: Subject
    period: Period


class BudgetNamed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `DELETE /admin/v1/budgets`."""

    subject: Subject
    period: Period


class StatementWanted(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"since": "from", "until": "to"},
):
    """The query of `GET /admin/v1/accounts/{account}/statement`."""

    since: Moment | None = None
    until: Moment | None = None


class RequestsWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/requests`."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    since: Moment | None = None
    model: Word | None = None
    key: Word | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


class HoursWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/hours`."""

    since: Moment | None = None


def read_query(query: bytes, kind: type[Wanted]) -> Wanted:
    """Read a query string.

    Raises:
        BadRequestError: A parameter is not known, is there twice, or cannot be used.
    """
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    told: dict[str, Any] = dict(given)
    if len(told) < len(given):
        raise BadRequestError("the query has a parameter twice; send it once")
    for name in _COUNTS:
        word = told.get(name, "")
        if word.isascii() and word.isdecimal() and len(word) <= _DIGITS_MAX:
            told[name] = int(word)
    try:
        return msgspec.convert(told, kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the query cannot be used: {error}; {_known(kind)}") from error


def read_json(body: bytes, kind: type[Wanted]) -> Wanted:
    """Read a body.

    Raises:
        BadRequestError: It is no JSON, a field is not known, or its value cannot be used.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the body cannot be used: {error}; {_known(kind)}") from error


def _known(kind: type[msgspec.Struct]) -> str:
    return f"known are {', '.join(kind.__struct_encode_fields__)}"
