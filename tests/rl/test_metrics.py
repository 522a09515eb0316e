from collections import Counter

import pytest
from PIL import Image

from pyvision_rl.rl.gate import gate_warning
from pyvision_rl.rl.metrics import rollout_metrics
from pyvision_rl.rl.select import SelectConfig, select
from pyvision_rl.types import Group, Reward, Selection, StopReason, Task
from tests.build import TASK, group, observation, trajectory

SEEN = observation(5, images=(Image.new("RGB", (28, 28)),))


def test_means_of_a_step():
    looked = trajectory(SEEN, observation(6, ok=False))
    mixed = Group(TASK, (looked, trajectory()), (Reward(1.0, 0.1), Reward(0.0, 0.0)))
    constant = group((1, 0), (1, 0))
    metrics = rollout_metrics(select([mixed, constant], SelectConfig(oversample=2, num_groups=2)))
    assert metrics["reward/mean"] == pytest.approx((1.1 + 0 + 1 + 1) / 4)
    assert metrics["reward/accuracy"] == 0.75
    assert metrics["reward/tool"] == pytest.approx(0.025)
    assert metrics["rollout/tool_calls"] == 0.5
    assert metrics["rollout/failed_calls"] == 0.25
    assert metrics["rollout/zero_call_share"] == 0.75
    assert metrics["rollout/divided_share"] == 0.5  # the first group, in which one of two calls
    assert metrics["rollout/turns"] == (3 + 1 + 1 + 1) / 4
    assert metrics["rollout/completion_tokens"] == (4 + 2 + 2 + 2) / 4
    assert metrics["rollout/visual_tokens"] == 0.25
    assert metrics["rollout/visual_tokens_given"] == 0
    assert metrics["rollout/visual_tokens_shown"] == 0.25
    assert metrics["stop/answered"] == 1.0
    assert metrics["stop/no_action"] == metrics["stop/max_tokens"] == 0.0
    assert metrics["select/kept"] == 1
    assert metrics["select/reward_std"] == pytest.approx(0.55 / 2)
    assert metrics["select/constant_share"] == 0.5
    assert metrics["select/dropped/group/constant"] == 1


def test_right_answers_with_negative_advantage():
    # rewards 1.4, 1.4, 1.0: mean 1.267, one of three right ones is below it
    selection = select(
        [group((1, 0.4), (1, 0.4), (1, 0.0))], SelectConfig(oversample=1, num_groups=1)
    )
    assert rollout_metrics(selection)["select/right_negative_share"] == pytest.approx(1 / 3)
    wrong = select(
        [group((1, 0.4), (1, 0.4), (1, 0.0), (0.4, 0.0))],
        SelectConfig(oversample=1, num_groups=1),
    )
    # mean 1.05: 1.0 is below it, and so is 0.4, which is wrong
    assert rollout_metrics(wrong)["select/right_negative_share"] == pytest.approx(1 / 3)
    # kept: 1.4 and 1.0, mean 1.2; with the broken 0, mean 0.8, both are above
    broken = select(
        [group((1, 0.4), (1, 0), (0, 0), stops={2: StopReason.NO_ACTION})],
        SelectConfig(oversample=1, num_groups=1),
    )
    assert rollout_metrics(broken)["select/right_negative_share"] == 0
    assert rollout_metrics(broken, "kept")["select/right_negative_share"] == 0.5


def test_accuracy_per_kind_and_lost_sandboxes():
    task = Task("a", "q", "1", ability="easy")
    lost = trajectory(stop=StopReason.SANDBOX_LOST, task=task)
    drawn = Group(task, (trajectory(task=task), lost), (Reward(1.0, 0), Reward(0.0, 0)))
    metrics = rollout_metrics(Selection((drawn,), (), Counter()))
    assert metrics["reward/accuracy/easy"] == 1.0
    assert metrics["reward/accuracy"] == 1.0


def test_a_group_is_divided_by_those_that_were_played_and_constant_at_no_spread_alone():
    lost = trajectory(stop=StopReason.SANDBOX_LOST)  # without a call
    one_kind = Group(TASK, (trajectory(SEEN), lost), (Reward(1.0, 0.1), Reward(0.0, 0.0)))
    narrow = group((1, 0.1), (1, 0))  # std 0.05
    metrics = rollout_metrics(Selection((one_kind, narrow), (), Counter()))
    assert metrics["rollout/divided_share"] == 0
    assert metrics["select/constant_share"] == 0.5  # the first: one is left of it


def group_with(looked: int, right: int, blind: int, broken: int) -> Group:
    members = [trajectory(SEEN) for _ in range(looked)]
    members += [trajectory() for _ in range(blind)]
    members += [trajectory(stop=StopReason.NO_ACTION) for _ in range(broken)]
    rewards = [Reward(float(index < right), 0) for index in range(len(members))]
    return Group(TASK, tuple(members), tuple(rewards))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((10, 6, 10, 0), None),
        ((10, 6, 6, 4), "only 80% of the trajectories are well formed"),
        ((10, 2, 10, 0), "accuracy after a look is 0.20"),
        ((0, 0, 20, 0), "only 0 of 20 trajectories ever look"),
    ],
)
def test_the_gate_says_what_is_wrong(counts, words):
    warning = gate_warning([group_with(*counts)])
    if words is None:
        assert warning is None
    else:
        assert warning is not None
        assert words in warning
        assert "\n" not in warning
