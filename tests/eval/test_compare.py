"""Paired comparisons of scores, worked out by hand."""

import math

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.eval.compare import compare_scores, mcnemar_p, paired_bootstrap
from pyvision_rl.eval.result import ItemScore


def score(name, *grades, cluster=""):
    return ItemScore(name, cluster or name, grades)


def test_exact_mcnemar_by_hand():
    # twice the tail of ten coins: (1 + 10) of 1,024
    assert mcnemar_p(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar_p(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar_p(3, 3) == 1.0
    assert mcnemar_p(0, 0) == 1.0


def test_the_bootstrap_resamples_clusters():
    change = [1.0, 1.0, 0.0, 0.0] * 25
    alone = paired_bootstrap(change, [str(at) for at in range(100)], 0)
    # se of the mean: 0.5 / sqrt(100)
    assert alone[:2] == pytest.approx((0.5 - 0.098, 0.5 + 0.098), abs=0.015)
    together = paired_bootstrap(change, [str(at // 2) for at in range(100)], 0)
    # 50 clusters of equal values: 0.5 / sqrt(50)
    assert together[:2] == pytest.approx((0.5 - 0.139, 0.5 + 0.139), abs=0.02)
    assert paired_bootstrap([0.0] * 10, [str(at) for at in range(10)], 0)[2] == 1.0
    assert alone[2] < 0.001
    first, again, other = (
        paired_bootstrap([at / 100 for at in range(100)], [str(at) for at in range(100)], seed)
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_comparison_is_on_shared_items_and_averages_samples():
    ones = [score("a", 1.0, 0.0), score("b", 0.0), score("c", 1.0)]
    others = [score("a", 1.0, 1.0), score("b", 1.0), score("d", 1.0), score("c", None)]
    pair = compare_scores("x", ones, "y", others)
    assert pair.num_items == 2
    assert pair.difference == 0.75
    assert math.isnan(pair.mcnemar_p)
    with pytest.raises(InputError, match="x and y: have no item in common"):
        compare_scores("x", ones, "y", [score("z", 1.0)])


def test_mcnemar_is_not_for_items_that_go_together():
    ones = [score(name, 0.0, cluster=name[0]) for name in ("a1", "a2", "b1", "b2")]
    others = [score(name, 1.0, cluster=name[0]) for name in ("a1", "a2", "b1", "b2")]
    pair = compare_scores("x", ones, "y", others)
    assert math.isnan(pair.mcnemar_p)
    assert "McNemar" not in pair.line()
    # Means of several samples, and grades between 0 and 1, are no coin.
    twice, partly = [score("a", 1.0, 1.0), score("b", 0.0)], [score("a", 0.5), score("b", 0.0)]
    once = [score("a", 0.0), score("b", 1.0)]
    assert math.isnan(compare_scores("x", once, "y", twice).mcnemar_p)
    assert math.isnan(compare_scores("x", once, "y", partly).mcnemar_p)
    # One of each: 2 * (1/2)^2
    assert compare_scores("x", ones[::2], "y", others[::2]).mcnemar_p == 0.5


def test_a_bootstrap_of_what_never_differs():
    # means of 1 however many items are drawn with a cluster; none of 10,000 is on the other side
    assert paired_bootstrap([1.0] * 3, ["a", "a", "b"], 0) == (1.0, 1.0, 2 / 10_000)
