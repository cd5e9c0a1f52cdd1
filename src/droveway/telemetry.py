"""This file knows how a log line is written, for people and for programs, and what is kept out.

Keys are kept out twice: those the process holds are known and hidden wherever they stand, those of
others (a caller's, in a message of a library) are recognised by their form. A key that was wrapped
over lines, or shown with its escapes, is hidden too. Hiding too much is the lesser fault.
"""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal, TextIO
from urllib.parse import quote

import msgspec

HIDDEN: Final = "***"
# What a line may carry besides its message; given by `extra`.
FIELDS: Final = ("request_id", "code", "provider")

# A line break amid a key, with the indentation around it; as itself, or as `repr` writes it.
_BREAK: Final = r"(?:[ \t]*+(?:\r?\n|\\r\\n|\\n)[ \t]*+)?"
# A key of ours shows `dw_` and six signs to people (accounts/secret.py); more of it is hidden.
_OURS: Final = _BREAK.join("dw_") + rf"(?:{_BREAK}[0-9A-Za-z]){{7,49}}"
_VENDORS: Final = (
    "(?:"
    + "|".join(_BREAK.join(each) for each in ("sk-", "gsk_", "xai-", "hf_", "AIza", "sk_live_"))
    + rf")(?:{_BREAK}[0-9A-Za-z_-]){{16,}}"
)
_VALUE: Final = r"[^\s'\",;)}\]]+"
_BEARER: Final = rf"(?i)(bearer\s+){_VALUE}"
_HEADER: Final = (
    r"(?i)((?:x-api-key|api[-_]key|x-goog-api-key|authorization)"
    r"(?:\\?[\"'])?\s*[:=,]\s*(?:b?\\?[\"'])?(?:(?:bearer|basic)\s+)?)" + _VALUE
)
_IN_URL: Final = r"(://)[^\s/@]+(?=@)"
_FORMS: Final = (
    (re.compile(_OURS), HIDDEN),
    (re.compile(_VENDORS), HIDDEN),
    (re.compile(_HEADER), rf"\g<1>{HIDDEN}"),
    (re.compile(_BEARER), rf"\g<1>{HIDDEN}"),
    (re.compile(_IN_URL), rf"\g<1>{HIDDEN}"),
)


class Redaction:
    """Takes keys out of texts.

    Args:
        secrets: Keys that are known, besides those that are recognised by their form; blank ones
            are left out.
    """

    __slots__ = ("_known",)

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        shapes = {shape for each in secrets if each.strip() for shape in _shapes(each.strip())}
        # Where one holds another, the longer one goes first: half a key is still a secret.
        ordered = sorted(shapes, key=lambda shape: (-len(shape), shape))
        wrapped = (_BREAK.join(re.escape(sign) for sign in shape) for shape in ordered)
        self._known = re.compile("|".join(wrapped), re.IGNORECASE) if ordered else None

    def hide(self, text: str) -> str:
        """Return the text with `***` in the place of every key."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for form, instead in _FORMS:
            text = form.sub(instead, text)
        return text


class TextLines(logging.Formatter):
    """Lines for people; a trace goes on below its line.

    Args:
        redaction: What takes the keys out.
        who: Which process says it; empty where there is one.
    """

    def __init__(self, redaction: Redaction, *, who: str = "") -> None:
        who = f" {who}" if who else ""
        super().__init__(f"%(asctime)s %(levelname)s{who} %(name)s: %(message)s")
        self._redaction = redaction

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """Return the moment in UTC, to the millisecond."""
        del datefmt
        return _moment(record)

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        return self._redaction.hide(super().format(record))


class JsonLines(logging.Formatter):
    """Lines for programs: one JSON object each, all its values strings.

    `time`, `level`, `logger` and `message` are always there; `request_id`, `code` and `provider`
    where they were given; `error` (its type) and `trace` where an exception was; `who` where there
    are several processes.

    Args:
        redaction: What takes the keys out.
        who: Which process says it; empty where there is one.
    """

    def __init__(self, redaction: Redaction, *, who: str = "") -> None:
        super().__init__()
        self._redaction = redaction
        self._always = {"who": who} if who else {}

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        line = {
            "time": _moment(record),
            "level": record.levelname,
            **self._always,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: str(told) for name in FIELDS if (told := getattr(record, name, None))},
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["trace"] = self.formatException(record.exc_info)
        # Before the text is encoded: escapes would change what a key looks like.
        return msgspec.json.encode(
            {name: _encodable(self._redaction.hide(text)) for name, text in line.items()}
        ).decode()


_FORMATTERS: Final[Mapping[str, type[TextLines] | type[JsonLines]]] = {
    "text": TextLines,
    "json": JsonLines,
}


class _Lines(logging.StreamHandler[TextIO]):
    """The handler that `configure` sets; there is one at most."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say that a line is lost; logging's own way would show its arguments, keys and all."""
        kind = sys.exc_info()[0]
        name = "error" if kind is None else kind.__name__
        sys.stderr.write(f"a line of {record.name!r} could not be logged ({name})\n")


def configure(
    log: Literal["text", "json"] = "text",
    *,
    secrets: Iterable[str] = (),
    who: str = "",
    stream: TextIO | None = None,
) -> None:
    """Send what this process logs to one place, with the keys taken out.

    A second call replaces the first, so that it can be made once before the settings' secrets are
    known and once after. Levels are left alone: the root's is WARNING.

    Args:
        log: Lines for people or for programs.
        secrets: Every key the process holds.
        who: Which process says it, where there are several.
        stream: Where to; stderr by default.
    """
    root = logging.getLogger()
    handler = _Lines(sys.stderr if stream is None else stream)
    handler.setFormatter(_FORMATTERS[log](Redaction(secrets), who=who))
    for each in list(root.handlers):
        if isinstance(each, _Lines):
            root.removeHandler(each)
    root.addHandler(handler)


def _shapes(secret: str) -> set[str]:
    """Return a secret as it is, and as it looks with the escapes of Python, JSON and URLs."""
    as_json = msgspec.json.encode(_encodable(secret)).decode()[1:-1]
    return {secret, repr(secret)[1:-1], as_json, quote(_encodable(secret), safe="")}


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _encodable(text: str) -> str:
    """Replace what UTF-8 cannot hold: half a surrogate pair from a vendor must not cost a line."""
    return text.encode("utf-8", "backslashreplace").decode()
