"""Log lines: what they hold, and that no key gets out through one."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.accounts import secret as droveway_key
from droveway.telemetry import HIDDEN, Redaction, configure

LOG = logging.getLogger("droveway.test_telemetry")
FORMS: list[Literal["text", "json"]] = ["text", "json"]
KEY = "dw_" + "".join("0123456789ABCDEFabcdef"[at * 7 % 22] for at in range(49))
VENDOR_KEY = "sk-proj-0123456789abcdefghijABCDEFGHIJ"
TOKEN = "kT9!pq~x\\Zw\"7'Lm"  # what an admin token may look like: quotes and a backslash in it

each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = set(root.handlers)
    yield
    for each in set(root.handlers) - before:
        root.removeHandler(each)


class Sink(io.StringIO):
    """Where lines go in these tests."""

    @property
    def lines(self) -> list[str]:
        return self.getvalue().split("\n")[:-1]

    @property
    def object(self) -> dict[str, Any]:
        (line,) = self.lines
        found: dict[str, Any] = json.loads(line)
        return found


def logging_to(form: Literal["text", "json"], *secrets: str) -> Sink:
    root = logging.getLogger()
    for each in list(root.handlers):
        # They would write each line too, and raise where one cannot be written.
        if type(each).__module__.startswith("_pytest"):
            root.removeHandler(each)
    sink = Sink()
    configure(form, secrets=secrets, stream=sink)
    return sink


def raiser(error: Exception, *, cause: Exception | None = None) -> None:
    raise error from cause


def send(api_key: str) -> None:
    held = {"key": api_key}
    raise RuntimeError(f"could not send {held} and {api_key.encode()!r}")


# What a line holds.


def test_a_json_line_holds_what_programs_look_for() -> None:
    sink = logging_to("json")
    LOG.warning("request %s failed", "req_1", extra={"request_id": "req_1", "code": "rate_limited"})
    line = sink.object
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))).total_seconds() < 60
    assert line == {
        "level": "WARNING",
        "logger": "droveway.test_telemetry",
        "message": "request req_1 failed",
        "request_id": "req_1",
        "code": "rate_limited",
    }


def test_a_text_line_holds_the_same_for_people() -> None:
    sink = logging_to("text")
    LOG.warning("request %s failed", "req_1")
    (line,) = sink.lines
    moment, rest = line.split(" ", 1)
    assert datetime.fromisoformat(moment).utcoffset() is not None
    assert rest == "WARNING droveway.test_telemetry: request req_1 failed"


@each_form
def test_a_line_says_which_process_it_comes_from(form: Literal["text", "json"]) -> None:
    sink = Sink()
    configure(form, who="worker 3", stream=sink)
    LOG.warning("once")
    told = {"text": " WARNING worker 3 droveway.", "json": '"who":"worker 3"'}
    assert told[form] in sink.getvalue()


def test_an_exception_is_one_json_line_with_its_type_and_trace() -> None:
    sink = logging_to("json")
    try:
        raiser(LookupError("nothing\nhere"))
    except LookupError:
        LOG.exception("it failed")
    assert sink.object["error"] == "LookupError"
    assert sink.object["trace"].startswith("Traceback")
    assert "in raiser" in sink.object["trace"]
    assert sink.object["trace"].endswith("LookupError: nothing\nhere")


def test_a_message_that_utf8_cannot_hold_is_written_all_the_same() -> None:
    sink = logging_to("json", "half \ud800 secret")
    LOG.warning("half a pair: %s", "\ud83d")
    assert sink.object["message"] == "half a pair: \\ud83d"


def test_a_second_configuration_replaces_the_first_and_leaves_others_alone() -> None:
    other = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(other)
    first = logging_to("text")
    second = logging_to("json")
    LOG.warning("once")
    assert first.lines == []
    assert second.object["message"] == "once"
    assert other.stream.getvalue() == "once\n"


def test_lines_go_to_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    LOG.warning("once")
    out, told = capsys.readouterr()
    assert (out, json.loads(told)["message"]) == ("", "once")


# What is kept out of it.


@each_form
@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (KEY, f"no such key {KEY!r}"),
        (KEY[:30], f"no such key {KEY[:30]}"),
        (VENDOR_KEY, f"Incorrect API key provided: {VENDOR_KEY}."),
        ("gsk_" + "a1" * 20, "with gsk_" + "a1" * 20),
        ("AIza" + "b2" * 18, "https://host/v1?key=AIza" + "b2" * 18),
        ("abc.def-ghi", "authorization: Bearer abc.def-ghi, and more"),
        ("abc.def-ghi", "{'Authorization': 'Bearer abc.def-ghi'}"),
        ("abc.def-ghi", "[(b'authorization', b'bearer abc.def-ghi')]"),
        ("abc.def-ghi", "sent Bearer\n    abc.def-ghi"),
        ("dXNlcjpwYXNz", "authorization: Basic dXNlcjpwYXNz"),
        ("plain-key", "x-api-key: plain-key"),
        ("plain-key", "[(b'x-api-key', b'plain-key')]"),
        ("plain-key", '{"api_key":"plain-key"}'),
        ("plain-key", '{\\"api_key\\":\\"plain-key\\"}'),
        ("hunter2", "the proxy http://user:hunter2@proxy:3128 is gone"),
    ],
    ids=lambda value: value[:24],
)
def test_a_key_is_recognised_by_its_form(
    form: Literal["text", "json"], secret: str, text: str
) -> None:
    sink = logging_to(form)
    LOG.warning(text)
    assert secret not in sink.getvalue()
    assert HIDDEN in sink.getvalue()


def test_the_beginning_by_which_people_know_a_key_stays() -> None:
    shown = droveway_key.shown(droveway_key.make())
    assert Redaction().hide(f"key {shown} is revoked") == f"key {shown} is revoked"


@pytest.mark.parametrize(
    "text",
    [
        "request req_0123456789abcdef01234567 failed: upstream_failed, deepseek was asked last",
        "_task_done_callback_of_the_writer in task_group.py, line 17",
        "listening on http://127.0.0.1:4100; mail ops@example.org",
        "a risk-free, task-oriented answer of the bearer",
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert Redaction().hide(text) == text


@each_form
def test_a_known_secret_is_hidden_in_every_part_of_a_line(form: Literal["text", "json"]) -> None:
    sink = logging_to(form, TOKEN)
    try:
        raiser(ValueError(f"first {TOKEN}"), cause=KeyError(TOKEN))
    except ValueError as error:
        error.add_note(f"noted {TOKEN}")
        logging.getLogger(f"droveway.{TOKEN}").exception(
            "with %s", {"token": TOKEN}, extra={"request_id": TOKEN}, stack_info=True
        )
    told = sink.getvalue()
    for shape in (TOKEN, repr(TOKEN)[1:-1], json.dumps(TOKEN)[1:-1]):
        assert shape not in told
        assert json.dumps(shape)[1:-1] not in told
    assert "ValueError" in told


@each_form
@pytest.mark.parametrize("known", [True, False], ids=["known", "by its form"])
def test_a_trace_through_code_that_holds_a_key_does_not_tell_it(
    form: Literal["text", "json"], *, known: bool
) -> None:
    sink = logging_to(form, *([VENDOR_KEY] if known else []))
    try:
        send(VENDOR_KEY)
    except RuntimeError:
        LOG.exception("sending failed")
    assert VENDOR_KEY not in sink.getvalue()
    assert "could not send" in sink.getvalue()
    assert "in send" in sink.getvalue()


@each_form
def test_a_group_of_exceptions_does_not_tell_a_key(form: Literal["text", "json"]) -> None:
    sink = logging_to(form, TOKEN)
    LOG.error("several", exc_info=ExceptionGroup("two", [ValueError(TOKEN), OSError(TOKEN)]))
    assert TOKEN not in sink.getvalue()
    assert sink.getvalue().count(HIDDEN) >= 2


@each_form
def test_a_line_that_cannot_be_written_shows_nothing_of_its_arguments(
    form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours: logging's own way prints the arguments to stderr, past every formatter."""
    sink = logging_to(form, TOKEN)
    LOG.warning("%d requests of %s", "many", TOKEN)
    assert sink.getvalue() == ""
    told = capsys.readouterr().err
    assert told == "a line of 'droveway.test_telemetry' could not be logged (TypeError)\n"


