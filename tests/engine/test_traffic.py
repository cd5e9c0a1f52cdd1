"""Waiting, refusals and fall-back over real sockets: nobody storms and nobody is forgotten."""

import asyncio

import pytest

from droveway.engine.assembly import provider_at
from droveway.engine.engine import Engine
from droveway.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    DeadlineExceededError,
    NoAnswerError,
)
from droveway.resilience.retry import RetryPolicy
from droveway.sandbox import Limits, Rule, Sandbox, Script, refused_port
from droveway.settings import AliasSettings, ProviderSettings, Settings, Timeout
from lab import INSTANT, PATIENT, QUICK, ask, converse, lab, run, terms


def test_seventeen_callers_refused_at_once_come_back_spread_and_all_are_answered() -> None:
    """Measured of others: all seventeen return within 29 ms, and six of them die."""
    script = Script(rules=(Rule(times=17, fault="429-ms:600"),))

    async def check() -> None:
        async with lab(script=script) as (box, engine):
            calls = [converse(engine, ask(f"call {n}"), terms(PATIENT)) for n in range(17)]
            ended = await asyncio.gather(*calls)
            assert [exchange.error for exchange, _ in ended] == [None] * 17
            seen = box.journal
            refused_until = max(each.began_at for each in seen if each.status == 429) + 0.6
            back = sorted(each.began_at for each in seen if each.status == 200)
            assert len(seen) == 34
            assert back[0] >= refused_until - 0.02
            spread = back[-1] - back[1]
            assert spread > 0.2, "a herd that stopped together must not return together"

    run(check())


def test_a_probe_goes_first_and_the_rest_wait_for_its_answer() -> None:
    script = Script(rules=(Rule(times=6, fault="429-ms:100"),))

    async def check() -> None:
        async with lab(script=script) as (box, engine):
            calls = [converse(engine, ask(f"call {n}"), terms(PATIENT)) for n in range(5)]
            ended = await asyncio.gather(*calls)
            assert all(exchange.error is None for exchange, _ in ended)
            # Five are refused at once, the probe is refused as the sixth: nobody else went then.
            assert [each.status for each in box.journal][:7] == [429] * 6 + [200]
            assert len(box.journal) == 5 + 1 + 5

    run(check())


def test_a_vendors_real_limit_is_met_by_pacing_when_it_is_known() -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT, limits=Limits(concurrency=3)) as box:
            told = ProviderSettings(base_url=box.base_url, concurrency=3)
            settings = Settings(providers={"vendor": told})
            async with Engine(settings, environ={}) as engine:
                calls = [converse(engine, ask(f"{n}", stream=True), terms()) for n in range(20)]
                ended = await asyncio.gather(*calls)
            assert all(exchange.error is None for exchange, _ in ended)
            assert {each.status for each in box.journal} == {200}

    run(check())


def _two(first: str, second: str, **limits: object) -> Settings:
    return Settings(
        providers={
            "first": ProviderSettings(base_url=first, models=("model",)),
            "second": ProviderSettings(base_url=second, models=("model",)),
        },
        models={"either": AliasSettings(candidates=("first/model", "second/model"))},
    )


