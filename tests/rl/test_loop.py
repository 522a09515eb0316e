"""The loop around a play and a learner that are written down: no model, no sandbox."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.policy import PolicyConfig
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.learner import LearnerConfig
from pyvision_rl.rl.select import SelectConfig
from pyvision_rl.rl.train import run_loop
from pyvision_rl.runs import RunFolder, RunReader
from pyvision_rl.types import StopReason, Task, Trajectory
from tests.build import observation, trajectory


@pytest.fixture(autouse=True)
def without_picture(monkeypatch):
    """Curves take ten times as long as all steps here; test_train.py has them drawn."""
    monkeypatch.setattr(RunFolder, "draw_curves", lambda run: None)


TASKS = [Task(str(number), "Which digit?", "7") for number in range(4)]
SEEN = observation(5)


@dataclass
class Notes:
    """A learner that learns nothing and a play of given groups; both write down what they got."""

    groups: Sequence[Sequence[Trajectory]]
    rollout_seeds: list[int] = field(default_factory=list)
    learner_seeds: list[int] = field(default_factory=list)
    advantages: list[list[float]] = field(default_factory=list)

    def update(self, samples: Sequence[Sample], seed: int) -> dict[str, float]:
        self.learner_seeds.append(seed)
        self.advantages.append([sample.advantage for sample in samples])
        return {}

    def save(self, folder: Path) -> None:
        (folder / "weights").write_text("")

    def load(self, folder: Path) -> None:
        assert (folder / "weights").exists()

    @asynccontextmanager
    async def open_play(self):
        groups = itertools.cycle(self.groups)

        async def play(task: Task, seed: int) -> tuple[Trajectory, ...]:
            self.rollout_seeds.append(seed)
            return tuple(replace(member, task=task, seed=seed) for member in next(groups))

        yield play


def run(config: RLConfig, *groups: Sequence[Trajectory]) -> Notes:
    notes = Notes(groups)
    asyncio.run(run_loop(config, TASKS, notes, notes.open_play(), lambda step, metrics: None))
    return notes


def config_for(out: Path, num_steps: int = 1, **options) -> RLConfig:
    select = options.pop("select", SelectConfig(oversample=1, num_groups=1))
    return RLConfig(
        PolicyConfig("tiny"), "tasks", str(out), num_steps=num_steps, select=select, **options
    )


RIGHT, WRONG = trajectory(answer="7"), trajectory(answer="8")
CALLED = trajectory(SEEN, answer="7")  # paid 1.1
CUT = trajectory(answer=None, stop=StopReason.MAX_TOKENS)


def test_every_group_and_every_update_has_a_seed_of_its_own(tmp_path):
    # 2 steps of 2 rounds of 2 groups, of which the first round's teach nothing
    select = SelectConfig(oversample=2, num_groups=2)
    same, mixed = (RIGHT, RIGHT), (RIGHT, WRONG)
    notes, again, other = (
        run(config_for(tmp_path / out, 2, select=select, seed=seed), same, same, mixed, mixed)
        for out, seed in (("one", 3), ("again", 3), ("other", 4))
    )
    assert len(set(notes.rollout_seeds)) == len(notes.rollout_seeds) == 8
    assert len(set(notes.learner_seeds)) == 2
    assert notes.rollout_seeds == again.rollout_seeds
    assert notes.learner_seeds == again.learner_seeds
    assert not set(notes.rollout_seeds) & set(other.rollout_seeds)


@pytest.mark.parametrize(
    ("normalize_std", "baseline", "trained", "recorded"),
    [
        # rewards 1.1, 0, 0, the last one cut: mean 1.1 / 3
        (False, "played", [2.2 / 3, -1.1 / 3], [2.2 / 3, -1.1 / 3, -1.1 / 3]),
        (False, "kept", [0.55, -0.55], [0.55, -0.55, -0.55]),
        # over the first two: std 0.55
        (True, "kept", [1.0, -1.0], [1.0, -1.0, -1.0]),
        # over all: std 1.1 * sqrt(2) / 3
        (True, "played", [2**0.5, -(0.5**0.5)], [2**0.5, -(0.5**0.5), -(0.5**0.5)]),
    ],
)
def test_advantages_are_learned_from_and_recorded_as_configured(
    tmp_path, normalize_std, baseline, trained, recorded
):
    config = config_for(
        tmp_path,
        select=SelectConfig(oversample=1, num_groups=1, baseline=baseline),
        learner=LearnerConfig(normalize_std=normalize_std),
    )
    notes = run(config, (CALLED, WRONG, CUT))
    assert notes.advantages == [pytest.approx(trained)]
    (record,) = RunReader(tmp_path).groups(1, "train")
    assert record.advantages == pytest.approx(recorded)
    assert record.dropped == {2: "max_tokens"}


def test_the_last_step_makes_a_checkpoint(tmp_path):
    run(config_for(tmp_path, 3, checkpoint_every=2), (RIGHT, WRONG))
    assert [kept.step for kept in RunReader(tmp_path).checkpoints()] == [2, 3]


def test_what_is_left_to_do_is_told_by_the_steps_so_far(tmp_path):
    run(config_for(tmp_path, 3), (RIGHT, WRONG))
    rows = [row.values for row in RunReader(tmp_path).metrics()]
    seconds = [
        sum(row[f"time/{phase}_s"] for phase in ("rollout", "update", "record")) for row in rows
    ]
    assert [row["time/step_s"] for row in rows] == pytest.approx(seconds)
    left = [2 * seconds[0], sum(seconds[:2]) / 2, 0.0]
    assert [row["time/eta_s"] for row in rows] == pytest.approx(left)
    # tokens, results and trajectories of a second: two completions, one a trajectory
    rates = [row["rate/tokens_per_s"] * row["time/rollout_s"] for row in rows]
    assert rates == pytest.approx([4, 4, 4])


def test_rates_count_all_that_was_sampled_and_run(tmp_path):
    failed = trajectory(observation(6, ok=False), answer="8")
    run(config_for(tmp_path), (CALLED, failed, WRONG))
    (row,) = RunReader(tmp_path).metrics()
    rates = {key: value * row.values["time/rollout_s"] for key, value in row.values.items()}
    assert rates["rate/tokens_per_s"] == pytest.approx(3 + 3 + 2)
    assert rates["rate/cells_per_s"] == pytest.approx(2)
    assert rates["rate/trajectories_per_s"] == pytest.approx(3)


def test_carried_groups_are_counted_with_their_age(tmp_path):
    # Step 1 leaves the narrower group over; step 2 draws nothing better.
    select = SelectConfig(oversample=2, num_groups=1, max_staleness=1, rank_by_std=True)
    narrow = (RIGHT, CALLED)  # 1 and 1.1
    run(config_for(tmp_path, 2, select=select), (RIGHT, WRONG), narrow, (RIGHT, RIGHT))
    one, two = (row.values for row in RunReader(tmp_path).metrics())
    counts = ("select/kept_carried", "select/staleness", "select/surplus")
    assert [one[key] for key in counts] == [0, 0, 1]
    assert [two[key] for key in counts] == [1, 1, 0]


def test_a_run_that_goes_on_has_said_what_it_said(tmp_path):
    """Calls fall over six steps: a run in one piece and one that was stopped after three."""
    malformed = (trajectory(answer="7", stop=StopReason.NO_ACTION), WRONG)
    steps = [malformed, *[(CALLED, replace(CALLED, answer="8"))] * 3, *[(RIGHT, WRONG)] * 3]
    select = SelectConfig(oversample=1, num_groups=1, drop_stops=())
    run(config_for(tmp_path / "straight", 7, select=select), *steps)
    for num_steps in (4, 7):
        config = config_for(tmp_path / "resumed", num_steps, select=select)
        run(config, *steps[0 if num_steps == 4 else 4 :])
    straight, resumed = (
        json.loads((tmp_path / name / "warnings.json").read_text())
        for name in ("straight", "resumed")
    )
    assert [(said["step"], said["cause"]) for said in straight] == [(1, "gate"), (6, "tool_calls")]
    assert straight == resumed
    told = [
        [row.values["monitor/tool_calls"] for row in RunReader(tmp_path / name).metrics()]
        for name in ("straight", "resumed")
    ]
    assert told[0] == told[1] == [0, 0, 0, 0, 0, 1, 1]


def test_the_first_rollouts_alone_are_looked_at(tmp_path):
    """Before the policy learns: what is malformed later is not for the gate to say."""
    malformed = (trajectory(answer="7", stop=StopReason.NO_ACTION), WRONG)
    looked = [(CALLED, replace(CALLED, answer="8"))]
    select = SelectConfig(oversample=1, num_groups=1, drop_stops=())
    config = config_for(tmp_path, 1, select=select)
    run(config, *looked)
    before = RunReader(tmp_path).warnings()
    run(replace(config, num_steps=3), malformed)
    assert RunReader(tmp_path).warnings() == before


def test_a_task_that_cannot_be_graded_ends_a_run_before_it_begins(tmp_path):
    notes = Notes([(RIGHT, WRONG)])
    tasks = [*TASKS, Task("free", "Why?", "because", rule="judge")]
    with pytest.raises(InputError, match="task free: its rule 'judge' needs a judge"):
        asyncio.run(
            run_loop(config_for(tmp_path), tasks, notes, notes.open_play(), lambda *_: None)
        )
    assert notes.rollout_seeds == []
