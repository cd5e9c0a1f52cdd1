"""The documentation cannot rot: snippets are files, names have headings, tables are the code's."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from droveway import errors
from droveway.sandbox import load_script
from droveway.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def headings(page: str) -> set[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return {match.strip("` ") for match in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def codes() -> set[str]:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    return {each.code for each in kinds if issubclass(each, errors.DrovewayError)}


def settings_keys() -> set[str]:
    keys: set[str] = set()
    for section in msgspec.structs.fields(Settings):
        inner = section.type
        if getattr(inner, "__origin__", None) is dict:
            inner = inner.__args__[1]
        keys |= {f"{section.name}.{field.name}" for field in msgspec.structs.fields(inner)}
    return keys


def test_every_error_code_has_a_heading() -> None:
    assert codes() <= headings("reference/errors.md")


def test_every_setting_has_a_heading() -> None:
    assert settings_keys() <= headings("reference/settings.md")


def test_every_header_the_gateway_sends_has_a_heading() -> None:
    sources = (ROOT / "src/droveway/gateway").glob("*.py")
    sent = {
        name.decode()
        for source in sources
        for name in re.findall(rb'b"(x-(?:droveway|should)-[a-z-]+)"', source.read_bytes())
    }
    assert len(sent) >= 6
    assert sent <= headings("reference/headers.md")


def test_snippets_and_tables_of_the_pages_are_the_present_code() -> None:
    checked = subprocess.run(
        [sys.executable, str(DOCS / "insert_snippets.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.stderr == ""


def test_every_python_snippet_names_its_file() -> None:
    for page in PAGES:
        for first in re.findall(r"```python\n(.*)", page.read_text(encoding="utf-8")):
            assert (ROOT / first.removeprefix("# ")).exists(), f"{page.name}: {first}"


def test_the_toml_of_the_pages_is_taken(tmp_path: Path) -> None:
    """Ours: the settings page shows settings, the sandbox page a script."""
    for name, load in (("settings.md", load_settings), ("sandbox.md", load_script)):
        text = (DOCS / "reference" / name).read_text(encoding="utf-8")
        snippets = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        assert snippets
        for snippet in snippets:
            file = tmp_path / "shown.toml"
            file.write_text(snippet, encoding="utf-8")
            load(file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)", text)
    local = [target for target in targets if not target.startswith("http")]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_runs_without_a_key_and_without_a_warning(example: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )
    told = set(ended.stderr.splitlines())
    assert all(line.startswith("no provider is configured, so the sandbox") for line in told)
    assert ended.returncode == 0
    assert ended.stdout


@pytest.mark.parametrize("name", ["cli", "python"])
def test_the_made_pages_are_what_the_code_says(name: str) -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "docs" / f"make_{name}_page.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    page = DOCS / f"reference/{name}.md"
    assert made.stdout == page.read_text(encoding="utf-8"), "run `make docs`"
