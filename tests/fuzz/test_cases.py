"""Some spoilt files of every kind: each ends in a result or in one sentence, within limits, and touches nothing else.

`python -m tests.fuzz` tries many more.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.weights import SHARES

pytest.importorskip("resource")  # limits of memory are those of Unix
from tests.fuzz.guard import Guard  # noqa: E402


@pytest.fixture(scope="module")
def guard() -> Iterator[Guard]:
    with Guard() as made:
        yield made


@pytest.mark.parametrize("kind", SHARES)
def test_each_ends_in_a_result_or_a_sentence(kind: str, guard: Guard) -> None:
    outcomes = {seed: guard.try_case(kind, seed) for seed in range(round(4 * SHARES[kind]))}
    failed = {seed: outcome for seed, outcome in outcomes.items() if not outcome.fine}
    assert not failed, failed
