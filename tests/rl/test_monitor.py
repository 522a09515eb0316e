import pytest

from pyvision_rl.rl.monitor import CollapseMonitor

HEALTHY = {
    "rollout/tool_calls": 0.8,
    "rollout/failed_calls": 0.02,
    "select/constant_share": 0.4,
    "loss/entropy": 0.3,
    "rollout/completion_tokens": 60.0,
    "reward/accuracy": 0.6,
}


def watch(monitor: CollapseMonitor, key: str, values, **others) -> list:
    """Feed a series of one metric, the others held."""
    said = []
    for step, value in enumerate(values, start=1):
        said += monitor.watch(step, {**HEALTHY, **others, key: value})
    return said


def test_a_healthy_noisy_run_is_left_in_peace():
    monitor = CollapseMonitor()
    noise = [0.80, 0.62, 0.95, 0.71, 0.55, 0.83, 0.90, 0.66, 0.78, 0.85]
    assert watch(monitor, "rollout/tool_calls", noise) == []
    assert set(monitor.metrics().values()) == {0.0}


def test_one_bad_step_is_no_collapse():
    assert watch(CollapseMonitor(), "rollout/tool_calls", [0.8, 0.8, 0.8, 0.1, 0.8, 0.8]) == []


# Calls a step of two runs that collapsed, as far as they were noted down (the middle is filled in):
# without a tool reward where 15 % of the calls fail, and with one where 40 % fail.
WITHOUT_REWARD = [0.73, 0.61, 0.68, 0.66, 0.58, 0.50, 0.42, 0.34, 0.26, 0.18, 0.09, 0.16]
MANY_FAILURES = [0.72, 0.65, 0.48, 0.37, 0.30, 0.22, 0.15, 0.08, 0.03, 0.0, 0.0]


def test_a_collapse_is_told_once_with_its_step():
    monitor = CollapseMonitor()
    said = watch(monitor, "rollout/tool_calls", WITHOUT_REWARD)
    # best window: 2.02 / 3 = 0.673, half of it 0.337; (0.42 + 0.34 + 0.26) / 3 = 0.34 is above,
    # (0.34 + 0.26 + 0.18) / 3 = 0.26 below
    assert [(w.step, w.cause) for w in said] == [(10, "tool_calls")]
    assert said[0].text.startswith("step 10: tool calls fell from 0.67 to 0.26 a trajectory")
    assert "answers without a look are paid about as well" in said[0].text
    assert monitor.warnings == said
    assert monitor.metrics()["monitor/tool_calls"] == 1.0


def test_failing_calls_are_named_as_the_cause():
    monitor = CollapseMonitor()
    said = []
    for step, calls in enumerate(MANY_FAILURES, start=1):
        metrics = {"rollout/tool_calls": calls, "rollout/failed_calls": 0.4 * calls}
        said += monitor.watch(step, {**HEALTHY, **metrics})
    # best window 1.85 / 3 = 0.617, half of it 0.308; (0.37 + 0.30 + 0.22) / 3 = 0.297
    assert [(w.step, w.cause) for w in said] == [(6, "tool_calls")]
    assert "40% of the calls fail" in said[0].text


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [(0.95, "too easy"), (0.05, "too hard"), (0.5, "all do the same")],
)
def test_groups_without_variance(accuracy, words):
    monitor = CollapseMonitor()
    share = [0.5, 0.6, 0.7, 0.85, 0.9, 0.9]
    said = watch(monitor, "select/constant_share", share, **{"reward/accuracy": accuracy})
    # (0.7 + 0.85 + 0.9) / 3 = 0.817 is the first above 0.8
    assert [(w.step, w.cause) for w in said] == [(5, "constant_groups")]
    assert words in said[0].text
    assert "in 82% of the groups" in said[0].text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.4, 0.4, 0.4, 0.2, 0.1, 0.05, 0.05], "entropy fell from 0.400 to 0.067"),
        ([0.1, 0.1, 0.1, 0.2, 0.3, 0.4], "entropy rose from 0.100 to 0.300"),
    ],
)
def test_entropy_both_ways(values, words):
    (warned,) = watch(CollapseMonitor(), "loss/entropy", values)
    assert words in warned.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([80, 80, 80, 40, 30, 30], "responses shrank from 80 to 33"),
        ([40, 40, 40, 80, 100, 120], "responses grew from 40 to 100"),
    ],
)
def test_response_length_both_ways(values, words):
    (warned,) = watch(CollapseMonitor(), "rollout/completion_tokens", values)
    assert words in warned.text
    assert "\n" not in warned.text


def test_a_metric_that_is_missing_or_not_a_number_is_passed_over():
    monitor = CollapseMonitor()
    for step in range(1, 9):
        assert monitor.watch(step, {"loss/entropy": float("nan")}) == []
