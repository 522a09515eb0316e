"""Turns samples into weight updates; knows no task, no sandbox and no group."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.batch import Sample, collate, split_by_tokens
from pyvision_rl.model.masters import Masters
from pyvision_rl.model.policy import Policy
from pyvision_rl.rl.loss import LossConfig, policy_loss

OPTIMIZER_FILE = "optimizer.pt"


@dataclass(frozen=True)
class LearnerConfig:
    """The optimizer and how a step's samples are cut. Defaults are the paper's for 7B."""

    learning_rate: float = 1e-6
    """Constant learning rate of AdamW."""
    beta2: float = 0.999
    """Second-moment decay of AdamW; the first is 0.9."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    num_minibatches: int = 1
    """Optimizer updates per step, each on an equal share of the samples."""
    micro_batch_tokens: int = 32768
    """Tokens in one forward pass, a common beginning of samples counted once; the loss does not
    depend on it."""
    normalize_std: bool = False
    """Divide advantages by the group's standard deviation (plain GRPO; the paper does not)."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Clipping of the policy ratio."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.grad_clip <= 0:
            raise ConfigError("learner: learning_rate and grad_clip must be above 0")
        if self.weight_decay < 0 or not 0 <= self.beta2 < 1:
            raise ConfigError("learner: need weight_decay >= 0 and 0 <= beta2 < 1")
        if self.num_minibatches < 1 or self.micro_batch_tokens < 1:
            raise ConfigError("learner: num_minibatches and micro_batch_tokens must be at least 1")


class Learner:
    """Owns the optimizer of a policy's trainable weights."""

    def __init__(self, policy: Policy, config: LearnerConfig, temperature: float) -> None:
        self.policy = policy
        self.config = config
        self.temperature = temperature
        self.masters = Masters(policy.model.named_parameters())
        self.parameters = [parameter for _, parameter in self.masters.named]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
        )

    def update(self, samples: Sequence[Sample], seed: int) -> dict[str, float]:
        """One pass over the samples in `num_minibatches` optimizer updates; returns metrics.

        The shuffle that cuts the mini-batches depends on `seed` alone.
        """
        order = list(samples)
        random.Random(seed).shuffle(order)
        size = math.ceil(len(order) / self.config.num_minibatches)
        totals = _Totals()
        for start in range(0, len(order), size):
            self._update_minibatch(order[start : start + size], totals)
        self.policy.weights_changed()
        return totals.metrics()

    def save(self, folder: Path) -> None:
        """Write the weights in Hugging Face layout and the optimizer's state beside them."""
        self.policy.write(folder)
        state = {"optimizer": self.optimizer.state_dict(), "masters": self.masters.state()}
        torch.save(state, folder / OPTIMIZER_FILE)

    def load(self, folder: Path) -> None:
        """Go back to what `save` wrote."""
        self.policy.read(folder)
        # The optimizer copies its state to where its weights lie, but for the step counts.
        state = torch.load(folder / OPTIMIZER_FILE, map_location="cpu")
        self.optimizer.load_state_dict(state["optimizer"])
        self.masters.load(state["masters"])

    def _update_minibatch(self, samples: Sequence[Sample], totals: _Totals) -> None:
        num_tokens = sum(sample.num_loss_tokens for sample in samples)
        self.optimizer.zero_grad()
        size, image_pad_id = self.config.micro_batch_tokens, self.policy.codec.image_pad_id
        for part in split_by_tokens(samples, size, image_pad_id):
            batch = collate(part, self.policy.pad_id, self.policy.device)
            logprobs_BT, entropy_BT = self.policy.token_logprobs(
                batch.token_ids_BT,
                batch.attention_mask_BT,
                batch.loss_mask_BT,
                batch.images,
                self.temperature,
            )
            parts = policy_loss(logprobs_BT, batch, self.config.loss)
            (parts.loss / num_tokens).backward()
            self.masters.take_gradients()
            totals.loss += float(parts.loss.detach())
            totals.clipped += float(parts.clipped)
            totals.kl += float(parts.kl)
            totals.entropy += float((entropy_BT * batch.loss_mask_BT).sum().detach())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.masters.give_weights()
        totals.skipped += not bool(torch.isfinite(norm))
        totals.tokens += num_tokens
        totals.norms.append(float(norm))


@dataclass
class _Totals:
    """Sums over the tokens of one step."""

    loss: float = 0.0
    clipped: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0
    tokens: int = 0
    skipped: int = 0
    norms: list[float] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        return {
            "loss/policy": self.loss / self.tokens,
            "loss/clip_frac": self.clipped / self.tokens,
            "loss/sampler_kl": self.kl / self.tokens,
            "loss/entropy": self.entropy / self.tokens,
            "loss/num_tokens": float(self.tokens),
            "learner/grad_norm": sum(self.norms) / len(self.norms),
            "learner/skipped_updates": float(self.skipped),
        }
