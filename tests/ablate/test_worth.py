"""What a look is worth, on records written by hand."""

import math
from dataclasses import replace

import pytest

from pyvision_rl.ablate.worth import Estimated, Worth, worth_of, worth_table
from pyvision_rl.errors import InputError
from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.records import GroupRecord
from pyvision_rl.types import Group, Reward, Trajectory
from tests import build

EASY = replace(build.TASK, ability="easy")
HARD = replace(build.TASK, ability="hard")
RIGHT_CALL, RIGHT, WRONG = Reward(1.0, 0.1), Reward(1.0, 0.0), Reward(0.0, 0.0)

Rows = list[tuple[Trajectory, Reward]]


def calling(task=EASY) -> Trajectory:
    return build.trajectory(build.observation(3), task=task)


def direct(task=EASY) -> Trajectory:
    return build.trajectory(task=task)


def write_run(folder, *steps: list[Rows]):
    with RunFolder.create(folder, "seed: 0\n") as run:
        for step, groups in enumerate(steps, start=1):
            records = []
            for rows in groups:
                trajectories, rewards = zip(*rows, strict=True)
                records.append(GroupRecord(Group(rows[0][0].task, trajectories, rewards)))
            run.write_groups(step, "train", records)
    return folder


def test_gain_pull_and_shares(tmp_path):
    # looking 1.1 and 0, direct 1, 0, 0, 0: a difference of 0.55 - 0.25 = 0.3, p = 1/3
    mixed = [
        (calling(), RIGHT_CALL),
        (calling(), WRONG),
        (direct(), RIGHT),
        *[(direct(), WRONG)] * 3,
    ]
    # a difference of 1.1 - 1 = 0.1, p = 1/2
    even = [(calling(), RIGHT_CALL), (direct(), RIGHT)]
    # of the rare kind: -1, p = 1/4
    hard = [(calling(HARD), WRONG), *[(direct(HARD), RIGHT)] * 3]
    silent = [(direct(), RIGHT), (direct(), WRONG)]
    steps = [[mixed, silent], [even, hard], [silent], [silent], [silent], [silent]]
    steps += [[even], [even], [even], [silent], [[(calling(), WRONG)] * 4], [silent], [silent]]
    worth = worth_of(write_run(tmp_path / "run", *steps))
    assert worth.kind == "easy"
    assert worth.gain.mean == pytest.approx(0.2)
    # (0.1^2 + 0.1^2) / 1 = 0.02, over 2 groups
    assert worth.gain.error == pytest.approx(0.1)
    # covariances: 2/9 x 0.3, 0, 0.25 x 0.1, 3/16 x -1, 0
    values = [2 / 9 * 0.3, 0, 0.025, -0.1875, 0]
    mean = sum(values) / 5
    assert worth.pull.mean == pytest.approx(mean)
    spread = sum((value - mean) ** 2 for value in values) / 4
    assert worth.pull.error == pytest.approx(math.sqrt(spread / 5))
    assert worth.share_first == pytest.approx(3 / 12)  # hard ones are not counted
    assert worth.share_soon == pytest.approx(1 / 2)  # steps 7 to 9
    assert worth.share_last == pytest.approx(4 / 8)  # steps 11 to 13


def test_a_run_that_is_short_or_never_calls(tmp_path):
    worth = worth_of(write_run(tmp_path / "run", [[(direct(), RIGHT)]], [[(direct(), WRONG)]]))
    assert (worth.share_first, worth.share_soon, worth.share_last) == (0, 0, 0)
    assert math.isnan(worth.gain.mean)
    assert worth.verdict(worth.gain, worth.share_last) == "undecided"


@pytest.mark.parametrize(
    ("gain", "share_after", "verdict"),
    [
        (0.2, 0.9, "yes"),
        (0.2, 0.5, "yes"),
        (0.2, 0.1, "no"),
        (-0.2, 0.1, "yes"),
        (-0.2, 0.9, "no"),
        (0.09, 0.9, "undecided"),
        (math.nan, 0.9, "undecided"),
    ],
)
def test_the_verdict(gain, share_after, verdict):
    nothing = Estimated(0.0, 0.01)
    worth = Worth("easy", Estimated(gain, 0.05), nothing, 0.5, share_after, 0.5)
    assert worth.verdict(worth.gain, worth.share_soon) == verdict
    table = worth_table([("a, seed 0", worth)])
    assert table[4].startswith("| a, seed 0 | easy |")
    counts = ", ".join(f"{word} {int(word == verdict)}" for word in ("yes", "no", "undecided"))
    assert f"* gain, soon: {counts}" in table
    assert "* pull, soon: yes 0, no 0, undecided 1" in table


def test_a_run_without_records(tmp_path):
    with RunFolder.create(tmp_path / "run", "seed: 0\n"):
        pass
    with pytest.raises(InputError, match="no trajectories are recorded"):
        worth_of(tmp_path / "run")
