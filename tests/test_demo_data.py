"""This file knows what the seventeen roles and the demo's tasks must look like to be usable."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import msgspec

import droveway

PACKAGE = Path(droveway.__file__).parent
ROLES = (
    "customer_support",
    "technical_writer",
    "code_reviewer",
    "data_analyst",
    "marketing_copywriter",
    "qa_tester",
    "devops_engineer",
    "product_manager",
    "security_auditor",
    "ux_researcher",
    "seo_specialist",
    "legal_review",
    "financial_analyst",
    "hr_assistant",
    "sales_agent",
    "content_curator",
    "api_integrator",
)
HAN = re.compile("[\u4e00-\u9fff]")
# An address or host that somebody may own; the reserved names and their subdomains are nobody's.
FOREIGN_ADDRESS = re.compile(
    r"[\w.+-]@(?!(?:[\w-]+\.)*example\.(?:com|org)\b)[\w-]+\.[a-z]{2,}\b", re.IGNORECASE
)
FOREIGN_URL = re.compile(
    r"https?://(?!(?:[\w-]+\.)*example\.(?:com|org)\b|localhost\b)", re.IGNORECASE
)
SECRET = re.compile(
    r"\b(?:sk|pk|rk)[-_][\w-]{12,}|\bAKIA[0-9A-Z]{12,}|\bgh[pousr]_\w{20,}|-----BEGIN|\beyJ[\w-]{20,}"
)


class RoleRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One role as the file holds it."""

    title: str
    summary: str
    keywords: tuple[str, ...]
    instructions: str


class TaskLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One task line: a single query, or the user's turns of a conversation."""

    id: str
    role: str
    query: str | None = None
    turns: tuple[str, ...] = ()

    @property
    def said(self) -> tuple[str, ...]:
        """What the user says, turn by turn."""
        return self.turns if self.query is None else (self.query,)


def read_roles() -> dict[str, RoleRow]:
    text = (PACKAGE / "agents" / "roles.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    assert set(table) == {"roles"}
    return msgspec.convert(table["roles"], dict[str, RoleRow])


def read_tasks() -> list[TaskLine]:
    lines = (PACKAGE / "cli" / "demo_tasks.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=TaskLine) for line in lines]


def test_the_seventeen_roles_stand_in_their_order() -> None:
    """Spec: the demo and the supervisor show them, and deal out turns, in this order."""
    assert tuple(read_roles()) == ROLES


def test_a_role_says_in_one_line_what_it_is_asked_for() -> None:
    rows = read_roles().items()
    wrong = [name for name, row in rows if not row.title or "\n" in row.title + row.summary]
    wrong += [name for name, row in rows if not 20 <= len(row.summary) <= 100]
    assert wrong == []


def test_instructions_are_long_enough_to_guide_and_short_enough_to_cost_little() -> None:
    """Ours: 60 to 140 words go before every query of the role and are paid for each time."""
    words = {name: len(row.instructions.split()) for name, row in read_roles().items()}
    assert {name: count for name, count in words.items() if not 60 <= count <= 140} == {}


def test_keywords_are_few_lower_case_and_bilingual() -> None:
    for name, row in read_roles().items():
        assert 8 <= len(row.keywords) <= 15, name
        assert all(word == word.lower().strip() and word for word in row.keywords), name
        assert any(HAN.search(word) for word in row.keywords), name
        assert any(not HAN.search(word) for word in row.keywords), name


def test_no_keyword_is_claimed_by_two_roles() -> None:
    """Ours: nor may one hide inside another role's, as "plan" would in "test plan"."""
    owner = [(word, name) for name, row in read_roles().items() for word in row.keywords]
    clashes = [
        (word, name, other, rival)
        for word, name in owner
        for other, rival in owner
        if name != rival and word in other
    ]
    assert clashes == []


def test_keywords_find_the_role_of_most_tasks_that_contain_any() -> None:
    """Ours: a word that draws in other roles' tasks is worse than no word."""
    roles = read_roles()
    found: Counter[bool] = Counter()
    for task in read_tasks():
        text = "\n".join(task.said).lower()
        hits = {name: sum(word in text for word in row.keywords) for name, row in roles.items()}
        if any(hits.values()):
            found[max(hits, key=lambda name: hits[name]) == task.role] += 1
    assert found[True] >= 0.8 * found.total()


def test_every_role_has_tasks_for_a_working_day() -> None:
    tasks = read_tasks()
    count = Counter(task.role for task in tasks)
    assert set(count) == set(ROLES)
    assert min(count.values()) >= 10
    assert len(tasks) >= 170


def test_task_ids_are_unique_and_name_their_role() -> None:
    tasks = read_tasks()
    ids = [task.id for task in tasks]
    assert len(set(ids)) == len(ids)
    assert [task.id for task in tasks if not re.fullmatch(rf"{task.role}-\d\d", task.id)] == []


def test_a_task_is_either_a_query_or_a_conversation() -> None:
    """Spec: a task line holds `query` or `turns`, never both; other keys do not decode at all."""
    tasks = read_tasks()
    assert [task.id for task in tasks if (task.query is None) == (not task.turns)] == []
    assert [task.id for task in tasks if task.turns and len(task.turns) < 2] == []
    assert [task.id for task in tasks if any(text != text.strip() for text in task.said)] == []
    assert [task.id for task in tasks if not all(task.said)] == []
    assert sum(bool(task.turns) for task in tasks) >= 10


def test_no_task_is_said_twice() -> None:
    said = [text for task in read_tasks() for text in task.said]
    assert len(set(said)) == len(said)


def test_a_quarter_of_the_tasks_and_some_of_every_role_are_chinese() -> None:
    tasks = read_tasks()
    chinese = [task for task in tasks if any(HAN.search(text) for text in task.said)]
    assert 4 * len(chinese) >= len(tasks)
    assert {task.role for task in chinese} == set(ROLES)


def test_tasks_vary_from_one_line_to_a_page() -> None:
    lengths = sorted(sum(map(len, task.said)) for task in read_tasks())
    assert lengths[0] < 100
    assert lengths[-1] > 1500


def test_tasks_name_nobodys_address_and_no_secret() -> None:
    """Ours: the demo may be sent to a vendor, so its material belongs to nobody."""
    named = [
        (task.id, pattern.pattern)
        for task in read_tasks()
        for text in task.said
        for pattern in (FOREIGN_ADDRESS, FOREIGN_URL, SECRET)
        if pattern.search(text)
    ]
    assert named == []
