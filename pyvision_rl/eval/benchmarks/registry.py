"""Every benchmark by its name."""

from __future__ import annotations

from typing import Literal

from pyvision_rl.eval.benchmarks.dynamath import DYNAMATH
from pyvision_rl.eval.benchmarks.hrbench import HRBENCH_4K, HRBENCH_8K
from pyvision_rl.eval.benchmarks.item import Benchmark
from pyvision_rl.eval.benchmarks.mathverse import MATHVERSE
from pyvision_rl.eval.benchmarks.mathvision import MATHVISION
from pyvision_rl.eval.benchmarks.tirbench import TIRBENCH
from pyvision_rl.eval.benchmarks.vsibench import VSIBENCH
from pyvision_rl.eval.benchmarks.vstar import VSTAR
from pyvision_rl.eval.benchmarks.wemath import WEMATH

BenchmarkName = Literal[
    "vstar",
    "hrbench4k",
    "hrbench8k",
    "dynamath",
    "mathverse",
    "mathvision",
    "wemath",
    "tirbench",
    "vsibench",
]

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        VSTAR,
        HRBENCH_4K,
        HRBENCH_8K,
        DYNAMATH,
        MATHVERSE,
        MATHVISION,
        WEMATH,
        TIRBENCH,
        VSIBENCH,
    )
}
