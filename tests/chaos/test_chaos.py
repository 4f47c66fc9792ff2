"""A little of what `make chaos` does for as long as you like."""

from __future__ import annotations

import random

import pytest

from .running import obstacle, run
from .supervisor import Plan


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_goes_wrong_no_write_is_lost_and_nothing_is_left() -> None:
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    seed = random.randrange(2**32)
    print(f"seed {seed}: python -m tests.chaos --seconds 20 --pace 1.5 --seed {seed}")
    assert run(Plan(seconds=20, seed=seed, pace=1.5)).complaints == []
