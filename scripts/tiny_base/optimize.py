"""How both stages are optimised: Muon for the matrices, AdamW for the rest, a late decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

_WARM_UP_STEPS = 30


def muon_and_adamw(
    matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], lr: float
) -> list[torch.optim.Optimizer]:
    """The pair of optimizers, at one learning rate (Muon's update is scaled to AdamW's size)."""
    muon = torch.optim.Muon(
        matrices, lr=lr, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adamw]


def scheduled_lr(peak_lr: float, step: int, num_steps: int) -> float:
    """Linear warm-up, constant, linear decay to 1 % over the last half (steps count from 1)."""
    return peak_lr * min(1, step / _WARM_UP_STEPS, max(0.01, 2 * (1 - step / num_steps)))


def take_step(loss: torch.Tensor, optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    """One update of all parameters, with their joint gradient norm clipped at 1."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
    for group in groups:
        group["lr"] = lr
    for optimizer in optimizers:
        optimizer.step()
