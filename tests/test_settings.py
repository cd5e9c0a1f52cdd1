"""Settings: defaults, unknown keys, wrong values, and secrets that stay secret."""

import os
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.engine.assembly import assemble
from droveway.errors import SettingsError
from droveway.settings import (
    AliasSettings,
    BillingSettings,
    JournalSettings,
    PriceSettings,
    ProviderSettings,
    RateSettings,
    RolloutSettings,
    RoutingSettings,
    Secret,
    ServerSettings,
    Settings,
    StorageSettings,
    StreamsSettings,
    Timeout,
    load_settings,
    read_settings,
    resolve_secret,
)

KEY = "sk-droveway-4711"
PROVIDER: dict[str, Any] = {"base_url": "https://api.example.com"}


def load(text: str, folder: Path) -> Settings:
    path = folder / "droveway.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


# Defaults and a full file.


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load("", tmp_path) == Settings() == read_settings({})


def test_the_defaults_are_these() -> None:
    """Ours: a default that moves is a change that users read about."""
    assert msgspec.to_builtins(Settings()) == {
        "server": {
            "host": "127.0.0.1",
            "port": 4100,
            "workers": 1,
            "drain_s": 600,
            "body_bytes_max": 33_554_432,
            "admin_token": None,
            "log": "text",
        },
        "storage": {"url": "sqlite:droveway.db"},
        "billing": {
            "enabled": False,
            "currency": "USD",
            "markup": "1.00",
            "signup_credit": "0",
            "signup_credit_days": 30,
            "floor": "0",
            "disconnect": "cancel",
            "drain_s": 60,
            "drain_tokens": 4_096,
            "low_balance": None,
            "low_balance_url": None,
            "low_balance_secret": None,
            "rates": {},
        },
        "journal": {"bodies": False, "keep_days": 90},
        "streams": {
            "connect_s": 10.0,
            "first_token_s": 120.0,
            "idle_s": 60.0,
            "total_s": 600.0,
            "keepalive_s": 15.0,
        },
        "routing": dict.fromkeys(("simple", "moderate", "complex"), "deepseek-flash"),
        "rollout": {},
        "providers": {},
        "models": {},
        "prices": {},
    }
    provider = msgspec.to_builtins(read_settings({"providers": {"p": PROVIDER}}).providers["p"])
    assert provider == {
        **dict.fromkeys(("accent", "api_key", "prices", "concurrency", "rpm", "tpm")),
        **PROVIDER,
        "dialect": "openai",
        "models": (),
        "api_keys": (),
        "weights": (),
        "waiting_max": 10_000,
        "failures_max": 5,
    }
    assert PriceSettings(input="1", output="2") == PriceSettings(
        input="1", output="2", cached=None, cache_write=None, currency="USD"
    )


