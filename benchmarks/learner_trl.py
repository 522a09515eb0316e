"""Our learner beside TRL's GRPOTrainer: the same model, the same tokens, one optimizer update each.

`python benchmarks/learner_trl.py` needs `pip install 'trl==1.16.0'`; without it only our own
numbers are printed. Rows are conversations of 150 to 420 tokens, text only, of which a third is
sampled; TRL is given them ready (no generation is timed) at several micro-batch sizes, and its
fastest counts. Then: CPU and memory of an update as the trajectories of a step grow.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from pyvision_rl.model.batch import Sample
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.tiny import tiny_config, train_tokenizer
from pyvision_rl.rl.learner import Learner, LearnerConfig

CORPUS = ["find the red tag, which digit is on it? plt.imshow(image_clue_0.crop()) </code>"]
PROMPT = 100
UPDATES = 4


def make_checkpoint(folder: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, 450)
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_rows(policy: Policy, count: int) -> list[Sample]:
    """Prompt, then a sampled, an observed and a sampled part, as an episode with one call has."""
    rng = random.Random(0)
    words = policy.codec.encode_completion(CORPUS[0])[0][:-1]
    rows = []
    for _ in range(count):
        written, seen, answer = rng.randint(30, 60), rng.randint(10, 220), rng.randint(10, 40)
        mask = (0,) * PROMPT + (1,) * written + (0,) * seen + (1,) * answer
        ids = tuple(rng.choices(words, k=len(mask)))
        logprobs = tuple(-6.0 * sampled for sampled in mask)
        rows.append(Sample(ids, mask, logprobs, rng.choice((-0.5, 0.5)), ()))
    return rows


def time_ours(policy: Policy, rows: Sequence[Sample]) -> float:
    """CPU seconds of one update, after one to warm up."""
    learner = Learner(policy, LearnerConfig(micro_batch_tokens=2048), temperature=1.0)
    learner.update(rows, seed=0)
    start = time.process_time()
    for seed in range(UPDATES):
        learner.update(rows, seed)
    return (time.process_time() - start) / UPDATES


def time_trl(folder: Path, rows: Sequence[Sample], size: int) -> float:
    """CPU seconds of one update by micro-batches of `size` rows, after one to warm up."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    def padded(values: list[list[float]], dtype: torch.dtype) -> torch.Tensor:
        length = max(map(len, values))
        return torch.tensor([v + [0] * (length - len(v)) for v in values], dtype=dtype)

    parts = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        sampled = padded([list(row.loss_mask[PROMPT:]) for row in part], torch.long)
        tokens = padded([list(row.token_ids[PROMPT:]) for row in part], torch.long)
        real = padded([[1] * (len(row.token_ids) - PROMPT) for row in part], torch.long)
        parts.append(
            {
                "prompt_ids": torch.tensor([row.token_ids[:PROMPT] for row in part]),
                "prompt_mask": torch.ones(len(part), PROMPT, dtype=torch.long),
                "completion_ids": tokens,
                "completion_mask": real,
                "tool_mask": sampled,
                "advantages": torch.tensor([row.advantage for row in part]),
                "old_per_token_logps": padded(
                    [list(row.logprobs[PROMPT:]) for row in part], torch.float
                ),
                "num_items_in_batch": torch.tensor(sum(row.num_loss_tokens for row in rows)),
            }
        )
    marks: list[float] = []

    class Ready(GRPOTrainer):
        calls = 0

        def _prepare_inputs(self, generation_batch: object) -> dict[str, torch.Tensor]:
            self.calls += 1
            return parts[(self.calls - 1) % len(parts)]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            marks.append(-time.process_time())

        def on_step_end(self, *_: object, **__: object) -> None:
            marks[-1] += time.process_time()

    with tempfile.TemporaryDirectory() as out:
        trainer = Ready(
            model=Qwen2_5_VLForConditionalGeneration.from_pretrained(folder),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            train_dataset=Dataset.from_dict({"prompt": ["find"] * 512}),
            callbacks=[Clock()],
            args=GRPOConfig(
                output_dir=out,
                use_cpu=True,
                bf16=False,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=len(parts),
                num_generations=8,
                max_steps=UPDATES + 1,
                learning_rate=1e-6,
                beta=0.0,
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
        )
        trainer.model.model.visual.requires_grad_(False)
        trainer.train()
    return sum(marks[1:]) / UPDATES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--most", type=int, default=1024, help="largest number of trajectories")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(folder)
        policy = Policy.load(PolicyConfig(str(folder)))
        rows = make_rows(policy, options.rows)
        tokens = sum(len(row.token_ids) for row in rows)
        ours = time_ours(policy, rows)
        print(f"{len(rows)} rows, {tokens} tokens: {len(rows) / ours:.0f} rows per CPU second")
        if importlib.util.find_spec("trl") is None:
            print("TRL is not installed: pip install 'trl==1.16.0' to compare")
        else:
            times = {size: time_trl(folder, rows, size) for size in (8, 16, 64)}
            for size, seconds in times.items():
                print(f"TRL by {size} rows: {len(rows) / seconds:.0f} rows per CPU second")
            ratio = min(times.values()) / ours
            print(f"RATIO | learner: CPU of an update | TRL 1.16 | {ratio:.2f}")
        size = 64
        while size <= options.most:
            many = make_rows(policy, size)
            each_ms = time_ours(policy, many) / size * 1e3
            memory = psutil.Process().memory_info().rss / 2**20
            print(f"{size} trajectories a step: {each_ms:.2f} ms CPU each, {memory:.0f} MB in all")
            size *= 4


if __name__ == "__main__":
    main()
