"""Writes what the pages show of the code: snippets from examples/, and tables of states."""

import re
import sys
from pathlib import Path

from droveway.dialects.ending import TABLE
from droveway.resilience import fair_queue, gate
from droveway.sandbox import FAULTS

ROOT = Path(__file__).parents[1]


def snippet(match: re.Match[str]) -> str:
    """Return the snippet with its file's present text."""
    name = match[1].strip()
    text = (ROOT / name).read_text(encoding="utf-8")
    return f"```python\n# {name}\n{text}```"


def endings() -> str:
    """Return the table of endings."""
    signals = dict.fromkeys(signal for signal, _ in TABLE)
    rows = (f"| {each} | {TABLE[each, True]} | {TABLE[each, False]} |" for each in signals)
    return "\n".join(["| signal | finish marker seen | not seen |", "|---|---|---|", *rows])


def faults() -> str:
    """Return the table of faults."""
    rows = ["| name | what it does |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{name}` | {told} |" for name, told in FAULTS.items())])


def gates() -> str:
    """Return the table of a line's gate."""
    rows = [f"| event | {' | '.join(gate.TABLE)} |", f"|---|{'---|' * len(gate.TABLE)}"]
    for event, told in gate.EVENTS.items():
        then = (events.get(event, "-") for events in gate.TABLE.values())
        rows.append(f"| {event}: {told} | {' | '.join(then)} |")
    return "\n".join(rows)


def turns() -> str:
    """Return the table of how turns are shared."""
    weights = ", ".join(f"{name} {weight}" for name, weight in fair_queue.WEIGHTS.items())
    rows = ["| level | who shares | turns |", "|---|---|---|"]
    rows.append(f"| 1 | priorities | {weights} |")
    rows.append("| 2 | keys | each its weight, 1 unless set |")
    rows.append("| 3 | roles of a key | 1 each |")
    return "\n".join(rows)


def between(text: str, name: str, content: str) -> str:
    """Put a content between a page's begin and end marks of that name."""
    marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.escape(marks[0]) + r".*?" + re.escape(marks[1])
    return re.sub(pattern, f"{marks[0]}\n{content}\n{marks[1]}", text, flags=re.DOTALL)


TABLES = {
    "ending table": endings,
    "fault table": faults,
    "gate table": gates,
    "turn table": turns,
}


def main() -> None:
    """Write every page, or with --check name those that would change."""
    stale = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        made = re.sub(r"```python\n# (\S+)\n.*?```", snippet, text, flags=re.DOTALL)
        for name, content in TABLES.items():
            made = between(made, name, content())
        if made != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(made, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"run `make docs`: {', '.join(stale)} do not show the present code")


if __name__ == "__main__":
    main()
