"""Where an update of the learner spends its CPU time, and how far it is from matrix products alone.

`python benchmarks/step_profile.py` profiles one update of the tiny model on 64 rows as
`learner_trl.py` makes them. The limit is the time of the products that forward and backward need,
at the speed that this core reaches on products of the same shapes.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from learner_trl import make_checkpoint, make_rows, time_ours
from torch.profiler import ProfilerActivity, profile

from pyvision_rl.model.batch import Sample
from pyvision_rl.model.policy import Policy, PolicyConfig
from pyvision_rl.rl.learner import Learner, LearnerConfig

PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "optimizer and clipping": (
        "aten::lerp_",
        "aten::addcdiv_",
        "aten::addcmul_",
        "aten::_foreach_norm",
    ),
    "log-softmax": ("aten::_log_softmax", "aten::_log_softmax_backward_data"),
    "copies": ("aten::copy_", "aten::cat", "aten::index_put_", "aten::index"),
}
TOKENS = 2048


def products_s(policy: Policy, rows: Sequence[Sample]) -> float:
    """CPU seconds of the products of all linear layers, forward and twice backward."""
    layers = policy.model.model.language_model.layers
    shapes = Counter(
        tuple(module.weight.shape)
        for module in layers.modules()
        if isinstance(module, torch.nn.Linear)
    )
    num_tokens = sum(len(row.token_ids) for row in rows)
    seconds = 0.0
    for (width, depth), count in shapes.items():
        inputs, weight, grads = (
            torch.randn(TOKENS, depth),
            torch.randn(width, depth),
            torch.randn(TOKENS, width),
        )
        products = (
            lambda inputs=inputs, weight=weight: inputs @ weight.T,
            lambda grads=grads, weight=weight: grads @ weight,
            lambda grads=grads, inputs=inputs: grads.T @ inputs,
        )
        for product in products:
            product()
            start = time.process_time()
            for _ in range(20):
                product()
            seconds += (time.process_time() - start) / 20 * count
    return seconds * num_tokens / TOKENS


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder))
        policy = Policy.load(PolicyConfig(folder))
        rows = make_rows(policy, 64)
        whole = time_ours(policy, rows)
        limit = products_s(policy, rows)
        learner = Learner(policy, LearnerConfig(micro_batch_tokens=TOKENS), temperature=1.0)
        learner.update(rows, seed=0)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            learner.update(rows, seed=1)
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(times.values())
    for part, names in PARTS.items():
        share = sum(times.pop(name, 0.0) for name in names) / total
        print(f"{part:<24}{share:>6.0%}")
    print(f"{'elementwise and the rest':<24}{sum(times.values()) / total:>6.0%}")
    for name, spent in sorted(times.items(), key=lambda item: -item[1])[:6]:
        print(f"    {name:<40}{spent / total:>6.0%}")
    print(f"update {whole:.2f} s CPU, matrix products alone {limit:.2f} s")
    print(f"RATIO | learner: CPU of an update | its matrix products | {limit / whole:.2f}")


if __name__ == "__main__":
    main()
