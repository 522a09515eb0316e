"""The viewer over a long run: 100,000 trajectories in 500 steps. What a person waits for, and the
memory of the server, measured from outside through HTTP.

No peer shows trajectories with their images, so there is nothing to compare with: the aims are a
first page and a filter in under a second, and under 500 MB.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil

from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.files import write_file
from pyvision_rl.runs.records import record_path
from pyvision_rl.runs.schema import TRAJECTORIES

NUM_STEPS, NUM_GROUPS, GROUP_SIZE = 500, 25, 8
NUM_METRICS = 60
WORDS = ("which", "digit", "sign", "on", "red", "tag", "of", "old", "station", "near", "tall")
QUERIES: dict[str, dict[str, str]] = {
    "first list": {},
    "one step": {"step": "250"},
    "wrong, 2 calls or more": {"right": "no", "calls": "2+"},
    "text": {"text": "station NEAR"},
    "text and order by reward": {"text": "tall sign", "sort": "reward"},
    "most tokens, last page": {"sort": "tokens", "offset": "99950"},
}


def write_run(folder: Path) -> None:
    """A run as long as a large one: its lists are real files, its turns are left out."""
    rng = random.Random(0)
    with RunFolder.create(folder, "seed: 0\n") as run:
        for step in range(NUM_STEPS):
            run.log(step, {f"room/metric_{k}": rng.random() for k in range(NUM_METRICS)})
            data = TRAJECTORIES.encode(list(rows(step, rng)))
            write_file(record_path(folder, "trajectories", "train", step), data)


def rows(step: int, rng: random.Random) -> Iterator[dict[str, object]]:
    for group in range(NUM_GROUPS):
        question = " ".join(rng.choices(WORDS, k=30))
        task = f"data/set/{rng.randrange(10**9):09d}"
        for index in range(GROUP_SIZE):
            right = float(rng.random() < 0.5)
            calls = rng.randrange(5)
            yield {
                "step": step,
                "phase": "train",
                "group": group,
                "index": index,
                "task_id": task,
                "source": "synthetic",
                "ability": rng.choice(["easy", "hard", "very_hard"]),
                "question": question,
                "gold": "7",
                "answer": str(rng.randrange(10)),
                "stop": "answered",
                "accuracy": right,
                "tool": 0.1 * calls * right,
                "reward": right + 0.1 * calls * right,
                "advantage": rng.random() - 0.5,
                "rank": group if group < 16 else None,
                "dropped": None if group < 16 else "group/ranked_below",
                "num_turns": calls + 1,
                "num_tool_calls": calls,
                "num_ok_tool_calls": calls,
                "visual_tokens_given": 500,
                "visual_tokens_shown": 100 * calls,
                "num_completion_tokens": rng.randrange(100, 9000),
                "seconds": rng.random() * 60,
                "seed": rng.getrandbits(62),
            }


def timed_get(url: str, path: str, **params: str) -> float:
    start = time.perf_counter()
    with urlopen(f"{url}{path}?{urlencode(params)}") as response:
        response.read()
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "long")
        command = [sys.executable, "-m", "pyvision_rl.cli", "view", f"{folder}/long", "--port", "0"]
        start = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[1].rstrip("/")
            print(f"start to address         {time.perf_counter() - start:6.2f} s")
            measure(url, psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait()


def measure(url: str, process: psutil.Process) -> None:
    first = timed_get(url, "/") + timed_get(url, "/api/runs")
    first += timed_get(url, "/api/metrics", run="long")
    print(f"first page               {first:6.2f} s  (page, runs, metrics)")
    print(f"memory after it          {process.memory_info().rss / 2**20:6.0f} MB")
    for name, params in QUERIES.items():
        seconds = timed_get(url, "/api/trajectories", run="long", **params)
        print(f"{name:<24} {seconds:6.2f} s")
    print(f"looking for news         {timed_get(url, '/api/runs'):6.2f} s")
    print(f"memory at the end        {process.memory_info().rss / 2**20:6.0f} MB")


if __name__ == "__main__":
    main()
