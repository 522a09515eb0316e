"""A run that a test kills: `python -m tests.runs.writer FOLDER NUM_STEPS`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from pyvision_rl.runs import CheckpointConfig, RunFolder
from tests.runs.examples import records


def metrics(step: int) -> dict[str, float]:
    return {f"room/name_{place}": step + place / 7 for place in range(40)}


def state(step: int) -> dict[str, bytes]:
    """What a checkpoint of this step holds, by file name."""
    numbers = random.Random(step)
    return {f"part-{place}": numbers.randbytes(1000 + 50_000 * place) for place in range(4)}


def write_state(folder: Path, step: int) -> None:
    for name, data in state(step).items():
        (folder / name).write_bytes(data)


def write(folder: Path, num_steps: int) -> None:
    """Goes on from the latest checkpoint, one every third step."""
    kept = CheckpointConfig(keep_last=2, best_metric="eval/accuracy")
    with RunFolder.create(folder, "seed: 0\n", resume=True, checkpoints=kept) as run:
        checkpoint = run.rewind()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for step in range(checkpoint.step + 1 if checkpoint else 1, num_steps + 1):
            run.log(step, metrics(step))
            run.write_groups(step, "train", records(step))
            if step % 3 == 0:
                run.write_summary({"step": step, "text": "x" * step})
                accuracy = {"eval/accuracy": step * 7 % 11 / 11}
                run.checkpoints.save(step, lambda at, step=step: write_state(at, step), accuracy)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
