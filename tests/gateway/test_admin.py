"""The admin API over a real socket: what an operator may see and change, and what is refused."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from droveway.engine.engine import Engine
from droveway.engine.journal_upkeep import roll_up
from droveway.engine.records import Row
from droveway.errors import GoingDownError, SettingsError
from droveway.gateway.admin import ROUTES
from droveway.money import Money
from droveway.routing.plan import Candidate
from lab import run
from operator_door import TOKEN, VENDOR_KEY, OperatorDoor, Said, operator_door, send

HI = [{"role": "user", "content": "Say hi."}]
KEYS = "/admin/v1/keys"
REQUESTS = "/admin/v1/requests"
LINES = [f"{method} {path}" for path in ROUTES for method in ROUTES[path]]


def through(folder: Path, work: Callable[[OperatorDoor], Awaitable[None]], **sandbox: Any) -> None:
    async def check() -> None:
        async with operator_door(folder, **sandbox) as door:
            await work(door)

    run(check())


async def chat(door: OperatorDoor, model: str = "deepseek-flash", token: str | None = None) -> Said:
    body = {"model": model, "messages": HI}
    return await send(door, "POST /v1/chat/completions", body, token=token or door.secret)


# Who is let in.


LET_IN: list[tuple[list[str], int, str | None]] = [
    ([], 401, "invalid_api_key"),
    (["authorization: Bearer dw_test"], 401, "invalid_api_key"),
    ([f"authorization: Bearer {TOKEN}x"], 401, "invalid_api_key"),
    ([f"authorization: Bearer {TOKEN[:-1]}"], 401, "invalid_api_key"),
    ([f"authorization: Basic {TOKEN}"], 401, "invalid_api_key"),
    (["authorization: Bearer \xe9\xff"], 401, "invalid_api_key"),
    (["x-api-key: \xe9\xff"], 401, "invalid_api_key"),
    ([f"authorization: Bearer {TOKEN}", "x-api-key: another"], 400, "invalid_request"),
    ([f"authorization: Bearer {TOKEN}"], 200, None),
    ([f"x-api-key: {TOKEN}"], 200, None),
]


def test_only_the_token_opens_the_admin_api(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        for headers, status, code in LET_IN:
            said = await send(door, f"GET {KEYS}", None, *headers, token=None)
            assert said.status == status, headers
            if code is not None:
                assert said.error["code"] == code
                assert TOKEN not in said.error["message"]
            if status == 401:
                assert said.headers["www-authenticate"] == "bearer"

    through(tmp_path, work)


def test_no_route_works_without_the_token(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        before = door.keys.list()
        for line in LINES:
            named = re.sub(r"\{.*?\}", "alice", line)
            for token in (door.secret, None):
                said = await send(door, named, {"name": "bob"}, token=token)
                assert said.status == 401, line
        assert door.keys.list() == before
        assert door.reload.generation == 1

    through(tmp_path, work)


# Keys.


def test_a_key_is_made_with_its_terms_and_its_secret_is_shown_this_once(tmp_path: Path) -> None:
    terms = {
        "models": ["deepseek-flash"],
        "rpm": 60,
        "tpm": 100_000,
        "concurrency": 2**63 - 1,
        "expires_at": "2126-01-01T01:00:00+01:00",
        "tags": {"team": "blue", "角色": "搜索"},
    }

    async def work(door: OperatorDoor) -> None:
        made = await send(door, f"POST {KEYS}", {"name": " search ", **terms})
        assert made.status == 201
        assert made.headers["cache-control"] == "no-store"
        plain = made.told.pop("key")
        told = {name: value for name, value in made.told.items() if name != "key"}
        assert told["name"] == "search"
        assert told["expires_at"] == "2126-01-01T00:00:00Z"
        assert {name: told[name] for name in terms if name != "expires_at"} == {
            name: value for name, value in terms.items() if name != "expires_at"
        }
        shown = await send(door, f"GET {KEYS}/search")
        listed = await send(door, f"GET {KEYS}")
        assert shown.told == told
        assert listed.told["data"][-1] == told
        assert plain.encode() not in shown.body + listed.body
        assert (await chat(door, token=plain)).status == 200
        assert (await chat(door, "another", token=plain)).status == 403

    through(tmp_path, work)


@pytest.mark.parametrize("line", ["DELETE {}", "POST {}/revoke"])
def test_a_key_that_is_taken_back_opens_nothing_and_may_be_taken_back_again(
    tmp_path: Path, line: str
) -> None:
    async def work(door: OperatorDoor) -> None:
        key, plain = await door.keys.add("bob")
        assert (await chat(door, token=plain)).status == 200
        said = await send(door, line.format(f"{KEYS}/{key.id}"))
        assert said.status == 200
        assert said.told["revoked_at"] is not None
        assert (await chat(door, token=plain)).status == 401
        assert (await send(door, line.format(f"{KEYS}/bob"))).told == said.told

    through(tmp_path, work)


def test_a_renewed_key_opens_with_its_new_secret_only(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        _, old = await door.keys.add("bob")
        said = await send(door, f"POST {KEYS}/bob/rotate")
        assert said.status == 200
        assert (await chat(door, token=old)).status == 401
        assert (await chat(door, token=said.told["key"])).status == 200
        await door.keys.revoke("bob")
        refused = await send(door, f"POST {KEYS}/bob/rotate")
        assert (refused.status, refused.error["code"]) == (400, "invalid_request")

    through(tmp_path, work)


def test_any_name_that_can_be_given_can_be_asked_for(tmp_path: Path) -> None:
    names = ["a/b", "a/rotate", "..", "50%", "%2F", "a b?c#d", "搜索 🔍", "'; DROP TABLE key"]

    async def work(door: OperatorDoor) -> None:
        for name in names:
            key, _ = await door.keys.add(name)
            said = await send(door, f"GET {KEYS}/{quote(name, safe='')}")
            assert said.told["id"] == key.id, name
            assert (await send(door, f"DELETE {KEYS}/{quote(name, safe='')}")).status == 200
            assert door.keys.show(key.id).revoked_at is not None

    through(tmp_path, work)


BAD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b'{"name":"bob"} more',
    b'\xef\xbb\xbf{"name":"bob"}',
    b'{"name":"b\xffb"}',
    b'{"name":"\\ud800"}',
    b'{"name":"\\udc00\\ud800"}',
    b'{"name":"b\\u0000b"}',
    b'{"name":"b\\nb"}',
    b'{"name":" "}',
    b'{"name":"' + b"b" * 101 + b'"}',
    b'{"name":7}',
    b'{"name":null}',
    b'{"name":"bob","rpm":0}',
    b'{"name":"bob","rpm":-1}',
    b'{"name":"bob","rpm":"60"}',
    b'{"name":"bob","rpm":true}',
    b'{"name":"bob","rpm":1.5}',
    b'{"name":"bob","rpm":1e999}',
    b'{"name":"bob","rpm":9223372036854775808}',
    b'{"name":"bob","tpm":' + b"9" * 5_000 + b"}",
    b'{"name":"bob","concurrency":-9223372036854775809}',
    b'{"name":"bob","models":[]}',
    b'{"name":"bob","models":[""]}',
    b'{"name":"bob","models":"all"}',
    b'{"name":"bob","models":["a\\u0000"]}',
    b'{"name":"bob","tags":{"a":1}}',
    b'{"name":"bob","tags":[]}',
    b'{"name":"bob","tags":{"\\ud800":"a"}}',
    b'{"name":"bob","expires_at":"tomorrow"}',
    b'{"name":"bob","expires_at":"2126-01-01T00:00:00"}',
    b'{"name":"bob","expires_at":"0001-01-01T00:00:00+14:00"}',
    b'{"name":"bob","expires_at":"9999-12-31T23:59:59-14:00"}',
    b'{"name":"bob","expires_at":4102444800}',
    b'{"name":"bob","rmp":60}',
    b'{"name":"bob","self":1}',
    b'{"name":"bob","id":"key_1"}',
    b'{"name":"bob","models":' + b"[" * 60_000,
    b'{"name":"alice"}',
]


def test_a_body_that_cannot_be_used_is_a_typed_400_and_makes_nothing(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        before = door.keys.list()
        for body in BAD_BODIES:
            said = await send(door, f"POST {KEYS}", body)
            assert (said.status, said.error["code"]) == (400, "invalid_request"), body[:60]
        assert door.keys.list() == before

    through(tmp_path, work)


def test_an_unknown_field_is_named_together_with_the_known_ones(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        said = await send(door, f"POST {KEYS}", {"name": "bob", "rmp": 60})
        assert "`rmp`" in said.error["message"]
        assert "rpm, tpm, concurrency" in said.error["message"]

    through(tmp_path, work)


def test_a_body_above_64_kib_is_refused(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        body = b'{"name":"' + b" " * 65_536 + b'bob"}'
        said = await send(door, f"POST {KEYS}", body)
        assert (said.status, said.error["code"]) == (413, "request_too_large")
        fits = b'{"name":"bob"}' + b" " * (65_536 - 14)
        assert (await send(door, f"POST {KEYS}", fits)).status == 201

    through(tmp_path, work)


# What is not there.


NOT_THERE = [
    f"GET {KEYS}/nobody",
    f"DELETE {KEYS}/nobody",
    f"POST {KEYS}/nobody/rotate",
    f"POST {KEYS}/nobody/revoke",
    f"GET {KEYS}/",
    f"GET {KEYS}/%00",
    f"GET {KEYS}/%ff",
    f"GET {KEYS}/%ed%a0%80",
    f"GET {KEYS}/{'a' * 5_000}",
    f"GET {KEYS}/a/b/c",
    f"GET {REQUESTS}/req_unknown",
    f"GET {REQUESTS}/%00",
    f"GET {REQUESTS}?key=nobody",
    "GET /admin/v1",
    "GET /admin/",
    "GET /admin/v2/keys",
    "GET /admin%2Fv1/keys",
]


def test_what_is_not_there_is_a_typed_404(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        for line in NOT_THERE:
            said = await send(door, line)
            assert (said.status, said.error["code"]) == (404, "route_not_found"), line[:60]

    through(tmp_path, work)


def test_a_wrong_method_is_a_405_that_names_the_right_ones(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        for path, endpoints in ROUTES.items():
            named = re.sub(r"\{.*?\}", "alice", path)
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - set(endpoints):
                said = await send(door, f"{method} {named}", {"name": "bob"})
                assert said.status == 405
                assert said.headers["allow"].upper() == ", ".join(endpoints)
                assert said.error["message"].startswith(named)
            if "GET" not in endpoints:
                assert (await send(door, f"HEAD {named}")).status == 405

    through(tmp_path, work)


BAD_QUERIES = [
    "requests?limit=0",
    "requests?limit=1001",
    "requests?limit=-1",
    "requests?limit=",
    "requests?limit=ten",
    "requests?limit=1.5",
    "requests?limit=%D9%A3",
    f"requests?limit={'9' * 4_400}",
    "requests?limit=1&limit=2",
    "requests?after=-1",
    "requests?after=9223372036854775808",
    "requests?since=yesterday",
    "requests?since=2026-01-01T00:00:00",
    "requests?since=1767225600",
    "requests?since=null",
    "requests?model=",
    "requests?key=",
    "requests?colour=blue",
    "hours?since=now",
    "hours?limit=1",
    "hours?since=",
]


def test_a_query_that_cannot_be_used_is_a_typed_400(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        for query in BAD_QUERIES:
            said = await send(door, f"GET /admin/v1/{query}")
            assert (said.status, said.error["code"]) == (400, "invalid_request"), query[:60]

    through(tmp_path, work)


# What was served.


def test_a_request_is_told_with_its_attempts_as_soon_as_it_has_ended(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        answer = await chat(door, "fault-500@1")
        request_id = answer.headers["x-droveway-request-id"]
        said = await send(door, f"GET {REQUESTS}/{request_id}")
        assert said.status == 200
        assert said.told["outcome"] == "completed"
        assert said.told["key_id"] == "key_1"
        assert said.told["tags"] == {"team": "blue"}
        assert [each["outcome"] for each in said.told["each_attempt"]] == ["failed", "completed"]

    through(tmp_path, work)


def test_what_a_request_cost_is_a_decimal_string_or_null(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        for model, priced in (("deepseek-flash", True), ("nobody-knows-its-price", False)):
            answer = await chat(door, model)
            request_id = answer.headers["x-droveway-request-id"]
            told = (await send(door, f"GET {REQUESTS}/{request_id}")).told
            assert told["cost"] == answer.headers.get("x-droveway-cost")
            assert (told["cost"] is not None) is priced
            assert told["currency"] == ("USD" if priced else None)

    through(tmp_path, work)


def row(number: int, **fields: Any) -> Row:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(minutes=number)
    return Row(**{"id": f"req_{number}", "at": at, "asked": "m", "outcome": "completed", **fields})


async def ids(door: OperatorDoor, query: str = "") -> list[str]:
    said = await send(door, f"GET {REQUESTS}{query}")
    return [each["id"] for each in said.told["data"]]


def test_requests_are_listed_newest_first_and_picked_by_what_was_asked(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        alice = door.keys.show("alice").id
        for number in range(5):
            fields = {"asked": "even" if number % 2 == 0 else "odd"}
            door.journal.append(row(number, **fields, key_id=alice if number > 2 else None))
        await door.journal.flush()
        assert await ids(door) == ["req_4", "req_3", "req_2", "req_1", "req_0"]
        assert await ids(door, "?limit=2") == ["req_4", "req_3"]
        assert await ids(door, "?model=odd") == ["req_3", "req_1"]
        assert await ids(door, "?key=alice") == ["req_4", "req_3"]
        assert await ids(door, f"?key={alice}&model=even") == ["req_4"]
        assert await ids(door, "?since=2026-11-23T12:03:00Z") == ["req_4", "req_3"]
        assert await ids(door, "?since=2026-11-23T13:03:00%2B01:00") == ["req_4", "req_3"]
        assert await ids(door, "?since=0001-01-01T00:00:00%2B14:00&limit=1") == ["req_4"]

    through(tmp_path, work)


def test_pages_leave_nothing_out_and_tell_nothing_twice(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        alice = door.keys.show("alice").id
        for number in range(7):
            door.journal.append(row(number, key_id=alice if number % 3 == 0 else None))
        await door.journal.flush()
        for query, expected in (
            ("", [f"req_{number}" for number in range(7)]),
            ("&key=alice", ["req_0", "req_3", "req_6"]),
            ("&since=2026-11-23T12:05:00Z", ["req_5", "req_6"]),
            ("&model=none", []),
        ):
            found, after, more = [], 0, True
            while more:
                said = (await send(door, f"GET {REQUESTS}?limit=2&after={after}{query}")).told
                found += [each["id"] for each in said["data"]]
                after, more = said["last_seq"], said["more"]
            assert found == expected

    through(tmp_path, work)


def test_the_list_tells_from_where_to_go_on(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        assert (await send(door, f"GET {REQUESTS}")).told == {
            "data": [],
            "last_seq": 0,
            "more": False,
        }
        door.journal.append(row(1))
        await door.journal.flush()
        last_seq = (await send(door, f"GET {REQUESTS}")).told["last_seq"]
        assert await ids(door, f"?after={last_seq}") == []
        door.journal.append(row(2))
        await door.journal.flush()
        assert await ids(door, f"?after={last_seq}") == ["req_2"]

    through(tmp_path, work)


def test_hours_are_summed_up_with_decimal_strings(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        fields: dict[str, Any] = {"key_id": "key_1", "total_ms": 1_500.0}
        door.journal.append(row(1, cost=Money(1_250_000, "USD"), **fields))
        door.journal.append(row(2, cost=Money(2, "USD"), **fields))
        door.journal.append(row(3, outcome="failed"))
        await door.journal.flush()
        await roll_up(door.store)
        said = await send(door, "GET /admin/v1/hours?since=2026-11-23T12:00:00Z")
        failed, completed = sorted(said.told["data"], key=lambda hour: str(hour["key_id"] or ""))
        assert completed["requests"] == 2
        assert (completed["cost"], completed["currency"]) == ("0.001250002", "USD")
        assert (completed["hour"], completed["total_ms"]) == ("2026-11-23T12:00:00Z", 3_000.0)
        assert (failed["outcome"], failed["key_id"], failed["provider"]) == ("failed", None, None)
        assert (failed["cost"], failed["own_cost"], failed["currency"]) == (None, None, None)
        later = await send(door, "GET /admin/v1/hours?since=2026-11-23T12:00:01Z")
        assert later.told == {"data": []}

    through(tmp_path, work)


def test_without_a_moment_the_hours_of_the_last_day_are_told(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        now = door.engine.clock.now()
        for number, ago in enumerate((timedelta(hours=2), timedelta(hours=30))):
            door.journal.append(row(number, at=now - ago))
        await door.journal.flush()
        await roll_up(door.store)
        told = (await send(door, "GET /admin/v1/hours")).told
        assert [hour["requests"] for hour in told["data"]] == [1]

    through(tmp_path, work)


# What stands behind.


def test_a_provider_is_told_with_its_lines_and_without_its_key(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        assert (await chat(door)).status == 200
        said = await send(door, "GET /admin/v1/providers")
        (told,) = said.told["data"]
        (line,) = told.pop("lines")
        assert told == {
            "name": "vendor",
            "base_url": door.box.base_url,
            "accent": None,
            "models": [],
            "any_model": True,
            "has_key": True,
        }
        assert line == {
            "model": "deepseek-flash",
            "account": 1,
            "in_flight": 0,
            "waiting": 0,
            "concurrency": 8,
            "state": "closed",
            "cause": None,
            "until": None,
        }
        assert VENDOR_KEY.encode() not in said.body

    through(tmp_path, work)


def test_a_line_that_cools_says_until_when_and_then_that_one_goes_first(tmp_path: Path) -> None:
    async def line(door: OperatorDoor) -> Any:
        (told,) = (await send(door, "GET /admin/v1/providers")).told["data"]
        return told["lines"][0]

    async def work(door: OperatorDoor) -> None:
        stopped = asyncio.create_task(chat(door, "fault-429-ms:60000@9"))
        async with asyncio.timeout(5):
            while door.engine.line_of(candidate).pacer.state != "open":
                await asyncio.sleep(0.005)
        told = await line(door)
        assert (told["state"], told["cause"]) == ("open", "refused")
        until = datetime.fromisoformat(told["until"])
        assert timedelta(0) < until - door.engine.clock.now() <= timedelta(seconds=61)
        # The cool-down is over, and nobody has asked since.
        door.engine.line_of(candidate).pacer.gate.until = door.engine.clock.monotonic()
        told = await line(door)
        assert (told["state"], told["until"]) == ("half_open", None)
        for exchange in door.engine.on_their_way():
            exchange.give_up(GoingDownError("the test is over"))
        await stopped

    candidate = Candidate("vendor", "fault-429-ms:60000@9")
    through(tmp_path, work)


def test_the_engine_that_serves_now_is_told_of(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        async with Engine.at("http://other.example/v1") as other:
            door.gateway.engine = other
            (told,) = (await send(door, "GET /admin/v1/providers")).told["data"]
            assert (told["name"], told["base_url"]) == ("remote", "http://other.example/v1")
            assert told["has_key"] is False

    through(tmp_path, work)


def test_a_reload_tells_what_it_came_to(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        said = await send(door, "POST /admin/v1/reload")
        assert said.status == 200
        assert said.told == {"generation": 2, "restart_needed": ["server.port"]}

    through(tmp_path, work)


def test_settings_that_cannot_be_used_are_refused_and_the_old_ones_stay(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        door.reload.error = SettingsError("droveway.toml: unknown key 'sever'")
        said = await send(door, "POST /admin/v1/reload")
        assert said.status == 400
        assert "unknown key 'sever'" in said.error["message"]
        assert "the old ones stay" in said.error["message"]

    through(tmp_path, work)


def test_a_store_that_cannot_be_read_is_a_typed_503(tmp_path: Path) -> None:
    async def check() -> None:
        async with operator_door(tmp_path) as door:
            door.store.close()
            for line in (f"GET {KEYS}", f"GET {REQUESTS}", "GET /admin/v1/hours"):
                said = await send(door, line)
                assert (said.status, said.error["code"]) == (503, "unavailable")
            made = await send(door, f"POST {KEYS}", {"name": "bob"})
            assert (made.status, made.error["code"]) == (503, "unavailable")

    run(check())


# The page.


def test_every_admin_route_has_a_heading() -> None:
    page = Path(__file__).parents[2] / "docs/reference/admin.md"
    headings = set(re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert headings == set(LINES)
