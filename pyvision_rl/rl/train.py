"""The training loop, the one place that knows all rooms."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from pyvision_rl.data.bad_rows import BadRows
from pyvision_rl.data.mixture import open_task_sets
from pyvision_rl.data.stream import TaskSet, TaskStream
from pyvision_rl.errors import MediaError, SelectionError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.disk import as_os_errors
from pyvision_rl.model.policy import Policy
from pyvision_rl.reward.declared import check_rules
from pyvision_rl.reward.grading import StageGrader, open_grader
from pyvision_rl.reward.judge_config import MAY_CHANGE as JUDGE_MAY_CHANGE
from pyvision_rl.reward.reward import score_group_by
from pyvision_rl.rl.advantage import group_advantages
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.gate import gate_warning
from pyvision_rl.rl.learner import Learner
from pyvision_rl.rl.metrics import rate_metrics, rollout_metrics
from pyvision_rl.rl.monitor import CollapseMonitor, Warned
from pyvision_rl.rl.samples import make_samples
from pyvision_rl.rl.select import baseline_of, collect, why_left_out
from pyvision_rl.rl.surplus import Surplus
from pyvision_rl.rollout.agent import open_agent
from pyvision_rl.rollout.group import run_group, run_together
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.seeds import derive_seed
from pyvision_rl.rollout.setup import load_setup
from pyvision_rl.runs import (
    PROMPT,
    SETUP,
    VIDEO_PROMPT,
    RunFolder,
    RunReader,
    selection_records,
)
from pyvision_rl.runs.config import dump_config, resolve_model
from pyvision_rl.sandbox import SandboxPool
from pyvision_rl.types import Group, Selection, Task, Trajectory

logger = logging.getLogger(__name__)

OnStep = Callable[[int, Mapping[str, float]], None]
"""Called after every step with its number, from 1, and its metrics."""

Play = Callable[[Task, int], Coroutine[None, None, tuple[Trajectory, ...]]]
"""Plays a group of a task from a seed. Raises MediaError where the task's files cannot be read."""

ETA_STEPS = 10
"""Steps whose mean says how long the others will take."""

MAY_CHANGE = (
    *("num_steps", "checkpoint_every", "track", "max_bad_rows", "records.image_groups"),
    *JUDGE_MAY_CHANGE,
)
"""What a resumed run may set anew."""


class Trainable(Protocol):
    """Weights that learn, wherever they lie; whoever samples has them after every update."""

    def update(self, samples: Sequence[Sample], seed: int) -> dict[str, float]:
        """One pass over the samples; returns metrics. `seed` alone decides their order."""
        ...

    def save(self, folder: Path) -> None:
        """Write the weights in Hugging Face layout and the optimizer's state beside them."""
        ...

    def load(self, folder: Path) -> None:
        """Go back to what `save` wrote."""
        ...


async def train(config: RLConfig, on_step: OnStep, pool: SandboxPool | None = None) -> Path:
    """Train in this process; returns the folder of the last checkpoint.

    A folder that holds this very run goes on from its newest checkpoint. A `pool` that runs
    already is used instead of one of its own.
    """
    tasks = open_task_sets(config.data, config.image_root or None)
    # A run folder's newest checkpoint may be another one when this run is resumed.
    base = replace(config.policy, model=resolve_model(config.policy.model))
    config = replace(config, policy=base)
    policy = Policy.load(base)
    learner = Learner(policy, config.learner, config.agent.rollout.temperature)

    @asynccontextmanager
    async def open_play() -> AsyncIterator[Play]:
        async with open_agent(policy, config.agent, pool) as agent:
            yield lambda task, seed: run_group(agent, task, config.group_size, seed)

    return await run_loop(config, tasks, learner, open_play(), on_step)


async def run_loop(
    config: RLConfig,
    tasks: Sequence[Task] | Sequence[TaskSet],
    learner: Trainable,
    opened_play: AbstractAsyncContextManager[Play],
    on_step: OnStep,
    may_change: Collection[str] = MAY_CHANGE,
) -> Path:
    """All steps from where the run folder stands, whoever plays and learns.

    Raises SelectionError, with a checkpoint of what was learned until then, where nothing drawn
    teaches anything; started again from it, the run draws other tasks.
    `may_change`: dotted keys of the configuration that a resumed run may set anew.
    """
    for item in tasks:
        played = item.tasks if isinstance(item, TaskSet) else [item]
        check_rules(played, config.reward.rule, has_judge=bool(config.judge.model))
    stream = TaskStream(tasks, config.seed)
    with RunFolder.create(
        Path(config.out),
        dump_config(config),
        resume=True,
        may_change=may_change,
        checkpoints=config.checkpoints,
        track=config.track,
    ) as run:
        run.keep_text(PROMPT, load_template(config.agent.rollout.prompt))
        run.keep_text(SETUP, load_setup(config.agent.rollout.setup))
        run.keep_text(VIDEO_PROMPT, load_template(config.agent.rollout.video.template))
        async with open_grader(config.reward, config.judge, run.path) as grader:
            loop = _Loop(config, learner, stream, grader)
            step = loop.restore(run)
            saved = run.checkpoints.latest()
            metrics = dict(saved.metrics) if saved else {}
            async with opened_play as play:
                while step < config.num_steps:
                    try:
                        metrics = await loop.step(play, run, step + 1)
                    except SelectionError:
                        if step:
                            run.checkpoints.save(step, loop.save, metrics)
                        raise
                    step += 1
                    metrics |= loop.watch(run, step, metrics)
                    run.log(step, metrics)
                    if step % config.checkpoint_every == 0 or step == config.num_steps:
                        run.checkpoints.save(step, loop.save, metrics)
                    on_step(step, metrics)
        run.draw_curves()
        latest = run.checkpoints.latest()
    assert latest is not None, "the last step saves a checkpoint"
    return latest.path


