"""What goes wrong at a vendor or with a client, seen through the official OpenAI SDK.

Run twice, as `test_official_sdk.py` is: against the sandbox itself ("direct") and through the
gateway. Where the two differ by design, the test names both.
"""

from typing import Any

import openai
import pytest

from door import (
    HI,
    MODEL,
    VENDOR_KEY,
    FakeKey,
    SteadyClock,
    Way,
    running_gateway,
    until,
    user,
)
from droveway.sandbox import refused_port
from lab import run

# Errors: what the vendor does, and what the SDK raises on each way.

ERRORS: list[tuple[str, type[openai.APIError], type[openai.APIError]]] = [
    ("400", openai.BadRequestError, openai.BadRequestError),
    # The vendor's quarrel with our account is not the caller's: to them the upstream failed.
    ("401", openai.AuthenticationError, openai.InternalServerError),
    ("402", openai.APIStatusError, openai.InternalServerError),
    ("403", openai.PermissionDeniedError, openai.InternalServerError),
    ("404", openai.NotFoundError, openai.NotFoundError),
    ("413", openai.APIStatusError, openai.APIStatusError),
    ("422", openai.UnprocessableEntityError, openai.UnprocessableEntityError),
    ("429-ms:1", openai.RateLimitError, openai.RateLimitError),
    ("500", openai.InternalServerError, openai.InternalServerError),
    ("502-html", openai.InternalServerError, openai.InternalServerError),
    ("503", openai.InternalServerError, openai.InternalServerError),
    ("504", openai.InternalServerError, openai.InternalServerError),
    ("529", openai.InternalServerError, openai.InternalServerError),
    # The gateway itself is there: a broken connection behind it is an answer of status 502.
    ("refuse", openai.APIConnectionError, openai.InternalServerError),
    ("hang-up", openai.APIConnectionError, openai.InternalServerError),
    ("cut-head", openai.APIConnectionError, openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("fault", "direct", "gateway"), ERRORS, ids=[row[0] for row in ERRORS])
def test_each_failure_has_its_class(
    way: Way,
    client: Any,
    *,
    fault: str,
    direct: type[openai.APIError],
    gateway: type[openai.APIError],
    stream: bool,
) -> None:
    with pytest.raises(openai.APIError) as caught:
        client.chat.completions.create(model=f"fault-{fault}", messages=HI, stream=stream)
    assert type(caught.value) is (gateway if way.through else direct)
    if way.through:
        assert VENDOR_KEY not in str(caught.value)
        assert isinstance(caught.value, openai.APIStatusError)
        assert caught.value.code
        assert caught.value.response.headers["x-droveway-request-id"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_waits_no_longer_meets_its_own_timeout(way: Way, *, stream: bool) -> None:
    with way.sdk(timeout=0.3) as impatient, pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model="fault-slow-headers", messages=HI, stream=stream)
    until(lambda: way.seen and way.seen[-1].client_gone)


def test_nobody_there_is_a_connection_error(way: Way) -> None:
    with refused_port() as port, way.sdk(base_url=f"http://127.0.0.1:{port}/v1") as nobody:
        with pytest.raises(openai.APIConnectionError):
            nobody.chat.completions.create(model=MODEL, messages=HI)


def test_a_wrong_key_opens_nothing(way: Way) -> None:
    with way.sdk(api_key="dw_wrong") as stranger, pytest.raises(openai.AuthenticationError) as got:
        stranger.chat.completions.create(model=MODEL, messages=HI)
    assert got.value.code == "invalid_api_key"
    assert "dw_wrong" not in str(got.value)
    assert len(way.seen) == (0 if way.through else 1)


def test_an_error_amid_a_stream_is_raised_on_both_ways(client: Any) -> None:
    stream = client.chat.completions.create(model="fault-error-event:3", messages=HI, stream=True)
    with pytest.raises(openai.APIError, match="The server had an error"):
        list(stream)


def test_a_cut_stream_is_never_taken_for_whole(way: Way, client: Any) -> None:
    """Ours: the SDK takes a stream without its finish for complete; behind the gateway it cannot."""
    stream = client.chat.completions.create(
        model="fault-end-without-finish", messages=HI, stream=True
    )
    if way.through:
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "upstream_failed"
    else:
        assert all(chunk.choices[0].finish_reason is None for chunk in stream)


# Retries: exactly one layer of them. Each test has its own gateway: retries have a budget.


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the SDK would have slept before its own retries."""
    told: list[float] = []
    monkeypatch.setattr("openai._base_client.time.sleep", told.append)
    return told


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", ["429-ms:50", "503", "500"])
def test_a_vendor_that_recovers_is_asked_once_more(
    waited: list[float], fault: str, *, stream: bool
) -> None:
    """The SDK's own retry does it on the direct way; behind the gateway it sees no failure."""
    with running_gateway(clock=SteadyClock(), api_keys={VENDOR_KEY}) as it:
        for through in (False, True):
            it.box.forget()
            way = Way(it, through=through)
            with way.sdk(max_retries=2) as client:
                got = client.chat.completions.with_raw_response.create(
                    model=f"fault-{fault}@1", messages=user(f"{through}"), stream=stream
                )
                assert list(got.parse()) if stream else got.parse()
            asked = [(seen.status, seen.attempt) for seen in way.seen]
            assert asked == [(int(fault[:3]), 1), (200, 2)]
            assert got.retries_taken == (0 if through else 1)
        assert got.headers["x-droveway-attempts"] == "2"
    assert len(waited) == 1
    assert waited == [0.05] or not fault.startswith("429")


@pytest.mark.parametrize(
    ("fault", "direct", "through_us"),
    [
        ("429-ms:1", 3, 5),
        ("503", 3, 5),
        # The request may have reached the vendor: we do not send it twice, the SDK does.
        ("refuse", 3, 1),
    ],
)
def test_our_attempts_are_not_multiplied_by_the_sdks(
    waited: list[float], fault: str, *, direct: int, through_us: int
) -> None:
    with running_gateway(clock=SteadyClock(), api_keys={VENDOR_KEY}) as it:
        for through, expected in ((False, direct), (True, through_us)):
            it.box.forget()
            way = Way(it, through=through)
            with way.sdk(max_retries=openai.DEFAULT_MAX_RETRIES) as client:
                with pytest.raises(openai.APIError) as caught:
                    client.chat.completions.create(
                        model=f"fault-{fault}", messages=user(f"{through}")
                    )
            assert len(way.seen) == expected
        assert isinstance(caught.value, openai.APIStatusError)
        assert caught.value.response.headers["x-should-retry"] == "false"
        (row,) = it.engine.journal.rows
        assert len(row.attempts) == through_us
    assert len(waited) == direct - 1


def test_the_retry_after_of_a_keys_own_limit_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No vendor was asked, so the SDK tries again after the time it is told, and is served."""
    waited: list[float] = []
    with running_gateway(key=FakeKey(concurrency=1), api_keys={VENDOR_KEY}) as it:
        way = Way(it, through=True)
        with way.sdk(max_retries=2) as client, way.sdk() as other:
            busy = other.chat.completions.create(model="fault-stall:3", messages=HI, stream=True)
            next(iter(busy))

            def sleep(seconds: float) -> None:
                waited.append(seconds)
                busy.close()
                until(lambda: not it.engine.open_exchanges)

            monkeypatch.setattr("openai._base_client.time.sleep", sleep)
            got = client.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
        assert (got.retries_taken, waited) == (1, [1.0])
        assert [seen.model for seen in it.box.journal] == ["fault-stall:3", MODEL]


def test_a_model_that_the_key_may_not_use_is_a_permission_error() -> None:
    with running_gateway(key=FakeKey(models=("other",))) as it:
        with Way(it, through=True).sdk() as client:
            with pytest.raises(openai.PermissionDeniedError) as caught:
                client.chat.completions.create(model=MODEL, messages=HI)
        assert caught.value.code == "model_not_allowed"
        assert it.box.journal == []


# Clients that go away.


@pytest.mark.parametrize("helper", [False, True], ids=["create", "stream helper"])
def test_a_stream_that_is_closed_early_is_closed_at_the_vendor(
    way: Way, client: Any, *, helper: bool
) -> None:
    asked: dict[str, Any] = {"model": "fault-stall:3", "messages": HI}
    if helper:
        with client.chat.completions.stream(**asked) as events:
            next(iter(events))
    else:
        stream = client.chat.completions.create(**asked, stream=True)
        next(iter(stream))
        stream.close()
    until(lambda: way.seen[-1].client_gone)
    if way.through:
        until(lambda: not way.door.engine.open_exchanges)
        row = way.door.engine.journal.rows[-1]
        assert (row.outcome, row.client_gone) == ("cancelled", True)


def test_an_abandoned_async_stream_is_closed_at_the_vendor(way: Way) -> None:
    async def check() -> None:
        async with way.async_sdk() as sdk:
            stream = await sdk.chat.completions.create(
                model="fault-stall:3", messages=HI, stream=True
            )
            async with stream:
                async for _ in stream:
                    break

    run(check())
    until(lambda: way.seen[-1].client_gone)
