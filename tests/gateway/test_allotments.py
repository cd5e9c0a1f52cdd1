"""What a key may use: refused in time, told in truth, and together over all processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from droveway.accounts import KeyRing
from droveway.clock import StillClock, SystemClock
from droveway.errors import CallerRateLimitError, ModelNotAllowedError
from droveway.gateway.caller import Allotments
from droveway.storage import Store
from lab import run

SECONDS = 60


@dataclass(frozen=True)
class FakeKey:
    id: str = "key_a"
    account: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    weight: int = 1


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def allotments(clock: StillClock) -> Iterator[Allotments]:
    made = Allotments(clock)
    yield made
    made.close()


def goes(allotments: Allotments, key: FakeKey, *, tokens: int = 0) -> bool:
    """Whether a request goes; it stays in flight."""
    try:
        allotments.take(key, model="m", tokens=tokens)
    except CallerRateLimitError:
        return False
    return True


def how_many_go(allotments: Allotments, key: FakeKey) -> int:
    return [goes(allotments, key) for _ in range(20)].count(True)


# One process.


def test_a_key_without_limits_touches_nothing(allotments: Allotments) -> None:
    permit = allotments.take(FakeKey(), model="m", tokens=10**9)
    assert permit.headers() == []
    permit(5)
    assert allotments._table._known == {}


def test_a_model_that_is_not_the_keys_is_refused_and_counts_for_nothing(
    allotments: Allotments,
) -> None:
    key = FakeKey(models=("m",), rpm=1)
    with pytest.raises(ModelNotAllowedError, match="'other'"):
        allotments.take(key, model="other", tokens=1)
    assert goes(allotments, key)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"rpm": 3}, "limit of 3 requests a minute; wait 61 s"),
        ({"tpm": 30}, "limit of 30 tokens a minute; wait 61 s"),
        ({"concurrency": 3}, "limit of 3 requests at once; wait 1 s"),
    ],
)
def test_a_refusal_names_the_limit_and_the_wait(
    limit: dict[str, int], said: str, allotments: Allotments
) -> None:
    key = FakeKey(**limit)  # type: ignore[arg-type]
    for _ in range(3):
        allotments.take(key, model="m", tokens=10)
    with pytest.raises(CallerRateLimitError, match=said) as refused:
        allotments.take(key, model="m", tokens=10)
    assert refused.value.retry_after_s == float(said.split()[-2])
    assert goes(allotments, FakeKey(id="key_b", **limit))  # type: ignore[arg-type]


def test_who_waits_as_told_is_let_in(allotments: Allotments, clock: StillClock) -> None:
    key = FakeKey(rpm=2)

    async def check() -> None:
        await clock.advance(12.25)
        assert goes(allotments, key)
        await clock.advance(20)
        assert goes(allotments, key)
        with pytest.raises(CallerRateLimitError) as refused:
            allotments.take(key, model="m", tokens=0)
        assert refused.value.retry_after_s == 73 - 32.25
        await clock.advance(refused.value.retry_after_s - 0.01)
        assert not goes(allotments, key)
        await clock.advance(0.01)
        assert goes(allotments, key)

    run(check())


def test_a_place_comes_back_once(allotments: Allotments) -> None:
    key = FakeKey(concurrency=2)
    first, second = (allotments.take(key, model="m", tokens=0) for _ in range(2))
    assert not goes(allotments, key)
    first(None)
    first(None)
    assert how_many_go(allotments, key) == 1
    second(3)
    assert how_many_go(allotments, key) == 1


def test_tokens_are_corrected_when_a_request_is_back(allotments: Allotments) -> None:
    key = FakeKey(tpm=100)
    permit = allotments.take(key, model="m", tokens=100)
    assert not goes(allotments, key, tokens=60)
    permit(40)
    assert goes(allotments, key, tokens=60)
    assert not goes(allotments, key, tokens=1)


def test_what_is_not_known_stays_at_its_estimate(allotments: Allotments) -> None:
    key = FakeKey(tpm=100)
    allotments.take(key, model="m", tokens=100)(None)
    assert not goes(allotments, key, tokens=1)


def test_new_limits_hold_at_once_over_what_was_used_before(allotments: Allotments) -> None:
    key = FakeKey(rpm=5)
    assert how_many_go(allotments, key) == 5
    assert how_many_go(allotments, replace(key, rpm=8)) == 3
    assert how_many_go(allotments, replace(key, rpm=2)) == 0
    assert how_many_go(allotments, FakeKey(concurrency=10)) == 2


def test_a_request_that_is_back_after_the_end_harms_nobody(clock: StillClock) -> None:
    allotments = Allotments(clock)
    permits = [allotments.take(FakeKey(tpm=9), model="m", tokens=2) for _ in range(2)]
    allotments.close()
    permits[0](None)
    permits[1](1)


def test_the_headers_are_those_of_the_openai_api(allotments: Allotments) -> None:
    key = FakeKey(rpm=10, tpm=1_000, concurrency=4)
    allotments.take(key, model="m", tokens=300)
    told = dict(allotments.take(key, model="m", tokens=900 - 300).headers())
    assert told == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"8",
        b"x-ratelimit-reset-requests": b"61s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"100",
        b"x-ratelimit-reset-tokens": b"61s",
    }
    alone = allotments.take(FakeKey(id="key_b", tpm=5), model="m", tokens=9)
    assert dict(alone.headers())[b"x-ratelimit-remaining-tokens"] == b"0"


def test_a_rotated_key_keeps_its_counts(allotments: Allotments, tmp_path: Path) -> None:
    async def check() -> None:
        with Store(tmp_path / "a.db") as store:
            ring = KeyRing(store)
            key, _ = await ring.add("alice", rpm=2)
            allotments.take(key, model="m", tokens=0)
            allotments.take(key, model="m", tokens=0)
            await ring.rotate("alice")
            (rotated,) = [each for each in ring.list() if each.open_at(SystemClock().now())]
            with pytest.raises(CallerRateLimitError):
                allotments.take(rotated, model="m", tokens=0)

    run(check())


# Several processes.

CHILD = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from droveway.clock import SystemClock
from droveway.errors import CallerRateLimitError
from droveway.gateway.caller import Allotments

class Fast(SystemClock):
    "Time flies as told, alike in every process."
    speed = 1.0
    read = 0.0
    def monotonic(self):
        self.read = SystemClock.monotonic() * self.speed
        return self.read

store, limits, what = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
key = SimpleNamespace(**{"id": "key_a", "models": None, "rpm": None, "tpm": None, "concurrency": None, **limits})
clock = Fast()
clock.speed = what["speed"]
allotments = Allotments(clock, store=store)
print("ready", flush=True)
input()
told, refused, end = [], 0, clock.monotonic() + what["lasts_s"]
for attempt in range(what["attempts"]):
    if clock.monotonic() > end:
        break
    try:
        permit = allotments.take(key, model="m", tokens=10)
    except CallerRateLimitError:
        refused += 1
        continue
    judged = clock.read
    if what["hold"]:
        went = clock.monotonic()
        for _ in range(50):
            pass
        told.append((went, clock.monotonic()))
        permit(what["used"])
    else:
        told.append((judged, judged))
print(json.dumps([told, refused]), flush=True)
input()
"""
LONG_S = 1e9


