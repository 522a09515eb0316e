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
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec
import psutil

from pyvision_rl.runs import RunFolder
from pyvision_rl.runs.files import replacing
from pyvision_rl.runs.records import record_path
from pyvision_rl.runs.schema import TRAJECTORIES, TURNS

NUM_STEPS, NUM_GROUPS, GROUP_SIZE = 500, 25, 8
NUM_METRICS = 60
WORDS = ("which", "digit", "sign", "on", "red", "tag", "of", "old", "station", "near", "tall")
QUERIES: dict[str, dict[str, str]] = {
    "first list": {},
    "one step": {"step": "250"},
    "wrong, 2 calls or more": {"right": "no", "calls": "2+"},
    "text of the questions": {"text": "station NEAR", "part": "task"},
    "the same by reward": {"text": "tall sign", "part": "task", "sort": "reward"},
    "most tokens, last page": {"sort": "tokens", "offset": "99950"},
}


SEARCHES = {
    "the first": {"text": "tall old station"},
    "rare": {"text": "platform nine"},
    "in most": {"text": "red tag"},
    "in all": {"text": "image_clue_0", "part": "code"},
    "nowhere": {"text": "no such words"},
}


def write_run(folder: Path) -> None:
    """A run as long as a large one. Of its turns there are texts and ids, no images, and the same
    2,000 thoughts and programs in all steps.
    """
    rng = random.Random(0)
    thoughts = [" ".join(rng.choices(WORDS, k=120)) for _ in range(2000)]
    thoughts[7] += " platform nine"
    with RunFolder.create(folder, "seed: 0\n") as run:
        for step in range(NUM_STEPS):
            run.log(step, {f"room/metric_{k}": rng.random() for k in range(NUM_METRICS)})
            with replacing(record_path(folder, "trajectories", "train", step)) as file:
                TRAJECTORIES.write(file, list(rows(step, rng)))
            with replacing(record_path(folder, "turns", "train", step)) as file:
                TURNS.write(file, turn_rows(thoughts, rng))


def turn_rows(thoughts: list[str], rng: random.Random) -> list[dict[str, object]]:
    """Three turns a trajectory, about 3,300 characters."""
    rows: list[dict[str, object]] = []
    for place in range(NUM_GROUPS * GROUP_SIZE):
        said = [turn_columns(rng.choice(thoughts), rng) for _ in range(3)]
        prompt = observation_columns("the prompt " * 100)
        row: dict[str, object] = {"group": place // GROUP_SIZE, "index": place % GROUP_SIZE}
        row |= {"task_images": [], "task_videos": [], "prompt": prompt, "turns": said}
        rows.append(row)
    return rows


def turn_columns(thought: str, rng: random.Random) -> dict[str, object]:
    sides = [rng.randrange(900) for _ in range(6)]
    code = "".join(f"a = image_clue_0.crop(({side}, {side}, 950, 950))\n" for side in sides)
    return {
        "text": f"{thought}\n<code>\n```python\n{code}```\n</code>",
        "token_ids": [1] * 250,
        "logprobs": [-0.5] * 250,
        "finish": "stop",
        "code": code,
        "observation": observation_columns(
            f"<tool_response>\n<interpreter>\nText Result:\n{sides}</interpreter>\n"
        ),
    }


def observation_columns(text: str) -> dict[str, object]:
    return {
        "text": text,
        "token_ids": [1] * 50,
        "images": [],
        "num_visual_tokens": 0,
        "ok": True,
    }


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


@dataclass
class Server:
    """The viewer from outside: what it answers, how long it takes, what it costs the processor."""

    url: str
    process: psutil.Process

    def get(self, path: str, **params: str) -> bytes:
        with urlopen(f"{self.url}{path}?{urlencode(params)}") as response:
            return response.read()

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    def report(self, name: str, path: str, **params: str) -> None:
        start, cpu = time.perf_counter(), self.cpu_s()
        self.get(path, **params)
        print(f"{name:<24} {time.perf_counter() - start:6.2f} s  {self.cpu_s() - cpu:6.2f} s CPU")

    def memory(self, when: str) -> None:
        print(f"memory {when:<17} {self.process.memory_info().rss / 2**20:6.0f} MB")


class Answer(msgspec.Struct):
    """What is read of a page of the list."""

    total: int
    searched: dict[str, int]


def search(server: Server, name: str, params: dict[str, str]) -> None:
    """As the page does it: asked again until all steps are searched."""
    start, cpu = time.perf_counter(), server.cpu_s()
    requests = []
    found = Answer(0, {})
    done, total = 0, 1
    while done < total:
        before = time.perf_counter()
        answer = server.get("/api/trajectories", run="long", **params)
        requests.append(time.perf_counter() - before)
        found = msgspec.json.decode(answer, type=Answer)
        done, total = found.searched["done"], found.searched["total"]
    print(
        f"said, {name:<18} {time.perf_counter() - start:6.2f} s  {server.cpu_s() - cpu:6.2f} s CPU"
        f"  ({found.total:,} found, {len(requests)} requests, the first {requests[0]:.2f} s)"
    )


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
            measure(Server(url, psutil.Process(server.pid)))
        finally:
            server.terminate()
            server.wait()


def measure(server: Server) -> None:
    server.report("page", "/")
    server.report("runs", "/api/runs")
    server.report("metrics", "/api/metrics", run="long")
    server.memory("after these")
    for name, params in QUERIES.items():
        server.report(name, "/api/trajectories", run="long", **params)
    for name, params in SEARCHES.items():
        search(server, name, params)
    server.report("looking for news", "/api/runs")
    server.memory("at the end")


if __name__ == "__main__":
    main()
