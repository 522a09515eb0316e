"""What a look is worth, on records written by hand."""

import math
from dataclasses import replace

import pytest

from pyvision_rl.ablate.worth import Worth, worth_of, worth_table
from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.records import GroupRecord
from pyvision_rl.types import Group, Reward, Trajectory
from tests import build

EASY = replace(build.TASK, ability="easy")
HARD = replace(build.TASK, ability="hard")


def calling(task=EASY) -> Trajectory:
    return build.trajectory(build.observation(3), task=task)


def direct(task=EASY) -> Trajectory:
    return build.trajectory(task=task)


def write_run(folder, *steps: list[tuple[Trajectory, Reward]]):
    with RunFolder.create(folder, "seed: 0\n") as run:
        for step, rows in enumerate(steps, start=1):
            trajectories, rewards = zip(*rows, strict=True)
            group = Group(rows[0][0].task, trajectories, rewards)
            run.write_groups(step, "train", [GroupRecord(group)])
    return folder


def test_rewards_with_and_without_a_call(tmp_path):
    first = [
        (calling(), Reward(1.0, 0.1)),
        (calling(), Reward(0.0, 0.0)),
        (direct(), Reward(1.0, 0.0)),
        (direct(), Reward(0.0, 0.0)),
        (direct(), Reward(0.0, 0.0)),
        (direct(), Reward(0.0, 0.0)),
    ]
    hard = [(calling(HARD), Reward(1.0, 0.5))]
    last = [(calling(), Reward(1.0, 0.1)), (direct(), Reward(1.0, 0.0))]
    run = write_run(tmp_path / "run", first, hard, hard, *([last] * 3))
    worth = worth_of(run)
    assert worth.kind == "easy"
    assert worth.looking == pytest.approx(0.55)
    assert worth.direct == pytest.approx(0.25)
    # variances of the means: 0.605 / 2 (n - 1 = 1) and 0.25 / 4
    assert worth.standard_error == pytest.approx(math.sqrt(0.605 / 2 + 0.25 / 4))
    assert worth.share_before == pytest.approx(2 / 6)
    assert worth.share_after == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("looking", "share_after", "verdict"),
    [
        (0.8, 0.9, "as foretold"),
        (0.8, 0.1, "not as foretold"),
        (0.4, 0.1, "as foretold"),
        (0.4, 0.9, "not as foretold"),
        (0.65, 0.9, "undecided"),
        (math.nan, 0.9, "undecided"),
    ],
)
def test_the_verdict(looking, share_after, verdict):
    worth = Worth("easy", looking, 0.6, 0.05, 0.5, share_after)
    assert worth.verdict == verdict
    table = worth_table([("a, seed 0", worth)])
    assert table[-1] == f"The rule over 1 runs: 1 {verdict}."
    assert table[4].startswith("| a, seed 0 | easy |")


def test_a_run_without_records(tmp_path):
    with RunFolder.create(tmp_path / "run", "seed: 0\n"):
        pass
    with pytest.raises(InputError, match="no trajectories are recorded"):
        worth_of(tmp_path / "run")
