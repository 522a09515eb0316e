"""What `--dry_run` says of memory beside what a process really needs, on a CPU.

`python benchmarks/memory_estimate.py` builds a random Qwen2.5-VL of 72 million parameters, large
enough that the interpreter does not matter, updates it twice in a process of its own per setting,
and prints estimate and measured peak (of the resident set, above that before the model was there).
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pyvision_rl.model.batch import Sample
from pyvision_rl.model.lora import LoRAConfig
from pyvision_rl.model.memory import Workload, estimate_memory
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.model.tiny import tiny_config, train_tokenizer
from pyvision_rl.rl.learner import Learner, LearnerConfig

TOKENS = 2048
CORPUS = ["find the red tag, which digit is on it? plt.imshow(image_clue_0.crop()) </code>"]


@dataclass(frozen=True)
class Setting:
    name: str
    rank: int = 0
    gradient_checkpointing: bool = False
    common: int = 0
    """First tokens that all rows have in common."""

    def policy(self, folder: Path) -> PolicyConfig:
        return PolicyConfig(
            str(folder),
            lora=LoRAConfig(self.rank),
            gradient_checkpointing=self.gradient_checkpointing,
            feature_cache_mb=0,
        )


SETTINGS = (
    Setting("all weights"),
    Setting("all weights, checkpointing", gradient_checkpointing=True),
    Setting("LoRA", rank=16),
    Setting("LoRA, checkpointing", rank=16, gradient_checkpointing=True),
    Setting("all weights, 3/4 in common", common=384),
)


def make_checkpoint(folder: Path) -> None:
    tokenizer = train_tokenizer(CORPUS, 450)
    config = tiny_config(tokenizer).to_dict()
    config["text_config"] |= {
        "vocab_size": 8192,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [8, 12, 12],
        },
    }
    del config["text_config"]["layer_types"]
    config["vision_config"]["out_hidden_size"] = 768
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_rows(policy: Policy, common: int) -> list[Sample]:
    """Rows of 512 tokens for two micro-batches."""
    words = policy.codec.encode_completion(CORPUS[0])[0][:-1]
    rng = random.Random(0)
    length = TOKENS // 4
    first = rng.choices(words, k=common)
    return [
        Sample(
            (*first, *rng.choices(words, k=length - common)),
            (0,) + (1,) * (length - 1),
            (-6.0,) * length,
            float(rng.choice((-1, 1))),
            (),
        )
        for _ in range(2 * (TOKENS - common) // (length - common))
    ]


def measure_mb(policy_config: PolicyConfig, common: int) -> float:
    """Peak of two updates, each on two micro-batches."""
    torch.set_num_threads(1)
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    learner = Learner(
        Policy.load(policy_config), LearnerConfig(micro_batch_tokens=TOKENS), temperature=1.0
    )
    rows = make_rows(learner.policy, common)
    for seed in range(2):
        learner.update(rows, seed)
    peak_kb = next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return (peak_kb * 1024 - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", nargs=2, metavar=("SETTING", "FOLDER"))
    options = parser.parse_args()
    if options.measure:
        name, folder = options.measure
        setting = next(setting for setting in SETTINGS if setting.name == name)
        print(measure_mb(setting.policy(Path(folder)), setting.common))
        return
    # Freed memory goes back at once, as on a device; else the heap keeps what it had at its worst.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder))
        print(f"{'setting':<30}{'estimate MB':>12}{'measured MB':>12}{'ratio':>8}")
        for setting in SETTINGS:
            work = Workload(train_tokens=TOKENS)
            estimate = estimate_memory(setting.policy(Path(folder)), work).total / 2**20
            command = [sys.executable, __file__, "--measure", setting.name, folder]
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            measured = float(done.stdout.split()[-1])
            print(
                f"{setting.name:<30}{estimate:>12.0f}{measured:>12.0f}{estimate / measured:>8.2f}"
            )
            ratio = f"{estimate / measured:.2f}"
            print(f"RATIO | memory: estimate, {setting.name} | measured peak | {ratio}")


if __name__ == "__main__":
    main()
