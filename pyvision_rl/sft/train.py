"""The cold start: one pass or more over traces, cross-entropy on what the assistant writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from pyvision_rl.errors import ConfigError
from pyvision_rl.model.batch import Sample, collate, split_by_tokens
from pyvision_rl.model.masters import Masters
from pyvision_rl.model.policy import Policy
from pyvision_rl.sft.data import epoch_batches


@dataclass(frozen=True)
class SFTTrainConfig:
    """Optimizer and schedule of the cold start."""

    num_epochs: float = 1.0
    """Passes over the traces."""
    batch_size: int = 32
    """Traces per optimizer update."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon on the matrices of the language model, AdamW on the rest."""
    learning_rate: float = 1e-5
    """Peak learning rate."""
    warmup_steps: int = 10
    """Steps of linear warm-up; then the rate falls linearly."""
    final_rate: float = 0.1
    """Last learning rate as a share of the peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    micro_batch_tokens: int = 32768
    """Tokens in one forward pass, into which traces are packed without padding; the loss does not
    depend on it."""

    def __post_init__(self) -> None:
        if self.num_epochs <= 0 or self.batch_size < 1 or self.micro_batch_tokens < 1:
            raise ConfigError("sft: num_epochs, batch_size and micro_batch_tokens must be above 0")
        if self.grad_clip <= 0 or self.weight_decay < 0:
            raise ConfigError("sft: need grad_clip > 0 and weight_decay >= 0")
        if self.learning_rate <= 0 or not 0 <= self.final_rate <= 1 or self.warmup_steps < 0:
            raise ConfigError(
                "sft: need learning_rate > 0, 0 <= final_rate <= 1 and warmup_steps >= 0"
            )


def num_steps(num_samples: int, config: SFTTrainConfig) -> int:
    """Optimizer updates that the passes take."""
    return max(1, math.ceil(math.ceil(num_samples / config.batch_size) * config.num_epochs))


def rate_at(step: int, total: int, config: SFTTrainConfig) -> float:
    """Learning rate of step 1 ... total, as a share of the peak."""
    warm = min(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0
    return warm * max(config.final_rate, 1 - (step - 1) / total)


def train(
    policy: Policy,
    samples: Sequence[Sample],
    config: SFTTrainConfig,
    seed: int,
    log: Callable[[int, dict[str, float]], None],
) -> None:
    """Train the policy in place; `log(step, metrics)` is called after every update."""
    masters = Masters(policy.model.named_parameters())
    optimizers = _optimizers(masters, config)
    total = num_steps(len(samples), config)
    for step, rows in enumerate(_batches(samples, config, seed, total), start=1):
        rate = rate_at(step, total, config)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate
        metrics = _update(policy, masters, optimizers, rows, config)
        policy.weights_changed()
        log(step, {**metrics, "learner/learning_rate": config.learning_rate * rate})


def _batches(
    samples: Sequence[Sample], config: SFTTrainConfig, seed: int, total: int
) -> Iterator[list[Sample]]:
    done = 0
    epoch = 0
    while True:
        for rows in epoch_batches(len(samples), config.batch_size, seed, epoch):
            yield [samples[index] for index in rows]
            done += 1
            if done == total:
                return
        epoch += 1


def _update(
    policy: Policy,
    masters: Masters,
    optimizers: Sequence[torch.optim.Optimizer],
    rows: Sequence[Sample],
    config: SFTTrainConfig,
) -> dict[str, float]:
    num_tokens = sum(sample.num_loss_tokens for sample in rows)
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss = 0.0
    for part in split_by_tokens(rows, config.micro_batch_tokens, policy.codec.image_pad_id):
        batch = collate(part, policy.pad_id, policy.device)
        logprobs_BT, _ = policy.token_logprobs(
            batch.token_ids_BT,
            batch.attention_mask_BT,
            batch.loss_mask_BT,
            batch.images,
            temperature=1.0,
        )
        part_loss = -(logprobs_BT * batch.loss_mask_BT).sum() / num_tokens
        part_loss.backward()
        masters.take_gradients()
        loss += float(part_loss.detach())
    norm = torch.nn.utils.clip_grad_norm_([p for _, p in masters.named], config.grad_clip)
    is_finite = bool(torch.isfinite(norm))
    if is_finite:
        for optimizer in optimizers:
            optimizer.step()
        masters.give_weights()
    return {
        "loss/sft": loss,
        "loss/num_tokens": num_tokens,
        "learner/grad_norm": float(norm),
        "learner/skipped_updates": float(not is_finite),
    }


def _optimizers(masters: Masters, config: SFTTrainConfig) -> list[torch.optim.Optimizer]:
    named = masters.named
    adamw = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return [torch.optim.AdamW([p for _, p in named], **adamw)]
    matrices = [p for name, p in named if _is_language_matrix(name, p)]
    others = [p for name, p in named if not _is_language_matrix(name, p)]
    muon = torch.optim.Muon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    if not others:
        return [muon]
    return [muon, torch.optim.AdamW(others, betas=(0.9, 0.98), **adamw)]


def _is_language_matrix(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim == 2 and "layers." in name and "visual" not in name
