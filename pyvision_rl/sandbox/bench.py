"""`pyvision-rl sandbox bench`: start, round trip, figure, memory and throughput, beside
peers, in one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from pyvision_rl.errors import SandboxError
from pyvision_rl.sandbox.config import SandboxConfig
from pyvision_rl.sandbox.peers import (
    IMPORTS,
    MultiprocessingWorker,
    fresh_interpreter_cpu_s,
    start_jupyter_kernel,
)
from pyvision_rl.sandbox.pool import SandboxPool
from pyvision_rl.sandbox.runtime import Runtime

CROP = "import time\nt = time.process_time()\nplt.imshow(image_clue_0.crop((84, 84, 168, 168)))\n"
SHOWN = CROP + "plt.show()\nprint(time.process_time() - t)"
SAVED = (
    CROP + "b = io.BytesIO(); plt.savefig(b, format='png'); plt.close()\n"
    "Image.open(b).convert('RGB')\nprint(time.process_time() - t)"
)
FIGURE = "crop, imshow, show: CPU"
NUM_FIGURES = 20
WORK = "a = np.ones((300, 300)); b = [float((a @ a).sum()) for _ in range(4)]"
SPIN = "import time\nt = time.process_time()\nwhile time.process_time() - t < 1: pass"
NUM_CORES = len(os.sched_getaffinity(0))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class BenchConfig:
    """How much to measure."""

    num_runtimes: int = 256
    """Runtimes alive at once, and starts measured."""
    num_cells: int = 1000
    """Round trips measured."""
    max_flight: int = 32
    """Cells in flight when throughput is measured."""


@dataclass(frozen=True)
class Row:
    """One line of the report; None where something could not be measured."""

    what: str
    unit: str
    sandbox: float | None
    multiprocessing: float | None = None
    jupyter: float | None = None


def bench(config: BenchConfig | None = None) -> str:
    """The report as a table. CPU times count the pool, the fork server and the runtimes
    together.
    """
    return table(*measure(config or BenchConfig()))


def measure(config: BenchConfig) -> tuple[list[Row], list[str]]:
    """Rows with the peers' values beside ours, and remarks."""
    rows, notes = asyncio.run(measure_sandbox(config))
    workers, jupyter = measure_multiprocessing(config), measure_jupyter(config)
    both = [
        replace(row, multiprocessing=workers.get(row.what), jupyter=jupyter.get(row.what))
        for row in rows
    ]
    return both, notes


def table(rows: list[Row], notes: list[str]) -> str:
    """Rows and remarks for a person."""
    lines = [f"{'':34}{'sandbox':>12}{'multiproc.':>12}{'jupyter':>12}"]
    for row in rows:
        values = (row.sandbox, row.multiprocessing, row.jupyter)
        cells = "".join(f"{'-' if v is None else f'{v:.3f}':>12}" for v in values)
        lines.append(f"{f'{row.what}, {row.unit}':34}{cells}")
    return "\n".join([*lines, "", *notes])


async def measure_sandbox(config: BenchConfig) -> tuple[list[Row], list[str]]:
    """Rows and remarks of the sandbox."""
    sandbox = SandboxConfig(timeout_s=60.0)
    async with SandboxPool(sandbox) as pool:
        image = Image.effect_noise((672, 672), 60).convert("RGB")
        before, started = tree_cpu_s(os.getpid()), time.perf_counter()
        runtimes = [pool.runtime([image])]
        runtimes += [pool.runtime() for _ in range(config.num_runtimes - 1)]
        for runtime in runtimes:
            await run(runtime, "x = 1")
        wall = (time.perf_counter() - started) / config.num_runtimes
        start = (tree_cpu_s(os.getpid()) - before) / config.num_runtimes
        memory = statistics.mean(private_mb(pid) for pid in descendants(os.getpid())[2:])
        trip_cpu, trip = await per_call(lambda: run(runtimes[1], "x = 1"), config.num_cells)
        shown, saved = await median_cells(runtimes[0], [SHOWN, SAVED])
        figure, _ = await per_call(lambda: run(runtimes[0], CROP + "plt.show()"), NUM_FIGURES)
        available = await throughput(runtimes[:NUM_CORES], 99, SPIN)
        for _ in range(2):  # the second time: in the first, memory is touched for good
            reached = await throughput(runtimes, config.max_flight, WORK)
        layers = ", ".join(pool.layers)
    fresh = fresh_interpreter_cpu_s()
    rows = [
        Row("start, CPU", "ms", 1e3 * start),
        Row("start, wall", "ms", 1e3 * wall),
        Row("round trip of `x = 1`, CPU", "ms", 1e3 * trip_cpu),
        Row("round trip of `x = 1`, wall", "ms", 1e3 * trip),
        Row(FIGURE, "ms", 1e3 * figure),
        Row("private memory when idle", "MiB", memory),
    ]
    notes = [
        f"layers: {layers}",
        f"fresh interpreter with the same imports: {1e3 * fresh:.0f} ms CPU, "
        f"that of {fresh / start:.0f} starts",
        f"show costs {shown / saved:.0%} of savefig and decoding in the same runtime",
        f"throughput, {config.num_runtimes} runtimes, {config.max_flight} cells in flight: "
        f"{reached:.0%} of cores / CPU per cell, where cells that only spin get {available:.0%}",
    ]
    return rows, notes


