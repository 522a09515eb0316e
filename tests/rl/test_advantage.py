import pytest

from pyvision_rl.rl.advantage import group_advantages, kept_advantages
from pyvision_rl.types import KeptGroup, StopReason
from tests.build import group


def test_reward_minus_mean_without_division():
    # rewards 1.2, 1.1, 0, 0: mean 0.575
    advantages = group_advantages(group((1, 0.2), (1, 0.1), (0, 0), (0, 0)))
    assert advantages == pytest.approx((0.625, 0.525, -0.575, -0.575))


def test_a_short_right_answer_may_be_below_the_mean():
    # rewards 1.4, 1.4, 1.4, 1.0: mean 1.3
    assert group_advantages(group((1, 0.4), (1, 0.4), (1, 0.4), (1, 0)))[3] == pytest.approx(-0.3)


def test_normalised_by_the_population_std():
    # rewards 1 and 0: mean 0.5, std 0.5
    advantages = group_advantages(group((1, 0), (0, 0)), normalize_std=True)
    assert advantages == pytest.approx((1.0, -1.0))


def test_a_group_without_spread_is_normalised_to_nothing():
    assert group_advantages(group((1, 0), (1, 0)), normalize_std=True) == (0.0, 0.0)


def test_broken_counts_for_the_baseline_and_lost_does_not():
    stops = {1: StopReason.MAX_TOKENS, 2: StopReason.SANDBOX_LOST}
    # counted: 1 and 0, mean 0.5; the lost one gets nothing
    advantages = group_advantages(group((1, 0), (0, 0), (0, 0), stops=stops))
    assert advantages == pytest.approx((0.5, -0.5, 0.0))


def test_a_baseline_over_some():
    # over the first two, 1.2 and 1.1: mean 1.15; std 0.05
    whole = group((1, 0.2), (1, 0.1), (0, 0))
    assert group_advantages(whole, over=(0, 1)) == pytest.approx((0.05, -0.05, -1.15))
    kept = KeptGroup(whole, (0, 1))
    assert kept_advantages(kept, baseline="kept", normalize_std=True) == pytest.approx((1, -1))
    assert kept_advantages(kept) == pytest.approx((1.3 / 3, 1.0 / 3))
