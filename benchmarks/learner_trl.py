"""Our learner beside TRL's GRPOTrainer: the same model, the same rows, one optimizer update each.

`python benchmarks/learner_trl.py` needs `pip install 'trl==1.16.0' datasets`; without them only our
own numbers are printed. Rows are groups of 8 on the embedded task, with the given image and those
that calls showed; the same but that members have no more than the prompt in common; and texts that
have nothing in common. TRL gets them ready, with the patches of each row's
images, at several micro-batch sizes, of which its fastest counts. Vision is frozen in both.
`--run FOLDER` takes what a step of a recorded run was trained on instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from made.policies import shipped_policy
from made.rows import needle_rows, num_computed, part_at_once, text_rows

from pyvision_rl.model.batch import Sample
from pyvision_rl.model.policy import Policy
from pyvision_rl.rl.learner import Learner, LearnerConfig
from pyvision_rl.rl.samples import make_sample
from pyvision_rl.runs.records import read_groups

UPDATES = 4
SIZES = (2, 4, 8)
HAS_TRL = all(importlib.util.find_spec(name) for name in ("trl", "datasets"))


def update_s(policy: Policy, rows: Sequence[Sample], num_minibatches: int = 1) -> float:
    """CPU seconds of a pass over the rows, after one to warm up."""
    config = LearnerConfig(num_minibatches=num_minibatches, micro_batch_tokens=2048)
    learner = Learner(policy, config, temperature=1.0)
    learner.update(rows, seed=0)
    start = time.process_time()
    for seed in range(UPDATES):
        # An image is new to every update of a real run, and encoded once in it.
        policy.load_state(policy.model.state_dict())
        learner.update(rows, seed)
    return (time.process_time() - start) / UPDATES


def recorded_rows(folder: Path, step: int) -> list[Sample]:
    """What a step of a run was trained on."""
    return [
        make_sample(trajectory, record.advantages[index])
        for record in read_groups(folder, step, "train")
        if record.rank is not None
        for index, trajectory in enumerate(record.group.trajectories)
        if index not in record.dropped
    ]


def compare(name: str, policy: Policy, rows: Sequence[Sample]) -> None:
    tokens = sum(len(row.token_ids) for row in rows)
    computed = num_computed(policy, rows)
    print(f"{name}: {len(rows)} rows, {tokens} tokens, {computed} without what is common")
    ours = update_s(policy, rows)
    print(f"    ours: {len(rows) / ours:.0f} rows per CPU second")
    halves = update_s(policy, rows, num_minibatches=2)
    print(f"    ours in two shuffled mini-batches: {len(rows) / halves:.0f} rows per CPU second")
    if not HAS_TRL:
        print("    TRL is not installed: pip install 'trl==1.16.0' datasets to compare")
        return
    from made import trl_peer

    times = {size: trl_peer.update_s(policy, rows, size, UPDATES) for size in SIZES}
    for size, seconds in times.items():
        print(f"    TRL by {size} rows: {len(rows) / seconds:.0f} rows per CPU second")
    theirs = min(times.values())
    print(f"RATIO | learner: {name} | TRL 1.16 | {theirs / ours:.2f}")
    print(f"RATIO | learner: {name}, 2 mini-batches | TRL 1.16 | {theirs / halves:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--run", type=Path, help="folder of a recorded RL run")
    parser.add_argument("--step", type=int, default=1, help="step of that run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = shipped_policy()
    if options.run:
        compare("recorded", policy, recorded_rows(options.run, options.step))
        return
    rows = needle_rows(policy, options.groups)
    compare("image groups", policy, rows)
    compare("groups that part at once", policy, part_at_once(policy, rows))
    compare("text alone", policy, text_rows(policy, 8 * options.groups))


if __name__ == "__main__":
    main()