async def run(runtime: Runtime, code: str) -> str:
    """The text of a cell that must work: what fails fast would look fast."""
    result = await runtime.run(code)
    if result.kind != "ok":
        raise SandboxError(f"a cell of the benchmark failed: {result.kind}, {result.text}")
    return result.text


async def per_call(call: Callable[[], Awaitable[object]], num_calls: int) -> tuple[float, float]:
    """CPU and wall seconds of one call, averaged."""
    before, started = tree_cpu_s(os.getpid()), time.perf_counter()
    for _ in range(num_calls):
        await call()
    wall = (time.perf_counter() - started) / num_calls
    return (tree_cpu_s(os.getpid()) - before) / num_calls, wall


async def median_cells(runtime: Runtime, codes: list[str]) -> list[float]:
    """CPU seconds that each cell reports of itself; they take turns, so that noise hits them
    alike.
    """
    rounds = [[float(await run(runtime, code)) for code in codes] for _ in range(12)]
    return [statistics.median(times) for times in zip(*rounds[2:], strict=True)]


async def throughput(runtimes: list[Runtime], max_flight: int, code: str) -> float:
    """Cells per second over those that the cores could run, by the CPU time they took."""
    flight = asyncio.Semaphore(max_flight)

    async def one(runtime: Runtime) -> None:
        async with flight:
            await run(runtime, code)

    before, started = tree_cpu_s(os.getpid()), time.perf_counter()
    await asyncio.gather(*[one(runtime) for runtime in runtimes])
    wall = time.perf_counter() - started
    return (tree_cpu_s(os.getpid()) - before) / (wall * NUM_CORES)


def measure_multiprocessing(config: BenchConfig) -> dict[str, float]:
    """The usual way: a plain worker process per trajectory, forked from a process with the
    imports.
    """
    exec(IMPORTS, {})
    before, started = tree_cpu_s(os.getpid()), time.perf_counter()
    workers = [MultiprocessingWorker() for _ in range(8)]
    for worker in workers:
        worker.run("x = 1")
    rows = {
        "start, CPU": (tree_cpu_s(os.getpid()) - before) / 8 * 1e3,
        "start, wall": (time.perf_counter() - started) / 8 * 1e3,
    }
    rows["private memory when idle"] = statistics.mean(
        private_mb(worker.process.pid or 0) for worker in workers
    )
    worker = workers[0]
    worker.run("image_clue_0 = Image.effect_noise((672, 672), 60).convert('RGB')")
    rows |= time_calls(worker.run, config.num_cells, CROP + "capture()")
    for each in workers:
        each.close()
    return rows


def measure_jupyter(config: BenchConfig) -> dict[str, float]:
    """A kernel, where one is installed."""
    before, started = tree_cpu_s(os.getpid()), time.perf_counter()
    kernel = start_jupyter_kernel()
    if kernel is None:
        return {}
    run, close, pid = kernel
    setup = "import numpy as np\nfrom PIL import Image\nimport matplotlib.pyplot as plt\n"
    run(setup + "image_clue_0 = Image.effect_noise((672, 672), 60).convert('RGB')")
    rows = {
        "start, CPU": (tree_cpu_s(os.getpid()) - before) * 1e3,
        "start, wall": (time.perf_counter() - started) * 1e3,
        "private memory when idle": private_mb(pid),
    }
    rows |= time_calls(run, min(50, config.num_cells), "%matplotlib inline\n" + CROP + "plt.show()")
    close()
    return rows


def time_calls(run: Callable[[str], None], num_calls: int, figure: str) -> dict[str, float]:
    """Round trip and figure of a peer, in milliseconds."""
    before, started = tree_cpu_s(os.getpid()), time.perf_counter()
    for _ in range(num_calls):
        run("x = 1")
    wall, cpu = time.perf_counter() - started, tree_cpu_s(os.getpid()) - before
    run(figure)
    before = tree_cpu_s(os.getpid())
    for _ in range(NUM_FIGURES):
        run(figure)
    return {
        "round trip of `x = 1`, CPU": 1e3 * cpu / num_calls,
        "round trip of `x = 1`, wall": 1e3 * wall / num_calls,
        FIGURE: 1e3 * (tree_cpu_s(os.getpid()) - before) / NUM_FIGURES,
    }


def descendants(pid: int) -> list[int]:
    """Living processes below `pid`, parents first."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError):  # threads and processes end while one looks
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return children + [below for child in children for below in descendants(child)]


def tree_cpu_s(pid: int) -> float:
    """CPU seconds that `pid`, everything below it, and what has been waited for there, have
    used.
    """
    return sum(map(process_cpu_s, [pid, *descendants(pid)]))


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a process and of the children that it has waited for, 0 of one that is gone.

    What `stat` has is rounded down to ticks of 10 ms, more than a cell often takes; `schedstat`
    counts nanoseconds, but only of threads that are there.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        threads = Path(f"/proc/{pid}/task").iterdir()
        own_s = sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e9
    except FileNotFoundError:  # processes and threads end while one looks
        return 0.0
    in_ticks, waited_for = (sum(map(int, fields[k : k + 2])) * TICK_S for k in (11, 13))
    return max(own_s, in_ticks) + waited_for


def private_mb(pid: int) -> float:
    """MiB that only this process holds."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