@dataclass
class _Clock:
    """Seconds since the last look, for the metrics of a step's phases."""

    last: float

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        return seconds


class _Loop:
    """What lives from step to step: learner, stream and surplus groups."""

    def __init__(
        self, config: RLConfig, learner: Trainable, stream: TaskStream, grader: StageGrader
    ) -> None:
        self.config = config
        self.learner = learner
        self.stream = stream
        self.grader = grader
        self.bad_rows = BadRows(config.max_bad_rows)
        self.monitor = CollapseMonitor()
        self.step_seconds: list[float] = []
        self.surplus = Surplus(config.select.max_staleness)
        self.gate_passed = False

    async def step(self, play: Play, run: RunFolder, step: int) -> dict[str, float]:
        """Oversample, filter, rank; update; record. Returns the step's metrics."""
        config = self.config
        clock = _Clock(time.perf_counter())
        rounds = itertools.count()
        selection = await collect(
            lambda count: self._draw(play, (step, next(rounds)), self.stream.next(count)),
            config.select,
            self.surplus.groups,
        )
        baseline = config.select.baseline
        rollout_s = clock.lap()
        metrics = {**rollout_metrics(selection, baseline), "time/rollout_s": rollout_s}
        metrics |= rate_metrics(selection, rollout_s)
        metrics |= self.grader.take_metrics() | self.bad_rows.take_metrics()
        metrics |= self._carry(selection, step)
        samples = make_samples(
            selection.kept, normalize_std=config.learner.normalize_std, baseline=baseline
        )
        metrics |= self.learner.update(samples, derive_seed(config.seed, "learner", step))
        metrics["time/update_s"] = clock.lap()
        self._record(run, step, selection)
        metrics["time/record_s"] = clock.lap()
        return metrics

    def watch(self, run: RunFolder, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Say what goes wrong, once; how long a step takes and all that are left will take."""
        new = self.monitor.watch(step, metrics)
        for warned in new:
            logger.warning(warned.text)
        if new or any(w.step == step for w in self.monitor.warnings):
            self._write_warnings(run)
        phases = ("rollout", "update", "record")
        self.step_seconds.append(sum(metrics[f"time/{phase}_s"] for phase in phases))
        recent = self.step_seconds[-ETA_STEPS:]
        left = self.config.num_steps - step
        return {
            **self.monitor.metrics(),
            "time/step_s": recent[-1],
            "time/eta_s": left * sum(recent) / len(recent),
        }

    def _write_warnings(self, run: RunFolder) -> None:
        run.write_warnings([asdict(warned) for warned in self.monitor.warnings])

    async def _draw(self, play: Play, place: tuple[int, int], tasks: Sequence[Task]) -> list[Group]:
        """Play a round of tasks; seeds come from step, round and position, not from task ids:
        a small data set may give the same task twice."""
        played = await run_together(
            self._play(play, task, derive_seed(self.config.seed, "rollout", *place, index))
            for index, task in enumerate(tasks)
        )
        groups = [group for group in played if group is not None]
        rollout = self.config.agent.rollout
        with_tool = [group for group in groups if rollout.tool_calls_for(group.task)]
        if not self.gate_passed and (warning := gate_warning(with_tool)):
            logger.warning(warning)
            self.monitor.warnings.append(Warned(place[0], "gate", warning))
        self.gate_passed = True
        return groups

    async def _play(self, play: Play, task: Task, seed: int) -> Group | None:
        """The task's group with its rewards; None for one that is skipped."""
        try:
            trajectories = await play(task, seed)
        except MediaError as error:
            self.bad_rows.skip(task, error)
            return None
        return await score_group_by(self.grader, task, trajectories, self.config.reward)

    def _carry(self, selection: Selection, step: int) -> dict[str, float]:
        """Keep what may be trained on later; how old the groups trained on now are."""
        ages = self.surplus.staleness([kept.group for kept in selection.kept], step)
        self.surplus.renew(selection, step)
        return {
            "select/kept_carried": float(sum(age > 0 for age in ages)),
            "select/staleness": sum(ages) / len(ages),
            "select/surplus": float(len(self.surplus.groups)),
        }

    def _record(self, run: RunFolder, step: int, selection: Selection) -> None:
        config = self.config.select

        def why(group: Group, index: int) -> str:
            return why_left_out(group, index, config)

        def advantages(group: Group) -> Sequence[float]:
            normalize_std = self.config.learner.normalize_std
            return group_advantages(
                group, normalize_std=normalize_std, over=baseline_of(group, config)
            )

        records = selection_records(selection, why, advantages)
        run.write_groups(step, "train", records, self.config.records.image_groups)

    def save(self, folder: Path) -> None:
        """Write all that the next step depends on."""
        as_os_errors(self.learner.save)(folder)
        self.stream.save(folder)
        self.surplus.save(folder)

    def restore(self, run: RunFolder) -> int:
        """Go back to the newest checkpoint, if there is one; returns its step."""
        checkpoint = run.rewind()
        if checkpoint is None:
            return 0
        self.learner.load(checkpoint.path)
        self.stream.load(checkpoint.path)
        self.surplus.load(checkpoint.path)
        self.gate_passed = True
        reader = RunReader(run.path)
        said = [w for w in reader.warnings() if w.step <= checkpoint.step]
        self.monitor.warnings = [Warned(w.step, w.cause, w.text) for w in said]
        for row in reader.metrics():
            self.monitor.watch(row.step, row.values)
        self._write_warnings(run)
        logger.info("%s: goes on after step %d", run.path, checkpoint.step)
        return checkpoint.step
