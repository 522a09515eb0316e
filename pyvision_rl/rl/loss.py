"""The clipped policy loss over sampled tokens (paper Sec. 3.3; PPO with dual clip).

Suffixes: B samples, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.batch import Batch


@dataclass(frozen=True)
class LossConfig:
    """Bounds of the ratio between the policy that learns and the one that sampled."""

    clip_low: float = 0.2
    """Ratios below 1 - clip_low give no gradient where the advantage is negative."""
    clip_high: float = 0.28
    """Ratios above 1 + clip_high give no gradient where the advantage is positive."""
    dual_clip: float = 3.0
    """Bound on the loss of a token with negative advantage, in units of that advantage."""

    def __post_init__(self) -> None:
        if not (0 < self.clip_low < 1 and self.clip_high > 0 and self.dual_clip > 1):
            raise ConfigError(
                "loss: need 0 < clip_low < 1, clip_high > 0 and dual_clip > 1, "
                f"got {self.clip_low}, {self.clip_high}, {self.dual_clip}"
            )


@dataclass(frozen=True)
class LossParts:
    """Sums over the sampled tokens of a (micro-)batch, to be divided by the global token count."""

    loss: Tensor
    clipped: Tensor
    kl: Tensor


def policy_loss(logprobs_BT: Tensor, batch: Batch, config: LossConfig) -> LossParts:
    """Token-level clipped surrogate, summed: the caller divides by the tokens of the global batch.

    `clipped` counts the tokens whose ratio the clip holds; `kl` is the k3 estimate of
    KL(sampler || learner), always >= 0.
    """
    mask_BT = batch.loss_mask_BT
    advantages_B1 = batch.advantages_B[:, None]
    log_ratio_BT = (logprobs_BT - batch.logprobs_BT) * mask_BT
    ratio_BT = torch.exp(log_ratio_BT)
    clipped_BT = ratio_BT.clamp(1 - config.clip_low, 1 + config.clip_high)
    surrogate_BT = torch.min(ratio_BT * advantages_B1, clipped_BT * advantages_B1)
    floor_BT = torch.max(surrogate_BT, config.dual_clip * advantages_B1)
    objective_BT = torch.where(advantages_B1 < 0, floor_BT, surrogate_BT)
    held_BT = (surrogate_BT < ratio_BT * advantages_B1) & (mask_BT > 0)
    kl_BT = (torch.exp(log_ratio_BT) - 1 - log_ratio_BT).detach()
    return LossParts(
        loss=-(objective_BT * mask_BT).sum(),
        clipped=held_BT.sum(),
        kl=(kl_BT * mask_BT).sum(),
    )