def test_a_blank_secret_hides_nothing() -> None:
    assert Redaction(["", "  ", "\n"]).hide("as it is") == "as it is"


def test_a_secret_that_holds_another_is_hidden_whole() -> None:
    assert Redaction(["abcdefgh", "abcdefgh-and-more"]).hide("abcdefgh-and-more") == HIDDEN


def test_hiding_stays_fast_on_hostile_text() -> None:
    """Ours: 200 KB of what almost is a key; a pattern that goes back and forth takes hours."""
    redaction = Redaction([TOKEN, VENDOR_KEY])
    for piece in ("sk-", "dw_a ", "sk-a\n \t", "\\n", "Bearer ", "x-api-key:", "://a", " \n "):
        assert len(redaction.hide(piece * (200_000 // len(piece)))) > 0


# Whatever stands around it.

AROUND = st.text(max_size=60)
SECRETS = st.text("".join(map(chr, range(33, 127))).replace("*", ""), min_size=8, max_size=40)
BREAKS = st.sampled_from(["\n", "\r\n", "\n    ", "  \n\t", "\\n", "\\r\\n  "])


def letters_of(text: str) -> str:
    """The text without what wrapping adds, as whoever wants the key would read it."""
    for each in ("\\r", "\\n", "\r", "\n", "\t", " "):
        text = text.replace(each, "")
    return text


@given(before=AROUND, secret=SECRETS, after=AROUND)
def test_a_known_secret_is_hidden_whatever_stands_around_it(
    before: str, secret: str, after: str
) -> None:
    assert secret not in Redaction([secret]).hide(before + secret + after)


@given(secret=SECRETS, form=st.sampled_from(FORMS), before=AROUND, after=AROUND)
def test_a_known_secret_is_in_no_line_of_either_form(
    *, secret: str, form: Literal["text", "json"], before: str, after: str
) -> None:
    sink = logging_to(form, secret)
    LOG.warning("%s and %r", before + secret + after, {secret: secret})
    told = [sink.getvalue()] if form == "text" else list(sink.object.values())
    assert told
    assert [each for each in told if secret in each] == []


@given(
    before=AROUND,
    key=st.sampled_from([KEY, VENDOR_KEY, TOKEN]),
    at=st.integers(1, 15),
    line_break=BREAKS,
    after=AROUND,
)
def test_a_key_that_was_wrapped_over_lines_is_hidden(
    *, before: str, key: str, at: int, line_break: str, after: str
) -> None:
    wrapped = line_break.join((key[:at], key[at:]))
    hidden = Redaction([TOKEN]).hide(f"{before} {wrapped} {after}")
    assert letters_of(key) not in letters_of(hidden)
    assert HIDDEN in hidden


@given(before=AROUND, after=AROUND, chance=st.binary(min_size=32, max_size=32))
def test_a_key_of_ours_is_hidden_whatever_stands_around_it(
    before: str, after: str, chance: bytes
) -> None:
    number = int.from_bytes(chance)
    body = droveway_key.PREFIX + droveway_key._base62(number, 43)
    key = body + droveway_key._checksum(body)
    assert droveway_key.digest_of(key) is not None
    assert key not in Redaction().hide(before + key + after)
