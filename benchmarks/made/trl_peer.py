"""TRL's GRPOTrainer on rows that are ready: no generation, no reward, updates alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from pyvision_rl.model.batch import Sample
from pyvision_rl.model.inputs import make_patches
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.model.policy import Policy

Inputs = dict[str, torch.Tensor | list[int]]


class ReadyTrainer(GRPOTrainer):
    """Takes micro-batches that are made already, in turn."""

    ready: Sequence[Inputs] = ()
    calls = 0

    def _prepare_inputs(self, generation_batch: object) -> Inputs:
        del generation_batch
        self.calls += 1
        return self.ready[(self.calls - 1) % len(self.ready)]


class Clock(TrainerCallback):
    """CPU seconds of each optimizer update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.seconds.append(-time.process_time())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.seconds[-1] += time.process_time()


def micro_batches(policy: Policy, rows: Sequence[Sample], size: int) -> Iterator[Inputs]:
    """Rows as TRL hands them from step to step: prompts padded on the left, the rest on the right,
    and the patches of all images of each row.
    """
    num_items = torch.tensor(sum(row.num_loss_tokens for row in rows))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        cuts = [row.loss_mask.index(1) for row in part]
        most = max(cuts)
        prompts = [row.token_ids[:cut] for row, cut in zip(part, cuts, strict=True)]
        rests = [slice(cut, None) for cut in cuts]
        inputs: Inputs = {
            "prompt_ids": torch.tensor([(0,) * (most - len(ids)) + ids for ids in prompts]),
            "prompt_mask": torch.tensor([[0] * (most - cut) + [1] * cut for cut in cuts]),
            "completion_ids": _padded([r.token_ids[s] for r, s in zip(part, rests, strict=True)]),
            "completion_mask": _padded(
                [(1,) * len(r.token_ids[s]) for r, s in zip(part, rests, strict=True)]
            ),
            "tool_mask": _padded([r.loss_mask[s] for r, s in zip(part, rests, strict=True)]),
            "old_per_token_logps": _padded(
                [r.logprobs[s] for r, s in zip(part, rests, strict=True)]
            ),
            "advantages": torch.tensor([row.advantage for row in part]),
            "num_items_in_batch": num_items,
        }
        yield inputs | _images(policy, part, inputs)


def _images(policy: Policy, part: Sequence[Sample], inputs: Inputs) -> Inputs:
    images = [image for row in part for image in row.images]
    if not images:
        return {}
    pixels, grids = make_patches(policy.vision.processor, images)
    prompt, rest = inputs["prompt_ids"], inputs["completion_ids"]
    assert isinstance(prompt, torch.Tensor)
    assert isinstance(rest, torch.Tensor)
    return {
        "pixel_values": pixels,
        "image_grid_thw": grids,
        "num_images": [len(row.images) for row in part],
        "mm_token_type_ids": (torch.cat([prompt, rest], 1) == policy.codec.image_pad_id).int(),
    }


def _padded(values: Sequence[Sequence[float]]) -> torch.Tensor:
    length = max(map(len, values))
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in values])


def update_s(policy: Policy, rows: Sequence[Sample], size: int, num_updates: int) -> float:
    """CPU seconds of one update by micro-batches of `size` rows, after one to warm up."""
    folder = checkpoint_folder(policy.config.model)
    parts = list(micro_batches(policy, rows, size))
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        trainer = ReadyTrainer(
            model=Qwen2_5_VLForConditionalGeneration.from_pretrained(folder),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=Dataset.from_dict({"prompt": ["find"] * 512}),
            callbacks=[clock],
            args=_arguments(Path(out), size, len(parts), num_updates + 1),
        )
        trainer.ready = parts
        trainer.model.model.visual.requires_grad_(False)
        trainer.train()
    return sum(clock.seconds[1:]) / num_updates


def _arguments(out: Path, size: int, num_parts: int, num_steps: int) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=num_parts,
        num_generations=8,
        max_steps=num_steps,
        learning_rate=1e-6,
        beta=0.0,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
