"""The page on measuring: its lines are run, and its failures are those that there are."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from droveway.bench import load, measure
from droveway.cli.main import commands
from droveway.sandbox import Profile, running_sandbox

PAGE = (Path(__file__).parents[2] / "docs/how-to/measure-a-gateway.md").read_text(encoding="utf-8")
LINES = re.findall(r"^    \.venv/bin/droveway (bench .+)$", PAGE, re.MULTILINE)
KINDS = {
    load.NOT_SENT,
    measure.CONNECT,
    measure.DISCONNECTED,
    measure.ERROR_EVENT,
    measure.MALFORMED,
    measure.TIMEOUT,
    measure.TRUNCATED,
}


def test_the_page_has_lines_to_paste() -> None:
    assert len(LINES) == 3


@pytest.mark.parametrize("line", LINES)
def test_each_line_of_the_page_measures(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    instant = Profile(instant=True, answer_tokens=4)
    with running_sandbox(profile=instant) as one, running_sandbox(profile=instant) as two:
        for port, box in ((4100, one), (4010, two)):
            line = line.replace(f"http://127.0.0.1:{port}/v1", box.base_url)
        shorter = ["--duration", "0.1", "--warmup", "0"]
        shown = CliRunner().invoke(commands, [*shlex.split(line), *shorter])
        assert shown.exit_code == 0, shown.stderr
        assert one.journal
        assert bool(two.journal) == ("--against" in line)
    assert (tmp_path / "bench.json").exists() == ("--json" in line)


def test_the_page_names_every_kind_of_failure() -> None:
    told = PAGE.partition("Failures by kind:")[2]
    assert set(re.findall(r"^- `([a-z_]+)`", told, re.MULTILINE)) == KINDS
