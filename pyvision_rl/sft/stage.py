"""The SFT stage: traces in, a checkpoint in a run folder out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyvision_rl.data.traces import Trace, read_traces
from pyvision_rl.errors import InputError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.disk import as_os_errors
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rollout.videos import FramesConfig
from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.config import dump_config, resolve_model
from pyvision_rl.runs.track import Track
from pyvision_rl.sft.data import TraceSamples, encode_trace
from pyvision_rl.sft.train import SFTTrainConfig, num_steps, train
from pyvision_rl.sft.unseen import Unseen, UnseenConfig

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called after every step with its number, from 1, the number in all, and its metrics."""


@dataclass(frozen=True)
class SFTConfig:
    """Cold start of a policy on traces (paper Sec. 3.1)."""

    policy: PolicyConfig
    """The checkpoint to start from."""
    data: str
    """Trace file in the released SFT layout (sharegpt json)."""
    out: str
    """Run folder, a new one."""
    image_root: str = ""
    """Folder that relative media paths start from; empty: the trace file's own."""
    video: FramesConfig = field(default_factory=FramesConfig)
    """What a `<video>` of a trace becomes. Traces that this project writes need no such choice:
    they hold the frames that their context had as images."""
    seed: int = 0
    """Decides the order of the traces."""
    train: SFTTrainConfig = field(default_factory=SFTTrainConfig)
    """Optimizer and schedule."""
    unseen: UnseenConfig = field(default_factory=UnseenConfig)
    """Tasks to play during training: format and accuracy."""
    track: Track = "none"
    """Service that gets the metrics too."""


def run_sft(config: SFTConfig, on_step: OnStep) -> Path:
    """Train and save; returns the checkpoint's folder, in Hugging Face layout."""
    unseen = Unseen(config.unseen, config.seed)
    traces = read_traces(config.data, image_root=config.image_root or None)
    if not traces:
        raise InputError(f"{config.data}: has no rows")
    policy = Policy.load(replace(config.policy, model=resolve_model(config.policy.model)))
    samples = TraceSamples(traces, lambda row, trace: _encode(config, policy, row, trace))
    total = num_steps(len(samples), config.train)
    with RunFolder.create(Path(config.out), dump_config(config), track=config.track) as run:
        checkpoints = run.checkpoints

        def log(step: int, metrics: dict[str, float]) -> None:
            if step == total:
                # What was learned outlives whatever the tasks meet that are played next.
                checkpoints.save(total, as_os_errors(policy.write), {})
            if unseen.is_due(step, total):
                metrics |= unseen.play(policy)
            run.log(step, metrics)
            on_step(step, total, metrics)

        train(policy, samples, config.train, config.seed, log)
        run.draw_curves()
    return checkpoints.all()[-1].path


def _encode(config: SFTConfig, policy: Policy, row: int, trace: Trace) -> Sample:
    try:
        return encode_trace(trace, policy.codec, config.video)
    except InputError as error:
        raise InputError(f"{config.data}: row {row}: {error}") from error
