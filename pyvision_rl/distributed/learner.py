"""verl's workers as the learner of our loop: rows out, metrics and checkpoints back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from transfer_queue import KVBatchMeta
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from pyvision_rl.distributed.config import DistributedConfig
from pyvision_rl.distributed.loss import loss_function
from pyvision_rl.distributed.rows import Row, make_rows
from pyvision_rl.errors import InputError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.codec import ChatCodec

SHARDS = "verl"
"""Folder in a checkpoint with what each of verl's ranks saved."""
HUGGING_FACE = "huggingface"
"""Folder in which verl writes the whole weights."""
QUEUE = "train"


class Trainer(PPOTrainerSync):
    """Starts verl's workers and samplers, and updates them; which rows, and when, is our loop's."""

    def _init_dataloader(self) -> None:
        """Tasks come from our own stream; verl only has to know how long its schedule is."""
        steps = self.config.trainer.total_training_steps
        with open_dict(self.config):
            self.config.actor_rollout_ref.actor.optim.total_training_steps = steps

    def _load_checkpoint(self) -> None:
        """Our loop says when to load what."""
        self.global_steps = 0

    @property
    def num_ranks(self) -> int:
        """Ranks that get rows of their own."""
        return max(self.actor_rollout_wg._query_dispatch_info("actor")) + 1

    def update(self, rows: Sequence[Row], num_minibatches: int) -> Mapping[str, float]:
        """One pass over the rows in equal mini-batches; samplers sleep meanwhile."""
        metrics: dict[str, float] = {}
        self.global_steps += 1
        self.checkpoint_manager.sleep_replicas()
        batch = _send(rows)
        with open_dict(self.config):
            self.config.actor_rollout_ref.actor.ppo_mini_batch_size = len(rows) // num_minibatches
        batch = self._balance_batch(batch, metrics)
        self._update_actor(batch, metrics)
        tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
        self.wake_samplers()
        return metrics

    def wake_samplers(self) -> None:
        """Give the samplers the weights as they are now."""
        self.checkpoint_manager.update_weights(self.global_steps)

    def save(self, folder: Path) -> None:
        """Every rank writes its shard, and the first one the whole weights; all see the folder."""
        self.actor_rollout_wg.save_checkpoint(str(folder.resolve()), None, self.global_steps)

    def load(self, folder: Path) -> None:
        """Every rank reads its shard."""
        self.checkpoint_manager.sleep_replicas()
        self.actor_rollout_wg.load_checkpoint(str(folder.resolve()))
        self.wake_samplers()


class VerlLearner:
    """What our loop calls a learner, on top of verl's workers."""

    def __init__(self, config: DistributedConfig, verl_config: DictConfig) -> None:
        self.config = config
        self.trainer = Trainer(verl_config)
        self.trainer.init()
        self.trainer.actor_rollout_wg.set_loss_fn(loss_function(config.learner.loss))
        self.codec = ChatCodec(self.trainer.tokenizer, config.policy.pixels)

    def update(self, samples: Sequence[Sample], seed: int) -> dict[str, float]:
        """One pass over the samples in `num_minibatches` optimizer updates; returns metrics."""
        minibatches = self.config.learner.num_minibatches
        multiple = self.trainer.num_ranks * minibatches
        rows = make_rows(samples, self.codec.image_pad_id, multiple, seed)
        found = self.trainer.update(rows, minibatches)
        tokens = sum(sample.num_loss_tokens for sample in samples)
        return _metrics(found, tokens / minibatches) | {"loss/num_tokens": float(tokens)}

    def save(self, folder: Path) -> None:
        """Write the weights in Hugging Face layout, and below them what each rank needs."""
        shards = folder / SHARDS
        self.trainer.save(shards)
        for path in (shards / HUGGING_FACE).iterdir():
            path.rename(folder / path.name)
        (shards / HUGGING_FACE).rmdir()
        pixels = self.config.policy.pixels
        Qwen2VLImageProcessorPil(
            min_pixels=pixels.min_pixels, max_pixels=pixels.max_pixels
        ).save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Go back to what `save` wrote. Raises InputError where another number of GPUs wrote it."""
        gpus = self.config.verl.num_nodes * self.config.verl.gpus_per_node
        shards = folder / SHARDS
        if not (shards / f"model_world_size_{gpus}_rank_0.pt").is_file():
            raise InputError(
                f"{shards}: not written by {gpus} GPUs; resume with as many as before, or start "
                f"a new run from policy.model={folder}"
            )
        self.trainer.load(shards)


def _send(rows: Sequence[Row]) -> KVBatchMeta:
    """Put rows where verl's workers fetch them."""
    return tq.kv_batch_put(
        keys=[row.key for row in rows],
        partition_id=QUEUE,
        fields=list_of_dict_to_tensordict([row.fields for row in rows]),
        tags=[dict(row.tags) for row in rows],
    )


def _metrics(found: Mapping[str, float], tokens: float) -> dict[str, float]:
    """verl's metrics under our names; `tokens`: of a mini-batch, on average."""
    norm = float(found["actor/grad_norm"])
    return {
        "loss/policy": float(found["actor/policy"]) / tokens,
        "loss/clip_frac": float(found["actor/clipped"]) / tokens,
        "loss/sampler_kl": float(found["actor/kl"]) / tokens,
        "loss/entropy": float(found["actor/entropy"]) / tokens,
        "loss/probs_diff_max": float(found["actor/probs_diff_max"]),
        "learner/grad_norm": norm,
        "learner/skipped_updates": float(not math.isfinite(norm)),
        "verl/mfu": float(found["perf/mfu/actor"]),
        "verl/memory_gb": float(found["actor/perf/max_memory_allocated_gb"]),
    }
