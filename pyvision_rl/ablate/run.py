"""Doing the runs of an ablation study that are not done yet, then the table and the figures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pyvision_rl.ablate.config import AblateConfig, Run, all_runs
from pyvision_rl.ablate.report import write_report
from pyvision_rl.data.needle_files import TEST_FILE, TRAIN_FILE, write_needle
from pyvision_rl.errors import SelectionError
from pyvision_rl.eval.stage import run_eval
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.train import train
from pyvision_rl.runs import RunReader
from pyvision_rl.runs.folder import SUMMARY
from pyvision_rl.sandbox import SandboxPool

logger = logging.getLogger(__name__)

RUNS, EVALS, DATA = "runs", "evals", "data"

OnStep = Callable[[str, int, int, Mapping[str, float]], None]
"""Called after every step with the run's description, its step, the number of steps, metrics."""


async def run_ablations(config: AblateConfig, on_step: OnStep) -> Path:
    """Do what is missing; returns the file of the table. Killed at any moment, it goes on."""
    out = Path(config.out)
    write_needle(out / DATA, config.needle)
    async with SandboxPool(config.rl.agent.sandbox) as pool:
        for title, run in all_runs(config):
            await _do_run(config, title, run, pool, on_step)
    return write_report(out, config)


async def _do_run(
    config: AblateConfig, title: str, run: Run, pool: SandboxPool, on_step: OnStep
) -> None:
    out = Path(config.out)
    eval_out = out / EVALS / run.name
    if (eval_out / SUMMARY).exists():
        return
    rl = replace(run.config, data=str(out / DATA / TRAIN_FILE), out=str(out / RUNS / run.name))
    steps = rl.num_steps
    checkpoint = _finished(Path(rl.out), steps, eval_out.exists()) or await _train(
        rl, lambda step, metrics: on_step(title, step, steps, metrics), pool
    )
    judged = replace(
        config.eval,
        policy=replace(config.eval.policy, model=str(checkpoint)),
        data=str(out / DATA / TEST_FILE),
        out=str(eval_out),
        evaluate=replace(config.eval.evaluate, seed=rl.seed),
    )
    await run_eval(judged, lambda done, total: None, pool)


async def _train(
    rl: RLConfig, on_step: Callable[[int, Mapping[str, float]], None], pool: SandboxPool
) -> Path:
    """The last checkpoint. An arm that has nothing left to learn from ends there: that is a result
    too.
    """
    try:
        return await train(rl, on_step, pool)
    except SelectionError as error:
        kept = RunReader(Path(rl.out)).checkpoints()
        if not kept:
            raise
        logger.warning("%s: ends after step %d: %s", rl.out, kept[-1].step, error)
        return kept[-1].path


def _finished(folder: Path, num_steps: int, is_judged: bool) -> Path | None:
    """The last checkpoint of a run that is done, or of which the evaluation has begun: what ended
    early would draw other tasks and might go on.
    """
    if not (folder / "config.yaml").exists():
        return None
    found = RunReader(folder).checkpoints()
    return found[-1].path if found and (is_judged or found[-1].step == num_steps) else None