def test_every_key_can_be_set(tmp_path: Path) -> None:
    settings = load(
        """
        [server]
        host = "::1"
        port = 0
        drain_s = 9
        body_bytes_max = 1000
        [storage]
        url = "sqlite:/var/lib/droveway/own.db"
        [billing]
        enabled = true
        currency = "EUR"
        markup = "1.2"
        signup_credit = "2.50"
        signup_credit_days = 1
        floor = "-5"
        disconnect = "drain"
        drain_s = 5
        drain_tokens = 6
        low_balance = "1"
        low_balance_url = "https://example.com/low"
        low_balance_secret = "env:LOW"
        [billing.rates.CNY]
        per_unit = "0.125"
        on = 2026-11-01
        [journal]
        keep_days = 1
        [streams]
        connect_s = 1
        first_token_s = 2.5
        idle_s = 3
        total_s = 86400
        keepalive_s = 4
        [routing]
        simple = "a"
        moderate = "b"
        complex = "c"
        [rollout.critic]
        to = "fast"
        percent = "12.5"
        [providers.deepseek]
        dialect = "openai"
        accent = "deepseek"
        base_url = "http://127.0.0.1:8000/v1"
        api_key = "env:DEEPSEEK_API_KEY"
        prices = "deepseek"
        models = ["deepseek-flash"]
        concurrency = 1
        rpm = 2
        tpm = 3
        [models."fast"]
        candidates = ["deepseek/deepseek-flash", "openai/gpt-6-luna"]
        [prices."local/qwen"]
        input = "0.15"
        output = "0.60"
        cached = "0.003"
        cache_write = "0"
        currency = "CNY"
        """,
        tmp_path,
    )
    assert settings == Settings(
        server=ServerSettings(host="::1", port=0, drain_s=9, body_bytes_max=1_000),
        storage=StorageSettings(url="sqlite:/var/lib/droveway/own.db"),
        billing=BillingSettings(
            enabled=True,
            currency="EUR",
            markup="1.2",
            signup_credit="2.50",
            signup_credit_days=1,
            floor="-5",
            disconnect="drain",
            drain_s=5,
            drain_tokens=6,
            low_balance="1",
            low_balance_url="https://example.com/low",
            low_balance_secret="env:LOW",
            rates={"CNY": RateSettings(per_unit="0.125", on=date(2026, 11, 1))},
        ),
        journal=JournalSettings(keep_days=1),
        streams=StreamsSettings(
            connect_s=1.0, first_token_s=2.5, idle_s=3.0, total_s=86_400.0, keepalive_s=4.0
        ),
        routing=RoutingSettings(simple="a", moderate="b", complex="c"),
        rollout={"critic": RolloutSettings(to="fast", percent="12.5")},
        providers={
            "deepseek": ProviderSettings(
                base_url="http://127.0.0.1:8000/v1",
                accent="deepseek",
                api_key="env:DEEPSEEK_API_KEY",
                prices="deepseek",
                models=("deepseek-flash",),
                concurrency=1,
                rpm=2,
                tpm=3,
            )
        },
        models={"fast": AliasSettings(candidates=("deepseek/deepseek-flash", "openai/gpt-6-luna"))},
        prices={
            "local/qwen": PriceSettings(
                input="0.15", output="0.60", cached="0.003", cache_write="0", currency="CNY"
            )
        },
    )


# Keys that are not known.


