"""Thousands of requests with seeded faults: one end, one row, one settlement each; nothing lost."""

from pathlib import Path

import pytest

from faults.crowd import let_in, wishes
from lab import run


def test_five_hundred_requests_with_random_faults_have_one_end_each(tmp_path: Path) -> None:
    run(let_in(wishes(500, seed=1), tmp_path), within_s=60)


@pytest.mark.long
def test_ten_thousand_requests_with_random_faults_have_one_end_each(tmp_path: Path) -> None:
    run(let_in(wishes(10_000, seed=2), tmp_path), within_s=600)
