from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from adapters.webhook.breaker import Breaker


def test_it_breaks_after_failures_in_a_row_and_says_so_once() -> None:
    breaker = Breaker(broken_after=3, trial_every_s=5.0)
    assert [breaker.failed(0.0) for _ in range(5)] == [False, False, True, False, False]
    assert breaker.broken


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker(broken_after=2, trial_every_s=5.0)
    for _ in range(10):
        assert not breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.admits(0.0)


def test_a_broken_one_is_tried_once_per_interval() -> None:
    breaker = Breaker(broken_after=1, trial_every_s=5.0)
    breaker.failed(100.0)
    admitted = [at for at in range(100, 130) if breaker.admits(float(at))]
    assert admitted == [105, 110, 115, 120, 125]
    breaker.succeeded()
    assert breaker.admits(126.0)
    assert breaker.admits(126.0)


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=200))
def test_however_it_goes_trials_of_a_broken_one_are_apart(steps: list[tuple[float, bool]]) -> None:
    breaker = Breaker(broken_after=1, trial_every_s=5.0)
    breaker.failed(0.0)
    at, trials = 0.0, [0.0]
    for wait, ask in steps:
        at += wait
        if ask and breaker.admits(at):
            trials.append(at)
            breaker.failed(at)
    assert all(later - earlier >= 5.0 for earlier, later in itertools.pairwise(trials))
