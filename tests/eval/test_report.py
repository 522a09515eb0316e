import json

import pytest
from PIL import Image

from pyvision_rl.eval.intervals import clustered_ci95, mean_ci95, stratified_ci95
from pyvision_rl.eval.report import make_report
from pyvision_rl.types import Group, Reward, StopReason, Task
from tests.build import observation, trajectory


def test_wilson_interval_against_a_published_table():
    # Newcombe (1998), table I, method 3: 81 of 263 and 1 of 29 and 0 of 20
    assert mean_ci95([1.0] * 81 + [0.0] * 182) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert mean_ci95([1.0] + [0.0] * 28) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert mean_ci95([0.0] * 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_graded_accuracies_use_the_normal_interval():
    # mean 0.5, sample variance 1/12: se = sqrt(1/48)
    low, high = mean_ci95([0.25, 0.25, 0.75, 0.75])
    assert (low, high) == pytest.approx((0.5 - 1.959964 * 48**-0.5, 0.5 + 1.959964 * 48**-0.5))


def test_variants_of_a_question_do_not_count_as_independent():
    # sums of residuals per cluster: (1 - 0.5, 0.5 - 0.5 ...): a: +0.5, b: -0.5, c: 0
    values, clusters = [1.0, 0.5, 0.0, 0.5, 1.0, 0.0], ["a", "a", "b", "b", "c", "c"]
    half = 1.959964 * ((0.25 + 0.25) * 3 / 2) ** 0.5 / 6
    assert clustered_ci95(values, clusters) == pytest.approx((0.5 - half, 0.5 + half))


def test_clusters_that_are_all_right_or_all_wrong_count_once():
    values = [1.0] * 20 + [0.0] * 10
    clusters = [str(at // 10) for at in range(30)]
    assert clustered_ci95(values, clusters) == mean_ci95([1.0, 1.0, 0.0])
    assert clustered_ci95([1.0, 0.0], ["a", "b"]) == mean_ci95([1.0, 0.0])


def test_an_interval_of_a_mean_of_means():
    # means 0.5 and 0.5; sample variances 0.5 / 2 and 1/3 / 4; weights one half each
    variance = 0.25 * (0.5 / 2) + 0.25 * (1 / 3 / 4)
    _, high = stratified_ci95([[0.4, 0.6], [0.4, 0.4, 0.6, 0.6]], [0.5, 0.5])
    assert high - 0.5 == pytest.approx(0.2 * 1.959964 * variance**0.5)


def test_an_interval_of_means_whose_values_go_together():
    # What a and b add to the sum: 0.5 * (0.5 / 2) * 2 and as much below, so +-0.25
    values, names = [[1.0, 0.0], [1.0, 0.0]], [["a", "b"], ["a", "b"]]
    low, high = stratified_ci95(values, [0.5, 0.5], names)
    assert (low, high) == (0.0, 1.0)
    many = [[1.0, 0.0] * 50, [1.0, 0.0] * 50]
    ids = [[str(at) for at in range(100)]] * 2
    # 100 clusters of +-0.5 * (0.5 / 100) * 2 each
    half = 1.959964 * (100 * 0.005**2 * 100 / 99) ** 0.5
    assert stratified_ci95(many, [0.5, 0.5], ids) == pytest.approx((0.5 - half, 0.5 + half))
    apart = [[str(at) for at in range(100)], [str(at) for at in range(100, 200)]]
    assert stratified_ci95(many, [0.5, 0.5], apart) == pytest.approx(
        stratified_ci95(many, [0.5, 0.5]), abs=1e-3
    )


def test_an_interval_ends_where_accuracies_do():
    # mean 0.875, sums of residuals +-0.25: half = z * sqrt(0.125 * 2) / 4
    low, high = clustered_ci95([1.0, 1.0, 1.0, 0.5], ["a", "a", "b", "b"])
    assert (low, high) == pytest.approx((0.875 - 1.959964 / 8, 1.0))


def test_an_interval_over_clusters_is_never_smaller_than_over_values():
    # what each cluster adds to the sum cancels out: one right and one wrong in each
    strata, ids = [[1.0, 0.0] * 50, [0.0, 1.0] * 50], [[str(at) for at in range(100)]] * 2
    assert stratified_ci95(strata, [0.5, 0.5], ids) == stratified_ci95(strata, [0.5, 0.5])
    # one cluster says nothing of its spread
    assert stratified_ci95([[1.0, 0.0] * 50], [1.0], [["a"] * 100]) == (0.0, 1.0)


def test_a_single_value_says_nothing_of_its_spread():
    assert mean_ci95([0.4]) == (0.0, 1.0)
    assert clustered_ci95([1.0, 0.0], ["a", "a"]) == (0.0, 1.0)
    # two sets of one value, each of variance 1/4 at most and weight 1/4: se = sqrt(2 / 64)
    low, high = stratified_ci95([[0.5], [0.5]], [0.25, 0.25])
    assert (low, high) == pytest.approx((0.0, 0.25 + 1.959964 * (2 / 64) ** 0.5))


def test_no_interval_is_a_point():
    # Wilson's for 2 of 4 and 1 of 2: (p + z2/2n +- z sqrt(p q / n + z2 / 4n2)) / (1 + z2/n)
    assert (
        mean_ci95([0.5] * 4) == mean_ci95([0.0, 1.0] * 2) == pytest.approx((0.15, 0.85), abs=2e-3)
    )
    halves = clustered_ci95([1.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b"])
    assert halves == mean_ci95([1.0, 0.0])
    # 5 right: 7 of 9, variance 7/9 * 2/9; weight 1
    low, high = stratified_ci95([[1.0] * 5], [1.0])
    assert (low, high) == pytest.approx((1 - 1.959964 * (14 / 81 / 5) ** 0.5, 1.0))
    assert stratified_ci95([[0.0] * 5], [1.0]) == pytest.approx((0.0, 1 - low))


def group_of(kind: str, *members) -> Group:
    task = Task("t", "q", "7", ability=kind)
    trajectories, rewards = zip(*members, strict=True)
    return Group(task, trajectories, tuple(Reward(value, 0.0) for value in rewards))


SEEN = observation(5, images=(Image.new("RGB", (28, 28)),))
LOST = trajectory(stop=StopReason.SANDBOX_LOST)


def test_figures_per_kind_and_overall():
    report = make_report(
        [
            group_of("hard", (trajectory(SEEN), 1.0), (trajectory(), 0.0)),
            group_of("easy", (trajectory(), 1.0), (LOST, 0.0)),
        ]
    )
    assert report.overall.accuracy == 0.75  # mean of 0.5 and 1
    assert report.overall.num_tasks == 2
    assert report.overall.zero_call_share == pytest.approx(2 / 3)
    hard = report.by_kind["hard"]
    assert (hard.accuracy, hard.tool_calls_mean, hard.zero_call_share) == (0.5, 0.5, 0.5)
    assert hard.visual_tokens_mean == 0.5
    assert (hard.visual_tokens_given_mean, hard.visual_tokens_shown_mean) == (0.0, 0.5)
    assert hard.turns_mean == 1.5
    assert hard.completion_tokens_mean == 2.5
    assert report.by_kind["easy"].stops == {"answered": 1}
    assert report.metrics()["eval/accuracy/easy"] == 1.0


def test_tasks_without_a_kind_are_not_the_overall_figures():
    groups = [group_of("", (trajectory(), 0.0)), group_of("easy", (trajectory(), 1.0))]
    metrics = make_report(groups).metrics()
    assert (metrics["eval/accuracy"], metrics["eval/accuracy/easy"]) == (0.5, 1.0)


def test_the_summary_form_is_plain_json():
    summary = make_report([group_of("easy", (trajectory(), 1.0))]).as_dict()
    assert json.loads(json.dumps(summary))["by_kind"]["easy"]["accuracy_ci95"][1] == 1.0


def test_a_task_whose_every_sandbox_was_lost_is_not_counted():
    report = make_report([group_of("easy", (LOST, 0.0))])
    assert (report.overall.num_tasks, report.num_lost) == (0, 1)
    assert report.as_dict()["num_lost"] == 1
