"""Where one RL step spends its CPU time, and how far it is from matrix products alone.

`python benchmarks/step_profile.py` gives the shipped base its cold start (about two minutes), then
runs steps of the tiny recipe, 16 groups of 8 in the real sandbox; what the steps after the first
took is shown. `--policy FOLDER` takes a policy that is trained already. The limit is the time of
the products of the language model's layers for every token that was sampled, given or learned from,
at the speed that this core reaches on large ones.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from made.parts import Parts, children_cpu_s
from made.tiny_run import tiny_rl

from pyvision_rl.model.decode import Decoder
from pyvision_rl.model.pack import Pack
from pyvision_rl.model.policy import Policy
from pyvision_rl.model.row import Row
from pyvision_rl.model.vision import Vision
from pyvision_rl.rl import select, train
from pyvision_rl.rl.config import RLConfig
from pyvision_rl.rl.learner import Learner
from pyvision_rl.runs import RunFolder

PARTS = {
    "decoding": "what the policy writes, token by token",
    "prefill": "prompts and what calls showed",
    "vision": "features of images",
    "cells": "the sandbox's processes",
    "update": "forward, backward, optimizer",
    "selection": "filter, rank, samples, metrics",
    "record": "trajectories as Parquet",
    "the rest": "event loop: episodes, rewards, images in and out of cells",
}
FORWARD_AND_BACKWARD = 3
"""Products of a forward and a backward pass by those of a forward pass alone."""


class Account:
    """CPU seconds by part, and tokens that went through the language model by part."""

    def __init__(self) -> None:
        self.parts = Parts()
        self.tokens: Counter[str] = Counter()
        for name in ("step", "advance"):
            self.parts.watch(Decoder, name, "decoding")
        self.parts.watch(Decoder, "join", "prefill")
        self.parts.watch(Vision, "features", "vision")
        self.parts.watch(Learner, "update", "update")
        self.parts.watch(select, "select", "selection")
        self.parts.watch(train, "make_samples", "selection")
        self.parts.watch(train, "rollout_metrics", "selection")
        self.parts.watch(RunFolder, "write_groups", "record")
        self._count(Decoder, "advance", "decoding", _num_rows)
        self._count(Decoder, "_prefill", "prefill", _num_new)
        self._count(Policy, "_branches", "update", _num_packed)

    def _count(self, owner: type, name: str, part: str, count: Callable[..., int]) -> None:
        plain: Callable[..., object] = getattr(owner, name)

        def counted(*args: object) -> object:
            self.tokens[part] += count(*args)
            return plain(*args)

        setattr(owner, name, counted)

    def seconds(self) -> dict[str, float]:
        """All that was spent so far."""
        spent = {part: self.parts.seconds[part] for part in PARTS}
        spent["the rest"] = time.process_time() - sum(spent.values())
        spent["cells"] = children_cpu_s()
        return spent


def _num_rows(decoder: Decoder) -> int:
    return len(decoder.rows)


def _num_new(_: Decoder, __: int, rows: Sequence[Row]) -> int:
    return sum(len(row.token_ids) - row.length for row in rows)


def _num_packed(_: Policy, pack: Pack) -> int:
    return pack.tree.num_nodes


def second_per_token(config: RLConfig) -> float:
    """Of the products of the layers' weights, forward, as fast as this core multiplies."""
    layers = Policy.load(config.policy).model.model.language_model.layers
    weights = sum(m.weight.numel() for m in layers.modules() if isinstance(m, torch.nn.Linear))
    one, other = torch.randn(2048, 512), torch.randn(512, 512)
    times = []
    for _ in range(20):
        start = time.process_time()
        one @ other
        times.append(time.process_time() - start)
    return min(times) / (2048 * 512 * 512) * weights


def profile(config: RLConfig) -> tuple[dict[str, float], Counter[str], int]:
    """CPU seconds, and tokens, by part, of the steps after the first; and how many these are."""
    account = Account()
    seen: list[tuple[dict[str, float], Counter[str]]] = []

    def on_step(step: int, _: Mapping[str, float]) -> None:
        seen.append((account.seconds(), account.tokens.copy()))
        print(f"step {step}", flush=True)

    asyncio.run(train.train(config, on_step))
    (first_s, first_tokens), (last_s, last_tokens) = seen[0], seen[-1]
    spent = {part: last_s[part] - first_s[part] for part in PARTS}
    return spent, last_tokens - first_tokens, len(seen) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", help="folder of a policy that is trained already")
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = tiny_rl(Path(folder), options.policy, options.steps)
        seconds, tokens, steps = profile(config)
        product_s = second_per_token(config)
    whole = sum(seconds.values())
    tokens["update"] *= FORWARD_AND_BACKWARD
    print(f"{'part':<12}{'CPU s a step':>14}{'share':>8}{'limit s':>9}")
    for part, what in PARTS.items():
        spent = seconds[part]
        limit = f"{tokens[part] * product_s / steps:.2f}" if tokens[part] else ""
        print(f"{part:<12}{spent / steps:>14.2f}{spent / whole:>8.0%}{limit:>9}  {what}")
    limit_s = tokens.total() * product_s
    print(f"{'a step':<12}{whole / steps:>14.2f}{1:>8.0%}{limit_s / steps:>9.2f}")
    for part in ("decoding", "prefill", "update"):
        share = tokens[part] * product_s / seconds[part]
        print(f"RATIO | step: {part} | its matrix products | {share:.2f}")
    print(f"RATIO | step: all of it | its matrix products | {limit_s / whole:.2f}")


if __name__ == "__main__":
    main()
