"""The one line of a failed request, and of one that was refused at the door."""

import logging

import pytest

from door import HI, raw
from droveway.gateway.failures import tell_of_failure, tell_of_refusal
from lab import run
from scraping import chat_body, row, watched


def test_a_failed_request_is_one_line_and_a_served_one_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "droveway")

    async def check() -> None:
        async with watched(monkeypatch) as it:
            await raw(it, chat_body())
            assert caplog.records == []
            await raw(it, chat_body("fault-status:500"))
            failed = it.engine.journal.rows[-1]
            (line,) = caplog.records
            assert line.levelno == logging.WARNING
            assert failed.id in line.getMessage()
            told = {name: getattr(line, name) for name in ("request_id", "code", "provider")}
            assert told == {"request_id": failed.id, "code": failed.code, "provider": "remote"}
            assert HI[0]["content"] not in line.getMessage()

    run(check())


def test_a_request_that_nobody_was_asked_for_fails_in_one_line_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell_of_failure(row(outcome="failed", code="model_not_found", attempts=()))
    tell_of_failure(row(outcome="cancelled", code="cancelled"))
    (line,) = caplog.records
    assert line.getMessage() == "request req_1 failed: model_not_found"


def test_a_stranger_cannot_write_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "droveway")
    tell_of_refusal(
        "route_not_found", "/v1\n2026 WARNING all is well" + "x" * 10_000, request_id="req_1"
    )
    (line,) = caplog.records
    assert "\n" not in line.getMessage()
    assert len(line.getMessage()) < 200
    assert line.code == "route_not_found"  # type: ignore[attr-defined]
