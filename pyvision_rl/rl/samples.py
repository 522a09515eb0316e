"""Chosen groups as samples for the learner."""

from __future__ import annotations

from collections.abc import Sequence

from pyvision_rl.model.batch import Sample
from pyvision_rl.rl.advantage import Baseline, kept_advantages
from pyvision_rl.types import KeptGroup, Trajectory


def make_sample(trajectory: Trajectory, advantage: float) -> Sample:
    """Concatenate prompt, completions and observations as sampled and as seen."""
    prompt = trajectory.prompt
    token_ids = list(prompt.token_ids)
    loss_mask = [0] * len(token_ids)
    logprobs = [0.0] * len(token_ids)
    for turn in trajectory.turns:
        token_ids += turn.completion.token_ids
        loss_mask += [1] * len(turn.completion.token_ids)
        logprobs += turn.completion.logprobs
        if turn.observation is not None:
            token_ids += turn.observation.token_ids
            loss_mask += [0] * len(turn.observation.token_ids)
            logprobs += [0.0] * len(turn.observation.token_ids)
    return Sample(
        tuple(token_ids), tuple(loss_mask), tuple(logprobs), advantage, trajectory.context.images
    )


def make_samples(
    kept: Sequence[KeptGroup], *, normalize_std: bool = False, baseline: Baseline = "played"
) -> list[Sample]:
    """The samples of a selection; by default advantages come from the whole group, kept or not."""
    samples: list[Sample] = []
    for chosen in kept:
        advantages = kept_advantages(chosen, normalize_std=normalize_std, baseline=baseline)
        samples += [
            make_sample(chosen.group.trajectories[index], advantage)
            for index, advantage in zip(chosen.indices, advantages, strict=True)
        ]
    return samples