@contextmanager
def children(
    store: Path, limits: Mapping[str, int], **what: float | None
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Four processes that ask for one key as fast as they can, once each is told to."""
    told = json.dumps({
        "speed": 1.0, "lasts_s": LONG_S, "attempts": 2_000, "hold": False, "used": None, **what,
    })  # fmt: skip
    with ExitStack() as stack:
        started = []
        for _ in range(4):
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(store), json.dumps(limits), told],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.enter_context(child)
            stack.callback(child.kill)
            started.append(child)
        for child in started:
            assert line(child) == "ready"
        yield started


def line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def go(child: "subprocess.Popen[str]") -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def results(started: list["subprocess.Popen[str]"]) -> tuple[list[tuple[float, float]], list[int]]:
    """When each request went and was back, over all of them; how many each had refused."""
    for child in started:
        go(child)
    told = [json.loads(line(child)) for child in started]
    return sorted((went, back) for each, _ in told for went, back in each), [n for _, n in told]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.mark.parametrize(
    ("limits", "fit"), [({"rpm": 1_000}, 1_000), ({"tpm": 7_777}, 777), ({"concurrency": 321}, 321)]
)
def test_four_processes_get_exactly_the_limit_together(
    limits: dict[str, int], fit: int, store: Path
) -> None:
    with children(store, limits) as started:
        went, refused = results(started)
        assert len(went) == fit
        assert sum(refused) == 8_000 - fit


def test_four_processes_have_no_more_in_flight_together_than_the_limit(store: Path) -> None:
    with children(store, {"concurrency": 2}, hold=True) as started:
        held, refused = results(started)
    assert sum(refused) > 0, "they did not meet"
    moments = sorted([(at, 1) for at, _ in held] + [(at, -1) for _, at in held])
    in_flight = most = 0
    for _, change in moments:
        in_flight += change
        most = max(most, in_flight)
    assert most <= 2


def test_four_processes_correct_tokens_without_losing_any(store: Path) -> None:
    """Ours: each of 8,000 requests reserves ten tokens and uses nine."""
    limits = {"tpm": 10**9}
    with children(store, limits, hold=True, used=9) as started:
        went, _ = results(started)
        assert len(went) == 8_000
        allotments = Allotments(SystemClock(), store=store)
        permit = allotments.take(FakeKey(**limits), model="m", tokens=0)  # type: ignore[arg-type]
        told = dict(permit.headers())
        assert told[b"x-ratelimit-remaining-tokens"] == b"%d" % (10**9 - 72_000)
        allotments.close()


def test_no_minute_of_four_processes_holds_more_than_the_limit(store: Path) -> None:
    """Ours: time runs a hundred times as fast, and five minutes go by."""
    with children(store, {"rpm": 50}, speed=100.0, lasts_s=300.0, attempts=10**9) as started:
        went, _ = results(started)
    moments = [at for at, _ in went]
    assert len(moments) > 150, "the minutes did not go by"
    assert all(later - at >= 60 for at, later in zip(moments, moments[50:], strict=False))


def test_the_places_of_a_killed_process_are_free_for_the_next_who_asks(store: Path) -> None:
    limits = {"concurrency": 5, "rpm": 9}
    key = FakeKey(**limits)  # type: ignore[arg-type]
    allotments = Allotments(SystemClock(), store=store)
    with children(store, limits, attempts=5) as (child, *_):
        go(child)
        assert json.loads(line(child))[1] == 0
        assert not goes(allotments, key), "it holds all five"
        child.send_signal(signal.SIGKILL)
        child.wait(SECONDS)
        assert how_many_go(allotments, key) == 4, "five of nine requests were used up"
    allotments.close()


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.long)])
def test_processes_killed_at_any_moment_leave_nothing_behind(kills: int, store: Path) -> None:
    allotments = Allotments(SystemClock(), store=store)
    limits = {"concurrency": 3, "tpm": 10**12}
    key = FakeKey(**limits)  # type: ignore[arg-type]
    while kills > 0:
        with children(store, limits, hold=True, used=9, attempts=10**9) as started:
            for child in started:
                go(child)
            for number, child in enumerate(started):
                for _ in range(kills * 37 % 101 + number):
                    goes_and_comes_back(allotments, key)
                child.send_signal(signal.SIGKILL)
                child.wait(SECONDS)
        kills -= len(started)
        permits = [allotments.take(key, model="m", tokens=0) for _ in range(3)]
        assert not goes(allotments, key)
        for permit in permits:
            permit(None)
    allotments.close()


def goes_and_comes_back(allotments: Allotments, key: FakeKey) -> None:
    try:
        allotments.take(key, model="m", tokens=10)(9)
    except CallerRateLimitError as error:
        assert (error.retry_after_s or 0) > 0


def test_a_restart_within_the_minute_forgets_nothing(store: Path) -> None:
    key = FakeKey(rpm=3, concurrency=2)
    for count in (2, 1, 0):
        allotments = Allotments(SystemClock(), store=store)
        assert how_many_go(allotments, key) == count
        allotments.close()