@pytest.mark.parametrize(
    ("raw", "key", "nearest"),
    [
        ({"stream": {}}, "'stream'", "'streams'"),
        ({"provider": {}}, "'provider'", "'providers'"),
        ({"streams": {"idle": 3}}, "'streams.idle'", "'idle_s'"),
        ({"routing": {"simpel": "a"}}, "'routing.simpel'", "'simple'"),
        (
            {"providers": {"x": {**PROVIDER, "apikey": "env:K"}}},
            "'providers.x.apikey'",
            "'api_key'",
        ),
        ({"models": {"fast": {"candidate": []}}}, "'models.fast.candidate'", "'candidates'"),
        ({"billing": {"signup": "2"}}, "'billing.signup'", "'signup_credit'"),
        (
            {"billing": {"rates": {"CNY": {"per_unti": "1"}}}},
            "'billing.rates.CNY.per_unti'",
            "'per_unit'",
        ),
        ({"prices": {"a/b": {"inptu": "1"}}}, "'prices.a/b.inptu'", "'input'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(
    raw: dict[str, Any], key: str, nearest: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(raw, source="here.toml")
    assert str(caught.value) == f"here.toml: unknown key {key}; did you mean {nearest}?"


def test_an_unknown_key_that_is_near_to_none_is_told_all() -> None:
    with pytest.raises(SettingsError, match="known are complex, moderate, simple"):
        read_settings({"routing": {"zzz": 1}})


def test_names_of_providers_models_and_prices_are_free() -> None:
    raw = {"providers": {"p-1.x y": PROVIDER}, "models": {"": {"candidates": ["a"]}}}
    settings = read_settings(raw)
    assert (list(settings.providers), list(settings.models)) == (["p-1.x y"], [""])


# Values that cannot be used.


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"streams": 3}, "streams: "),
        ({"streams": {"idle_s": "3"}}, "streams.idle_s: "),
        ({"streams": {"idle_s": True}}, "streams.idle_s: "),
        ({"streams": {"idle_s": 0}}, "streams: idle_s "),
        ({"streams": {"total_s": -1.0}}, "streams: total_s "),
        ({"streams": {"connect_s": float("nan")}}, "streams: connect_s "),
        ({"streams": {"first_token_s": float("inf")}}, "streams: first_token_s "),
        ({"storage": {"url": "droveway.db"}}, "storage: url must be sqlite:FILE"),
        ({"storage": {"url": "sqlite::memory:"}}, "storage: url must be sqlite:FILE"),
        ({"journal": {"keep_days": 0}}, "journal: keep_days must be between"),
        ({"billing": {"currency": "usd"}}, "billing: 'usd' is no currency code"),
        ({"billing": {"markup": "0"}}, "billing: markup is a decimal factor"),
        ({"billing": {"markup": "-1"}}, "billing: markup is a decimal factor"),
        ({"billing": {"markup": "1000.1"}}, "billing: markup is a decimal factor"),
        ({"billing": {"markup": "1e2"}}, "billing: markup is a decimal factor"),
        ({"billing": {"markup": 1.2}}, "billing.markup: "),
        ({"billing": {"signup_credit": "-1"}}, "billing: signup_credit cannot be negative"),
        ({"billing": {"signup_credit": "much"}}, "billing: an amount is a decimal string"),
        ({"billing": {"signup_credit_days": 0}}, "billing: signup_credit_days must be between"),
        ({"billing": {"floor": "1"}}, 'billing: floor is "0", or how far below'),
        ({"billing": {"disconnect": "hang"}}, "billing.disconnect: "),
        ({"billing": {"drain_s": 0}}, "billing: drain_s must be between"),
        ({"billing": {"drain_tokens": 1_000_001}}, "billing: drain_tokens must be between"),
        ({"billing": {"low_balance": "1"}}, "billing: low_balance and low_balance_url belong"),
        ({"billing": {"low_balance": "1", "low_balance_url": "https://x"}}, "needs low_balance_secret"),
        ({"billing": {"rates": {"CNY": {"per_unit": "0", "on": date(2026, 1, 1)}}}}, "billing.rates.CNY: per_unit is a decimal"),
        ({"billing": {"rates": {"CNY": {"per_unit": "0.14"}}}}, "billing.rates.CNY: .*on"),
        ({"billing": {"rates": {"CNY": {"per_unit": "0.14", "on": "soon"}}}}, "billing.rates.CNY.on: "),
        ({"billing": {"rates": {"yuan": {"per_unit": "1", "on": date(2026, 1, 1)}}}}, "billing: 'yuan' is no currency"),
        ({"routing": {"simple": 1}}, "routing.simple: "),
        ({"rollout": {"critic": {"to": "m"}}}, "rollout.critic: .*percent"),
        ({"rollout": {"critic": {"to": "", "percent": 1}}}, "rollout.critic: to must name"),
        ({"rollout": {"critic": {"to": "m", "percent": 1.5}}}, "rollout.critic.percent: "),
        ({"providers": 3}, "providers: "),
        ({"providers": {"good": PROVIDER, "bad": 3}}, "providers.bad: "),
        ({"providers": {"good": PROVIDER, "b[0]": {**PROVIDER, "rpm": "9"}}}, r"providers.b\[0\].rpm: "),
        ({"providers": {"bad": {**PROVIDER, "rpm": 0}}}, "providers.bad: rpm must be at least 1"),
        ({"providers": {"bad": {**PROVIDER, "tpm": -5}}}, "providers.bad: tpm must be at least 1"),
        ({"providers": {"bad": {**PROVIDER, "concurrency": 0}}}, "bad: concurrency must be"),
        ({"providers": {"bad": {**PROVIDER, "concurrency": 1.5}}}, "providers.bad.concurrency: "),
        ({"providers": {"bad": {**PROVIDER, "models": "x"}}}, "providers.bad.models: "),
        ({"providers": {"bad": {**PROVIDER, "dialect": "klingon"}}}, "providers.bad.dialect: "),
        ({"providers": {"bad": {"base_url": "api.example.com"}}}, "bad: base_url must start with"),
        ({"models": {"fast": {"candidates": [1]}}}, r"models.fast.candidates\[0\]: "),
        ({"models": {"fast": {"candidates": []}}}, "models.fast: candidates must name at least one"),
        ({"models": {"fast": {}}}, "models.fast: .*candidates"),
        ({"prices": {"a/b": {"input": "1"}}}, "prices.a/b: .*output"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_says_its_key(raw: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingsError, match=f"^here.toml: .*{key}"):
        read_settings(raw, source="here.toml")


@pytest.mark.parametrize("field", ["input", "output", "cached", "cache_write"])
@pytest.mark.parametrize(
    "price", [0.15, 1, True, "1e-3", "-1", "0,15", "", " 1", "1_0", "0.0000001"]
)
def test_a_price_is_a_decimal_string_and_nothing_else(field: str, price: object) -> None:
    raw = {"prices": {"a/b": {"input": "1", "output": "2", field: price}}}
    with pytest.raises(SettingsError, match=r"prices\.a/b"):
        read_settings(raw)


@pytest.mark.parametrize("price", ["0", "0.15", "0.003625", "1000"])
def test_a_price_stays_the_string_that_was_written(price: str) -> None:
    raw = {"prices": {"a/b": {"input": price, "output": price}}}
    assert read_settings(raw).prices["a/b"].input == price


@pytest.mark.parametrize(
    ("percent", "share"),
    [(0, 0), (5, 50_000), (100, 1_000_000), ("5", 50_000), ("0.01", 100), ("100.00", 1_000_000)],
)
def test_a_percentage_is_exact_to_two_places(percent: int | str, share: int) -> None:
    told = read_settings({"rollout": {"critic": {"to": "m", "percent": percent}}})
    assert told.rollout["critic"].share == share


@pytest.mark.parametrize(
    "percent", [-1, 101, "100.01", "-1", "0.001", "1e1", "", " 1", "1.", ".5", "5%", "NaN", "１"]
)
def test_a_percentage_is_from_nothing_to_all_and_plainly_written(percent: int | str) -> None:
    with pytest.raises(SettingsError, match=r"rollout\.critic: percent is a whole number from 0"):
        read_settings({"rollout": {"critic": {"to": "m", "percent": percent}}})


@pytest.mark.parametrize(
    ("to", "is_known"),
    [("m", True), ("p/other", True), ("fast", True), ("complex", True), ("n", False)],
)
def test_a_role_moves_only_to_what_somebody_has(to: str, *, is_known: bool) -> None:
    told = read_settings(
        {
            "providers": {"p": {**PROVIDER, "models": ["m"]}},
            "models": {"fast": {"candidates": ["p/m"]}},
            "rollout": {"critic": {"to": to, "percent": 5}},
        }
    )
    if is_known:
        assemble(told, {})
        return
    with pytest.raises(SettingsError, match=r"rollout\.critic\.to: no configured provider .*'n'"):
        assemble(told, {})


# Files.


@pytest.mark.parametrize("text", ["[streams", "a = ", "a = 1\na = 2\n", "[streams]\nidle_s = 1,5"])
def test_broken_toml_names_the_file_and_the_place(text: str, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"droveway\.toml' is no TOML: .*(at line \d|at end of document)"
    ):
        load(text, tmp_path)


def test_bytes_that_are_no_text_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "droveway.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(SettingsError, match="is no TOML"):
        load_settings(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read the settings .*: "):
        load_settings(tmp_path / name)


def test_an_error_inside_a_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"droveway\.toml: unknown key 'rooting'"):
        load("[rooting]", tmp_path)


# Secrets.


@pytest.mark.parametrize("written", [KEY, f"  {KEY}\n", f"{KEY}\r\n", f"\t{KEY} "])
def test_a_secret_comes_from_the_environment_or_a_file(written: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(written.encode())
    assert resolve_secret("env:K", {"K": written}, key="k").reveal() == KEY
    assert resolve_secret(f"file:{path}", {}, key="k").reveal() == KEY


def test_a_secret_file_may_stand_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    assert resolve_secret("file:~/key", {}, key="k").reveal() == KEY


@pytest.mark.parametrize("environ", [{}, {"K": ""}, {"K": " \n"}])
def test_a_variable_that_is_not_set_says_which_and_what_to_do(environ: dict[str, str]) -> None:
    with pytest.raises(
        SettingsError, match=r"^providers.p.api_key = 'env:K', but K is not set; exp"
    ):
        resolve_secret("env:K", environ, key="providers.p.api_key")


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"two words", b"a\nb"])
def test_a_secret_file_that_cannot_be_used_says_which(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^providers.p.api_key = 'file:.*key'.*: "):
        resolve_secret(f"file:{path}", {}, key="providers.p.api_key")


@pytest.mark.parametrize("path", ["~nobody-of-that-name/key", "a\0b", "."])
def test_a_secret_path_that_leads_nowhere_is_an_error_of_the_settings(path: str) -> None:
    with pytest.raises(SettingsError, match=r"^k = "):
        resolve_secret(f"file:{path}", {}, key="k")


@pytest.mark.parametrize(
    "reference", [KEY, f"env:{KEY}", f"Bearer {KEY}", f"key:{KEY}", f"env: {KEY}", f":{KEY}"]
)
def test_a_key_written_out_is_refused_and_not_shown(reference: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve_secret(reference, dict(os.environ), key="providers.p.api_key")
    assert KEY not in str(caught.value)
    assert "providers.p.api_key must name its secret" in str(caught.value)


@pytest.mark.parametrize("reference", ["", "env:", "file:", "env"])
def test_a_reference_to_nothing_is_refused(reference: str) -> None:
    with pytest.raises(SettingsError, match="must name its secret"):
        resolve_secret(reference, {"": KEY}, key="k")


def test_a_secret_shows_itself_to_nobody_by_accident() -> None:
    secret = Secret(KEY)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!s:>40}",
        repr([secret]),
        repr((secret,)),
    ]
    assert not [text for text in shown if KEY in text]
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize("value", ["two words", "a\nb", "a\tb", "schlüssel", "a\0b", "\x7f", ""])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Secret(value)
    assert not value or value not in str(caught.value)


def test_settings_hold_the_name_of_a_secret_and_survive_a_pickle() -> None:
    settings = read_settings({"providers": {"p": {**PROVIDER, "api_key": "env:K"}}})
    assert settings.providers["p"].api_key == "env:K"
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize("seconds", [0, -1, 86_401, float("nan")])
def test_a_clock_of_a_call_is_above_zero_and_at_most_a_day(seconds: float) -> None:
    for name in Timeout.__struct_fields__:
        with pytest.raises(ValueError, match=f"{name} must be above 0"):
            Timeout(**{name: seconds})


def test_a_built_in_provider_needs_no_more_than_its_name_and_another_one_needs_a_url() -> None:
    """Ours: `[providers.deepseek]` alone takes the built-in URL and the usual key variable."""
    told = read_settings({"providers": {"deepseek": {"concurrency": 3}}})
    (provider,) = assemble(told, {"DEEPSEEK_API_KEY": "sk-x"}).providers
    assert provider.origin.host == "api.deepseek.com"
    assert provider.concurrency == 3
    with pytest.raises(SettingsError, match="DEEPSEEK_API_KEY"):
        assemble(told, {})
    with pytest.raises(SettingsError, match="no base_url"):
        assemble(read_settings({"providers": {"mine": {}}}), {})
