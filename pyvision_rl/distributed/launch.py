"""Starts a run on verl, and follows it from here to its end."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from ray.exceptions import RayError, RayTaskError
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

from pyvision_rl.data.mixture import open_task_sets
from pyvision_rl.data.stream import TaskStream
from pyvision_rl.distributed.compose import compose_config, first_line
from pyvision_rl.distributed.config import MAY_CHANGE as VERL_MAY_CHANGE
from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.distributed.learner import VerlLearner
from pyvision_rl.distributed.mapping import model_path, resolve_base
from pyvision_rl.distributed.players import go_to, open_players
from pyvision_rl.errors import ConfigError, PyVisionError
from pyvision_rl.model.loading import check_architecture
from pyvision_rl.reward.declared import OwnRule, check_rules, own_rules, register_rule
from pyvision_rl.rl.train import MAY_CHANGE, OnStep, run_loop
from pyvision_rl.rollout.prompts import load_template
from pyvision_rl.rollout.setup import load_setup
from pyvision_rl.runs import MetricRow, RunFolder, RunReader
from pyvision_rl.runs.config import dump_config

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""Between looks into the run folder."""
CPUS_PER_GPU = 3
"""CPUs that verl reserves beside each GPU; Ray only counts them."""
OTHER_CPUS = 4
"""CPUs for the processes that are there once: runner, queue, reward."""
REACH_S = 10.0
"""For the head of a Ray cluster to take a connection; Ray itself tries for many minutes."""
FAILURE = "failure.txt"
"""What the run folder keeps of an error that is not one of ours."""


def train_on_verl(config: DistributedConfig, on_step: OnStep) -> Path:
    """Train on a Ray cluster; returns the folder of the last checkpoint.

    Goes on where the run folder stands. Raises PyVisionError in one line; for an error of verl's
    the whole trace is in the run folder.
    """
    config = resolve_base(config)
    _check(config)
    verl_config = compose_config(config)
    out = Path(config.out)
    _claim(config, out)
    follower = Follower(out, on_step)
    with _cluster(verl_config):
        runner = ray.remote(Runner).remote()
        run = runner.run.remote(config, verl_config, Path.cwd(), own_rules())
        done: list[object] = []
        while not done:
            done, _ = ray.wait([run], timeout=POLL_S)
            follower.tell()
        try:
            return ray.get(run)
        except RayError as error:
            raise one_line(error, out) from error


ANEW = (*MAY_CHANGE, *VERL_MAY_CHANGE)
"""What a resumed run on verl may set anew."""


class Runner:
    """The process in which our loop runs: next to it verl's workers, and players everywhere."""

    def run(
        self,
        config: DistributedConfig,
        verl_config: DictConfig,
        folder: Path,
        rules: Mapping[str, OwnRule],
    ) -> Path:
        """The whole run; `folder` is what relative paths start from, on every machine the same.

        `rules`: the user's own, which only the process that was started knows.
        """
        go_to(folder)
        for name, grade in rules.items():
            register_rule(name, grade)
        tasks = open_task_sets(config.data, config.image_root or None)
        tq.init(verl_config.transfer_queue)
        try:
            learner = VerlLearner(config, verl_config)
            players = open_players(config, learner.trainer.get_llm_client(), folder)
            loop = run_loop(config, tasks, learner, players, _ignore, may_change=ANEW)
            return asyncio.run(loop)
        finally:
            tq.close()


def _ignore(step: int, metrics: object) -> None:
    """Progress is read from the run folder."""


class Follower:
    """Says what the run folder got since the last look: steps, and warnings, which the runner says
    to nobody."""

    def __init__(self, out: Path, on_step: OnStep) -> None:
        self.reader = RunReader(out)
        self.on_step = on_step
        self.steps = {_name(row) for row in self.reader.metrics()}
        self.warnings = {(said.step, said.text) for said in self.reader.warnings()}

    def tell(self) -> None:
        """Say what is new."""
        for row in self.reader.metrics():
            if _name(row) not in self.steps:
                self.steps.add(_name(row))
                self.on_step(row.step, row.values)
        for said in self.reader.warnings():
            if (said.step, said.text) not in self.warnings:
                self.warnings.add((said.step, said.text))
                logger.warning(said.text)


def _check(config: DistributedConfig) -> None:
    """Raise InputError for what the runner or its players would only find minutes later."""
    sets = open_task_sets(config.data, config.image_root or None)
    TaskStream(sets, config.seed)
    for part in sets:
        check_rules(part.tasks, config.reward.rule, has_judge=bool(config.judge.model))
    check_architecture(model_path(config))
    rollout = config.agent.rollout
    load_template(rollout.prompt)
    load_template(rollout.video.template)
    load_setup(rollout.setup)


def _claim(config: DistributedConfig, out: Path) -> None:
    """Refuse a folder that is not this run's before anything is started."""
    RunFolder.create(out, dump_config(config), resume=True, may_change=ANEW).close()


@contextmanager
def _cluster(config: DictConfig) -> Iterator[None]:
    """Ray, joined or started as the configuration says, with all GPUs that the run needs."""
    options = OmegaConf.to_container(config.ray_kwargs.ray_init)
    variables = {**get_ppo_ray_runtime_env(config)["env_vars"], "TRANSFER_QUEUE_ENABLE": "1"}
    options["runtime_env"] = {"env_vars": variables | options["runtime_env"].get("env_vars", {})}
    _check_address(options.get("address", ""))
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"verl.ray_address: {first_line(error)}") from error
    try:
        _check_resources(config)
        yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise ConfigError where `host:port` takes no connection; any other form is Ray's to find."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"verl.ray_address: {address}: cannot be reached ({error})") from error


def _check_resources(config: DictConfig) -> None:
    """Raise ConfigError where Ray would wait for ever for what the cluster does not have."""
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    units = config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    wanted = {"GPU": gpus, "CPU": CPUS_PER_GPU * gpus + units + OTHER_CPUS}
    held = ray.cluster_resources()
    for name, number in wanted.items():
        if (found := int(held.get(name, 0))) < number:
            raise ConfigError(
                f"verl: a run on {config.trainer.nnodes} nodes of {config.trainer.n_gpus_per_node} "
                f"GPUs needs {number} {name}s of the Ray cluster, which has {found}"
            )


def _name(row: MetricRow) -> tuple[int, float]:
    """Tells a row from one of the same step that a resumed run took back."""
    return row.step, row.unix_s


def one_line(error: RayError, out: Path) -> PyVisionError:
    """An error of ours as it was raised; of any other one line, its trace left in the folder."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    while isinstance(cause, RayTaskError):
        cause = cause.cause
    if isinstance(cause, PyVisionError):
        return cause
    (out / FAILURE).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return PyVisionError(f"verl: {type(cause).__name__}: {first_line(cause)} (see {out / FAILURE})")
