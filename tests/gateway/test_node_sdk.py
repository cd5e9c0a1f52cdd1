"""The official OpenAI SDK for Node, against the sandbox itself and through the gateway.

The package is installed beside pytest's cache, never into the repository; its lock file names what
is installed by its hash and says nothing of where it comes from.
"""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from door import Way, until

HERE = Path(__file__).parent / "node"
INSTALL_S = 120
RUN_S = 60
CASES = ["whole", "stream", "helper", "tools", "errors", "cut", "retries", "leave", "models"]


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest) -> Path:
    """The installed packages; a test run without Node, or without a network, skips these tests."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed, so the SDK for Node is not tried")
    lock = (HERE / "package-lock.json").read_bytes()
    kept = request.config.cache.mkdir("node") / hashlib.sha256(lock).hexdigest()[:16]
    if not kept.exists():
        install(kept)
    return kept / "node_modules"


def install(kept: Path) -> None:
    """Install from the lock file, then move into place: two test processes may do so at once."""
    half = kept.with_name(f"{kept.name}-{os.getpid()}")
    half.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, half)
    npm = ["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        npm, cwd=half, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        shutil.rmtree(half)
        said = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        reason = f"npm cannot install the SDK for Node: {' '.join(said[:1])}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        half.rename(kept)
    except OSError:  # the other process was first
        shutil.rmtree(half)


def play(way: Way, packages: Path, folder: Path, *cases: str) -> Any:
    """Run the script and return what it printed."""
    shutil.copy(HERE / "chat.mjs", folder)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(packages)
    told = {
        "BASE_URL": way.options["base_url"],
        "API_KEY": way.options["api_key"],
        "CASES": ",".join(cases),
        "PATH": os.environ["PATH"],
    }
    node = ["node", "chat.mjs"]
    done = subprocess.run(
        node, cwd=folder, env=told, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_sdk_for_node_does_all_that_it_does_with_a_vendor(
    way: Way, packages: Path, tmp_path: Path
) -> None:
    said = play(way, packages, tmp_path, *CASES)

    whole, stream = said["whole"], said["stream"]
    assert "harbour" in whole["text"]
    assert (whole["finish"], whole["id"]) == ("stop", way.seen[0].id)
    assert bool(whole["requestId"]) == way.through
    assert whole["usage"]["completion_tokens"] == way.seen[0].completion_tokens
    assert stream["text"] == whole["text"]
    assert (stream["finish"], stream["choicesOfLast"]) == ("stop", 0)
    assert stream["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert said["helper"] == {"text": whole["text"], "final": whole["text"]}

    assert said["tools"]["told"] == [{"a": 2, "b": 3}] * 2
    assert "5 exactly" in said["tools"]["answer"]
    assert "5 exactly" in said["tools"]["streamed"]

    models = said["models"]
    assert ("auto" if way.through else "deepseek-flash") in models["names"]
    assert models["first"] == models["names"][0]

    assert said["errors"] == expected_errors(through=way.through)
    assert said["cut"] == "APIError"
    # Two retries are the SDK's own; the gateway has made its five attempts and says so.
    tried = [seen for seen in way.seen if seen.model == said["retries"]]
    assert len(tried) == (5 if way.through else 3)
    (left,) = [seen for seen in way.seen if seen.model == said["leave"]]
    until(lambda: left.client_gone)


def expected_errors(*, through: bool) -> dict[str, str]:
    """The class of each error; the vendor's quarrel with our account is not the caller's."""
    classes = {
        "400": "BadRequestError",
        "401": "InternalServerError" if through else "AuthenticationError",
        "403": "InternalServerError" if through else "PermissionDeniedError",
        "404": "NotFoundError",
        "422": "UnprocessableEntityError",
        "429-ms:1": "RateLimitError",
        "500": "InternalServerError",
        "refuse": "InternalServerError" if through else "APIConnectionError",
    }
    both = {
        f"{fault} {way}": name for fault, name in classes.items() for way in ("whole", "stream")
    }
    return {**both, "stranger": "AuthenticationError"}


def test_the_sdk_for_node_gets_embeddings(way: Way, packages: Path, tmp_path: Path) -> None:
    said = play(way, packages, tmp_path, "embeddings")["embeddings"]
    assert [len(vector) for vector in said["plain"]] == [8, 8]
    assert said["packed"] == said["plain"]
    assert said["usage"]["total_tokens"] == way.seen[-1].prompt_tokens


def test_the_lock_file_says_nothing_of_where_packages_come_from() -> None:
    lock = (HERE / "package-lock.json").read_text(encoding="utf-8")
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads(lock)["packages"]
    assert packages[""]["dependencies"] == wanted
    assert all(each["integrity"] for name, each in packages.items() if name)
    assert "resolved" not in lock
    assert "://" not in lock
