"""Learning rates by hand."""

import pytest

from caffe_models.lr_policy import LrPolicy, LrState, advance, rate


def rates(policy: LrPolicy, losses: list[float]) -> list[float]:
    state, found = LrState(), []
    for iteration, loss in enumerate(losses):
        state = advance(policy, state, iteration, loss)
        found.append(rate(policy, state, iteration))
    return found


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (LrPolicy("fixed", 0.5), [0.5, 0.5, 0.5, 0.5, 0.5]),
        (LrPolicy("step", 1.0, gamma=0.1, stepsize=2), [1, 1, 0.1, 0.1, 0.01]),
        (LrPolicy("exp", 1.0, gamma=0.5), [1, 0.5, 0.25, 0.125, 0.0625]),
        (LrPolicy("inv", 1.0, gamma=1.0, power=2.0), [1, 1 / 4, 1 / 9, 1 / 16, 1 / 25]),
        (LrPolicy("multistep", 1.0, gamma=0.1, stepvalue=(1, 4)), [1, 0.1, 0.1, 0.1, 0.01]),
        (LrPolicy("poly", 1.0, power=2.0, max_iter=4), [1, 9 / 16, 1 / 4, 1 / 16, 0]),
        (LrPolicy("sigmoid", 1.0, gamma=-1.0, stepsize=0), [0.5, 0.268941421, 0.119202922, 0.047425873, 0.01798621]),
    ],
    ids=lambda value: value.name if isinstance(value, LrPolicy) else "",
)
def test_rates(policy: LrPolicy, wanted: list[float]) -> None:
    assert rates(policy, [1.0] * len(wanted)) == pytest.approx(wanted)


def test_plateau_falls_after_so_many_iterations_without_a_new_minimum() -> None:
    """Minima at iterations 0 and 2; two without (3, 4): a step at 4; three more without (5, 6, 7): a step at 7."""
    policy = LrPolicy("plateau", 1.0, gamma=0.1, plateau_winsize=(2, 3))
    losses = [5.0, 6.0, 4.0, 4.0, 4.5, 4.4, 4.3, 4.2, 4.1, 4.1, 4.1, 4.1]
    assert rates(policy, losses) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01])


def test_a_rate_beyond_the_end_is_a_number() -> None:
    assert rate(LrPolicy("poly", 1.0, power=0.5, max_iter=4), LrState(), 9) == 0
    assert rate(LrPolicy("sigmoid", 1.0, gamma=1.0, stepsize=10**6), LrState(), 0) == pytest.approx(0)
