"""CPU and memory of an RL step as its trajectories grow from 64 to 1,024.

`python benchmarks/growth.py` runs steps of the tiny recipe in which every group is kept and trained
on, each size in a process of its own, from the shipped base after its cold start (about two
minutes; `--policy FOLDER` takes a policy that is trained already). CPU is that of the process and
its sandbox, of the steps after the first; memory is the most that the process had to itself, and
all of its sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from made.parts import Parts, children_cpu_s
from made.tiny_run import cold_start, tiny_rl

from pyvision_rl.rl.learner import Learner
from pyvision_rl.rl.train import train

SIZES = (64, 256, 1024)
GROUP_SIZE = 8
NUM_STEPS = 3
POLL_S = 0.5


@dataclass(frozen=True)
class Measured:
    """Of one size: CPU milliseconds a trajectory, and MB of process and sandbox."""

    rollout_ms: float
    update_ms: float
    process_mb: float
    sandbox_mb: float


def run_steps(policy: str, size: int) -> None:
    """Print CPU seconds of all steps but the first, and of their updates."""
    torch.set_num_threads(1)
    parts = Parts()
    parts.watch(Learner, "update", "update")
    seen: list[tuple[float, float]] = []

    def on_step(_: int, __: Mapping[str, float]) -> None:
        seen.append((time.process_time() + children_cpu_s(), parts.seconds["update"]))

    groups = str(size // GROUP_SIZE)
    every = ("--select.oversample", groups, "--select.num_groups", groups)
    kept = ("--select.drop_constant", "false", "--select.drop_stops", "[]")
    with tempfile.TemporaryDirectory() as folder:
        config = tiny_rl(Path(folder), policy, NUM_STEPS, *every, *kept)
        asyncio.run(train(config, on_step))
    print("CPU", seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1])


def measure(policy: str, size: int) -> Measured:
    """Run the steps in a process of their own and watch its memory."""
    command = [sys.executable, __file__, "--policy", policy, "--size", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        tree = psutil.Process(process.pid)
        own, sandbox = 0.0, 0.0
        while process.poll() is None:
            own = max(own, _own_mb(tree))
            sandbox = max(sandbox, sum(map(_own_mb, _children(tree))))
            time.sleep(POLL_S)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    words = next(line.split() for line in lines if line.startswith("CPU"))
    whole, update = float(words[1]), float(words[2])
    count = (NUM_STEPS - 1) * size / 1e3
    return Measured((whole - update) / count, update / count, own, sandbox)


def _children(tree: psutil.Process) -> list[psutil.Process]:
    try:
        return tree.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _own_mb(process: psutil.Process) -> float:
    """Memory that only this process has."""
    try:
        return process.memory_full_info().uss / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", help="folder of a policy that is trained already")
    parser.add_argument("--size", type=int, help="run this size alone, in this process")
    options = parser.parse_args()
    if options.size:
        run_steps(options.policy, options.size)
        return
    with tempfile.TemporaryDirectory() as folder:
        policy = options.policy or cold_start(Path(folder))
        found = {size: measure(policy, size) for size in SIZES}
    names = ("trajectories", "rollout ms", "update ms", "process MB", "sandbox MB")
    print("".join(f"{name:>14}" for name in names))
    for size, m in found.items():
        print(
            f"{size:>14}{m.rollout_ms:>14.1f}{m.update_ms:>14.1f}"
            f"{m.process_mb:>14.0f}{m.sandbox_mb:>14.0f}"
        )
    first, last = found[SIZES[0]], found[SIZES[-1]]
    gain = (first.rollout_ms + first.update_ms) / (last.rollout_ms + last.update_ms)
    print(f"RATIO | step: CPU a trajectory at {SIZES[-1]} | at {SIZES[0]} | {gain:.2f}")


if __name__ == "__main__":
    main()
