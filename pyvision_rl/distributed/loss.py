"""Our loss as the function that verl's workers call on a micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from verl.utils.metric import Metric
from verl.workers.utils.padding import no_padding_2_padding

from pyvision_rl.model.batch import Batch
from pyvision_rl.rl.loss import LossConfig, policy_loss


class LossFunction(Protocol):
    """What a worker calls with the model's output and the rows of a micro-batch."""

    def __call__(
        self, *, model_output: Mapping[str, Tensor], data: Mapping[str, Tensor], dp_group: object
    ) -> tuple[Tensor, dict[str, Metric]]:
        """The loss to be differentiated, and the metrics."""
        ...


def loss_function(config: LossConfig) -> LossFunction:
    """The loss with its bounds, ready to be sent to the workers."""
    return partial(micro_batch_loss, config)


def micro_batch_loss(
    config: LossConfig,
    *,
    model_output: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
    dp_group: object = None,
) -> tuple[Tensor, dict[str, Metric]]:
    """The clipped surrogate of a micro-batch, divided by the tokens of the whole mini-batch.

    verl averages gradients and sums over ranks, hence the factor. Metrics are sums over tokens;
    `probs_diff_max` is the largest difference between the probability of a token as it was sampled
    and as it is now.
    """
    responses = {name: _padded(data[name]) for name in ("response_mask", "rollout_log_probs")}
    mask_BT = responses["response_mask"]
    logprobs_BT = no_padding_2_padding(model_output["log_probs"], data)
    batch = Batch(
        token_ids_BT=_padded(data["responses"]),
        attention_mask_BT=mask_BT,
        loss_mask_BT=mask_BT,
        logprobs_BT=responses["rollout_log_probs"],
        advantages_B=data["advantages"],
        images=(),
    )
    parts = policy_loss(logprobs_BT, batch, config)
    with torch.no_grad():
        entropy_BT = no_padding_2_padding(model_output["entropy"], data)
        moved_BT = (logprobs_BT.exp() - batch.logprobs_BT.exp()).abs() * mask_BT
    ranks = data["dp_size"]
    sums = {
        "policy": parts.loss.detach(),
        "clipped": parts.clipped,
        "kl": parts.kl,
        "entropy": (entropy_BT * mask_BT).sum(),
    }
    metrics = {name: Metric("sum", float(value) * ranks) for name, value in sums.items()}
    metrics["probs_diff_max"] = Metric("max", float(moved_BT.max()))
    return parts.loss * ranks / data["batch_num_tokens"], metrics


def _padded(rows: Tensor) -> Tensor:
    """Rows [B, T] padded with 0."""
    return rows.to_padded_tensor(0) if rows.is_nested else rows