@pytest.mark.parametrize("fault", ["500", "503", "429-seconds:30", "401", "402", "html-200", "404"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_plans_next_candidate_answers_when_the_first_cannot(
    fault: str, *, stream: bool
) -> None:
    script = Script(rules=(Rule(fault=fault),))

    async def check() -> None:
        async with (
            Sandbox(profile=INSTANT, script=script) as broken,
            Sandbox(profile=INSTANT) as good,
            Engine(_two(broken.base_url, good.base_url), environ={}) as engine,
        ):
            exchange, _ = await converse(engine, ask(model="either", stream=stream), terms(PATIENT))
            if fault == "404":
                # The request is the same everywhere, but not the catalogue: still theirs to say.
                assert exchange.error is not None
                return
            assert exchange.error is None
            assert len(broken.journal) == 1
            assert len(good.journal) == 1
            assert exchange.row is not None
            assert [entry.provider for entry in exchange.row.attempts] == ["first", "second"]

    run(check())


def test_a_request_that_must_change_is_not_carried_to_the_next_candidate() -> None:
    script = Script(rules=(Rule(fault="400"),))

    async def check() -> None:
        async with (
            Sandbox(profile=INSTANT, script=script) as broken,
            Sandbox(profile=INSTANT) as good,
            Engine(_two(broken.base_url, good.base_url), environ={}) as engine,
        ):
            exchange, _ = await converse(engine, ask(model="either"), terms(PATIENT))
            assert type(exchange.error) is BadRequestError
            assert good.journal == []

    run(check())


def test_two_candidates_that_fail_are_both_told() -> None:
    async def check() -> None:
        scripts = [Script(rules=(Rule(fault=fault),)) for fault in ("500", "402")]
        async with (
            Sandbox(profile=INSTANT, script=scripts[0]) as one,
            Sandbox(profile=INSTANT, script=scripts[1]) as two,
            Engine(_two(one.base_url, two.base_url), environ={}) as engine,
        ):
            retry = RetryPolicy(max_attempts=3, base_s=0.01)
            exchange, _ = await converse(engine, ask(model="either"), terms(retry))
            assert isinstance(exchange.error, NoAnswerError)
            assert [type(error).__name__ for error in exchange.error.errors] == [
                "InternalServerError",
                "InsufficientBalanceError",
                "InternalServerError",
            ]
            assert exchange.error.attempts == 3

    run(check())


def test_a_connection_that_is_refused_is_tried_again_and_then_told() -> None:
    async def check() -> None:
        with refused_port() as port:
            async with Engine.at(f"http://127.0.0.1:{port}/v1") as engine:
                exchange, _ = await converse(engine, ask(), terms(PATIENT))
        assert type(exchange.error) is APIConnectionError
        assert exchange.error.attempts == PATIENT.max_attempts
        assert str(port) in str(exchange.error)

    run(check())


def test_a_vendor_that_accepts_and_says_nothing_during_tls_times_out_as_connect() -> None:
    async def check() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        quick = Timeout(connect_s=0.2, first_token_s=5, idle_s=5, total_s=5)
        async with server, Engine.at(f"https://127.0.0.1:{port}/v1") as engine:
            exchange, _ = await converse(
                engine, ask(), terms(RetryPolicy(max_attempts=1), timeout=quick)
            )
        assert isinstance(exchange.error, APITimeoutError)
        assert exchange.error.phase == "connect"

    run(check())


def test_a_deadline_that_passes_in_the_line_is_told_as_such() -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT) as box:
            provider = provider_at(
                box.base_url, None, limits=ProviderSettings(base_url=box.base_url, concurrency=1)
            )
            async with Engine(providers=[provider]) as engine:
                long = await engine.begin(ask(model="fault-slow-headers"), terms())
                short = Timeout(connect_s=1, first_token_s=1, idle_s=1, total_s=0.2)
                while engine.line_of(engine.plan("fault-slow-headers")[0]).pacer.in_flight == 0:
                    await asyncio.sleep(0.001)
                waiting, _ = await converse(
                    engine, ask(model="fault-slow-headers"), terms(timeout=short)
                )
                assert isinstance(waiting.error, DeadlineExceededError)
                assert waiting.row is not None
                assert waiting.row.attempts == ()
                long.give_up()

    run(check())


def test_a_total_outage_costs_at_most_a_tenth_more_requests_and_a_constant() -> None:
    async def check() -> None:
        script = Script(rules=(Rule(fault="500"),))
        async with lab(script=script) as (box, engine):
            retry = RetryPolicy(max_attempts=5, base_s=0.001)
            for _ in range(20):
                calls = [converse(engine, ask(f"{n}"), terms(retry)) for n in range(20)]
                await asyncio.gather(*calls)
            assert len(box.journal) <= 400 * 1.1 + 10

    run(check())


def test_the_vendors_key_is_never_repeated_even_when_the_vendor_repeats_it() -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT, api_keys={"sk-other"}) as box:
            async with Engine.at(box.base_url, "  sk-secret-of-ours \n") as engine:
                exchange, _ = await converse(engine, ask())
        assert exchange.error is not None
        assert "sk-secret" not in str(exchange.error)

    run(check())


def test_exactly_one_request_is_sent_for_one_call() -> None:
    async def check() -> None:
        async with lab() as (box, engine):
            for stream in (True, False):
                await converse(engine, ask(stream=stream), terms(timeout=QUICK))
            assert len(box.journal) == 2

    run(check())
