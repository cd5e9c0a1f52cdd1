"""This file knows what can be set, where it is read from, and what is refused.

One TOML file; every key has a default; a key that is not known is an error that names the nearest
one that is. Secrets are named, never written: `env:NAME` or `file:PATH`.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from droveway.errors import SettingsError
from droveway.money import Money, price_pico

WEIGHT_MAX: Final = 1_000
DEFAULT_MODEL: Final = "deepseek-flash"
_PERCENT: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,2})?", re.ASCII)


class Secret:
    """A key that shows itself to nobody by accident.

    Args:
        value: The key; spaces and line ends around it are dropped.

    Raises:
        SettingsError: It is empty, or holds what no HTTP header can carry.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value.strip()
        if not self._value:
            raise SettingsError("an API key is empty; set it or leave it out")
        if not self._value.isascii() or not self._value.isprintable() or " " in self._value:
            raise SettingsError("an API key holds a space or a sign no header can carry")

    def reveal(self) -> str:
        """Return the key itself, for the one header it belongs into."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"


class Timeout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The four clocks of a call, in seconds; each names itself as the phase of its error.

    Attributes:
        connect_s: Until the request is on its way, TLS included.
        first_token_s: From then until the first data event of a stream. A whole answer has the
            total time instead: a vendor may think for minutes before its head.
        idle_s: Between data events; keep-alive comments do not count.
        total_s: The whole call: waiting in line, every attempt, the answer.
    """

    connect_s: float = 10.0
    first_token_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 600.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 < getattr(self, name) <= 86_400:
                raise ValueError(f"{name} must be above 0 and at most a day, in seconds")


class StreamsSettings(Timeout, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[streams]`: the four clocks, and when a waiting caller gets a comment.

    Attributes:
        keepalive_s: After how long a silence the gateway's caller gets a comment.
    """

    keepalive_s: float = 15.0


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[server]`: how the gateway listens.

    Attributes:
        host: Address.
        port: Port; 0 takes a free one.
        workers: Processes that share the port; they end with the one that started them.
        drain_s: How long accepted requests may still take when it goes down.
        body_bytes_max: What a request body may have, before and after unpacking.
        admin_token: `env:NAME` or `file:PATH`, the secret of `/admin/v1`; without one it is closed.
        log: `text` for people, `json` for programs; both on stderr.
    """

    host: str = "127.0.0.1"
    port: int = 4100
    workers: int = 1
    drain_s: int = 600
    body_bytes_max: int = 33_554_432
    admin_token: str | None = None
    log: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError("port must be between 0 and 65535")
        for name in ("drain_s", "body_bytes_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not 1 <= self.workers <= 256:
            raise ValueError("workers must be between 1 and 256")


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[providers.NAME]`.

    Attributes:
        base_url: Where it listens, up to and without `/chat/completions`; a built-in provider
            has one.
        dialect: How it speaks.
        accent: A vendor's particularities, by name.
        api_key: `env:NAME` or `file:PATH`; nothing for a server that asks for none.
        api_keys: Instead of it several, each of an account of its own.
        weights: How many conversations each of them gets where others get one; one without.
        prices: Whose price list applies.
        models: Names it has; with none it is asked for any name.
        concurrency: Requests in flight at most, for each model.
        rpm: Requests in any minute at most, for each model.
        tpm: Tokens in any minute at most, for each model.
        waiting_max: Requests that may wait, for each model.
        failures_max: Failures in a row after which a model is not asked for a while; 0 for never.
    """

    base_url: str = ""
    dialect: Literal["openai"] = "openai"
    accent: str | None = None
    api_key: str | None = None
    api_keys: tuple[str, ...] = ()
    weights: tuple[int, ...] = ()
    prices: str | None = None
    models: tuple[str, ...] = ()
    concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    waiting_max: int = 10_000
    failures_max: int = 5

    def __post_init__(self) -> None:
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://, not {self.base_url!r}")
        for name in ("concurrency", "rpm", "tpm"):
            bound = getattr(self, name)
            if bound is not None and bound < 1:
                raise ValueError(f"{name} must be at least 1; leave it out for no limit")
        if self.api_key is not None and self.api_keys:
            raise ValueError("api_key and api_keys exclude each other; write all into api_keys")
        _check_weights(self.weights, len(self.api_keys), of="api_keys")
        for name in ("waiting_max", "failures_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0")


class AliasSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[models.NAME]`: who may answer when this name is asked for.

    Attributes:
        candidates: Each provider/model, best first.
        weights: With them none is better than the others: each gets its share of conversations.
    """

    candidates: tuple[str, ...]
    weights: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError("candidates must name at least one provider/model")
        _check_weights(self.weights, len(self.candidates), of="candidates")


def _check_weights(weights: tuple[int, ...], count: int, *, of: str) -> None:
    if weights and len(weights) != count:
        raise ValueError(f"weights has {len(weights)} numbers for {count} {of}; give each one")
    if not all(1 <= weight <= WEIGHT_MAX for weight in weights):
        raise ValueError(f"weights are whole numbers from 1 to {WEIGHT_MAX}")


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[prices."PROVIDER/MODEL"]`: decimal strings per million tokens."""

    input: str
    output: str
    cached: str | None = None
    cache_write: str | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        for price in (self.input, self.output, self.cached, self.cache_write):
            if price is not None:
                price_pico(price)


class RoutingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[routing]`: the model of each tier."""

    simple: str = DEFAULT_MODEL
    moderate: str = DEFAULT_MODEL
    complex: str = DEFAULT_MODEL


class RolloutSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[rollout.ROLE]`: the phased move of one role to another model.

    Attributes:
        to: The model, by any name that a caller could ask for.
        percent: How many of the role's conversations have moved, from 0 to 100: a whole number, or
            a decimal string with up to two places.
    """

    to: str
    percent: int | str

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError("to must name a model")
        if not _PERCENT.fullmatch(str(self.percent)) or Decimal(self.percent) > 100:
            raise ValueError(
                "percent is a whole number from 0 to 100, or a decimal string with up to two "
                f'places such as "0.25", not {self.percent!r}'
            )

    @property
    def share(self) -> int:
        """The same in millionths of the whole."""
        return int(Decimal(self.percent) * 10_000)


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[storage]`: where keys and the journal are kept.

    Attributes:
        url: `sqlite:FILE`; a relative one begins at the working directory.
    """

    url: str = "sqlite:droveway.db"

    def __post_init__(self) -> None:
        scheme, _, name = self.url.partition(":")
        if scheme != "sqlite" or not name or name.startswith((":", "//")):
            raise ValueError(f"url must be sqlite:FILE, not {self.url!r}")


class RateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One `[billing.rates.CURRENCY]`: by what a foreign top-up is converted.

    Attributes:
        per_unit: What one unit is worth in `billing.currency`, as a decimal string.
        on: The day on which that was declared.
    """

    per_unit: str
    on: date

    def __post_init__(self) -> None:
        if not _is_decimal(self.per_unit) or Decimal(self.per_unit) <= 0:
            raise ValueError(
                f'per_unit is a decimal above zero such as "0.14", not {self.per_unit!r}'
            )


class BillingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[billing]`: whether and how requests are paid from prepaid accounts.

    Attributes:
        enabled: Whether a key without money is refused.
        currency: In which prices are looked up and accounts are kept.
        markup: What the caller pays for what a vendor asks, as a factor.
        signup_credit: Promotional credit of every new account.
        signup_credit_days: After how many days that expires.
        floor: How far a balance may fall for requests whose bound it does not cover; zero or less.
        disconnect: What becomes of a request whose caller hung up: given up, or answered all the
            same and paid as produced.
        drain_s: For how long it is answered then at most.
        drain_tokens: And for how many tokens of a stream.
        low_balance: Below what an account is low; None for nothing to tell.
        low_balance_url: Who is told.
        low_balance_secret: `env:NAME` or `file:PATH`, by which what is told is signed.
        rates: By what top-ups in other currencies are converted.
    """

    enabled: bool = False
    currency: str = "USD"
    markup: str = "1.00"
    signup_credit: str = "0"
    signup_credit_days: int = 30
    floor: str = "0"
    disconnect: Literal["cancel", "drain"] = "cancel"
    drain_s: int = 60
    drain_tokens: int = 4_096
    low_balance: str | None = None
    low_balance_url: str | None = None
    low_balance_secret: str | None = None
    rates: dict[str, RateSettings] = {}

    def __post_init__(self) -> None:
        for currency in (self.currency, *self.rates):
            Money.zero(currency)
        if not _is_decimal(self.markup) or not 0 < Decimal(self.markup) <= 1_000:
            raise ValueError(f'markup is a decimal factor such as "1.20", not {self.markup!r}')
        if Money.parse(self.signup_credit, self.currency).nano < 0:
            raise ValueError("signup_credit cannot be negative")
        if Money.parse(self.floor, self.currency).nano > 0:
            raise ValueError(
                f'floor is "0", or how far below it may fall: "-5", not {self.floor!r}'
            )
        for name in ("signup_credit_days", "drain_s", "drain_tokens"):
            if not 1 <= getattr(self, name) <= 1_000_000:
                raise ValueError(f"{name} must be between 1 and 1000000")
        if self.low_balance is not None:
            Money.parse(self.low_balance, self.currency)
        if (self.low_balance is None) != (self.low_balance_url is None):
            raise ValueError("low_balance and low_balance_url belong together; set both or none")
        if (self.low_balance_url is None) != (self.low_balance_secret is None):
            raise ValueError("low_balance_url needs low_balance_secret, by which it is signed")


def _is_decimal(text: str) -> bool:
    whole, _, places = text.partition(".")
    return f"{whole}{places}".isdecimal() and text.isascii() and len(text) <= 20


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`[journal]`: what is written down about each request.

    Attributes:
        bodies: Whether the bodies of requests and answers are kept too; they hold what people said.
        keep_days: For how long its rows are kept; the hourly sums stay.
    """

    bodies: bool = False
    keep_days: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.keep_days <= 36_500:
            raise ValueError("keep_days must be between 1 and 36500")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set."""

    storage: StorageSettings = StorageSettings()
    billing: BillingSettings = BillingSettings()
    journal: JournalSettings = JournalSettings()
    server: ServerSettings = ServerSettings()
    streams: StreamsSettings = StreamsSettings()
    routing: RoutingSettings = RoutingSettings()
    rollout: dict[str, RolloutSettings] = {}
    providers: dict[str, ProviderSettings] = {}
    models: dict[str, AliasSettings] = {}
    prices: dict[str, PriceSettings] = {}


def load_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises:
        SettingsError: The file cannot be read or a key in it cannot be used; the message names
            the file, the key and what to do.
    """
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read the settings {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{str(path)!r} is no TOML: {error}") from error
    return read_settings(raw, source=str(path))


def read_settings(raw: Mapping[str, Any], *, source: str = "settings") -> Settings:
    """Turn decoded TOML into settings.

    Raises:
        SettingsError: A key is unknown or its value cannot be used.
    """
    _refuse_unknown(raw, Settings, path="", source=source)
    try:
        return msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        key = _with_name(where.rstrip("`"), raw)
        raise SettingsError(f"{source}: {key + ': ' if key else ''}{what}") from error


def resolve_secret(reference: str, environ: Mapping[str, str], *, key: str) -> Secret:
    """Fetch the secret that a setting names.

    Args:
        reference: `env:NAME` or `file:PATH`.
        environ: The environment.
        key: The setting it stands in, for the message.

    Raises:
        SettingsError: It is written out instead of named, or what it names is not there.
    """
    kind, _, name = reference.partition(":")
    # What is no name may be the key itself, written where its name belongs: it is not shown.
    if kind == "env" and name.isidentifier():
        if not environ.get(name, "").strip():
            raise SettingsError(f"{key} = {reference!r}, but {name} is not set; export {name}=…")
        value = environ[name]
    elif kind == "file" and name:
        try:
            value = Path(name).expanduser().read_text(encoding="utf-8")
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: ~ of nobody
            raise SettingsError(f"{key} = {reference!r} cannot be read: {error}") from error
    else:
        raise SettingsError(f'{key} must name its secret: write "env:NAME" or "file:PATH"')
    try:
        return Secret(value)
    except SettingsError as error:
        raise SettingsError(f"{key} = {reference!r}: {error}") from error


def _with_name(where: str, raw: Mapping[str, Any]) -> str:
    """Name the table in the path of an error, where msgspec writes `[...]` for any name."""
    field, unnamed, rest = where.partition("[...]")
    if not unnamed:
        return where
    kind: Any = Settings
    for name in field.split("."):
        kind = {each.name: each.type for each in msgspec.structs.fields(kind)}[name]
        raw = raw[name]
    bad = next(name for name, table in raw.items() if not _fits(table, get_args(kind)[1]))
    return f"{field}.{bad}{rest}"


def _fits(table: object, kind: type[msgspec.Struct]) -> bool:
    try:
        msgspec.convert(table, kind)
    except msgspec.ValidationError:
        return False
    return True


def _refuse_unknown(
    raw: Mapping[str, Any], struct: type[msgspec.Struct], *, path: str, source: str
) -> None:
    known = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    for name, value in raw.items():
        where = f"{path}.{name}" if path else name
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise SettingsError(f"{source}: unknown key {where!r}; {hint}")
        inner = known[name]
        if not isinstance(value, Mapping):
            continue
        if get_origin(inner) is dict:
            for each, table in value.items():
                if isinstance(table, Mapping):
                    _refuse_unknown(
                        table, get_args(inner)[1], path=f"{where}.{each}", source=source
                    )
        elif isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _refuse_unknown(value, inner, path=where, source=source)
