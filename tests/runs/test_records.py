"""Records come back as they were written; parts of them are read without the rest."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.runs.images import ImageTable, read_pngs
from pyvision_rl.runs.records import (
    GroupRecord,
    RecordConfig,
    drop_records_after,
    list_trajectories,
    read_groups,
    read_image,
    read_stored,
    recorded_steps,
    selection_records,
    write_groups,
)
from pyvision_rl.types import Group, KeptGroup, Selection
from tests.runs.examples import noise, records


def forget_schema_version(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata(), path)


def test_equal_objects_come_back(tmp_path: Path) -> None:
    written = records(step=3)
    write_groups(tmp_path, 3, "train", written)
    assert read_groups(tmp_path, 3, "train") == written


def test_a_bare_group_comes_back(tmp_path: Path) -> None:
    written = [GroupRecord(records(step=0)[0].group)]
    write_groups(tmp_path, 0, "eval-greedy", written)
    assert read_groups(tmp_path, 0, "eval-greedy") == written


def test_no_group_at_all(tmp_path: Path) -> None:
    write_groups(tmp_path, 0, "train", [])
    assert read_groups(tmp_path, 0, "train") == []
    assert list_trajectories(tmp_path).num_rows == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_pixels_of_every_mode_come_back(tmp_path: Path, mode: str) -> None:
    image = noise(1, 31, 17).convert(mode)
    image.info["icc_profile"] = b"a colour profile is not stored"
    record = records(step=0)[0]
    prompt = replace(record.group.trajectories[0].prompt, images=(image,))
    trajectory = replace(record.group.trajectories[0], prompt=prompt)
    group = Group(record.group.task, (trajectory,), record.group.rewards[:1])
    write_groups(tmp_path, 0, "train", [GroupRecord(group)])
    (back,) = read_groups(tmp_path, 0, "train")[0].group.trajectories[0].prompt.images
    assert (back.mode, back.size, back.tobytes()) == (mode, (31, 17), image.tobytes())
    assert back.convert("RGB").tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("kind", ["images", "turns"])
def test_a_step_is_listed_once_all_of_it_is_there(tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).mkdir()
    (tmp_path / kind / "train").write_text("in the way of the folder")
    with pytest.raises(InputError, match=f"{kind}/train"):
        write_groups(tmp_path, 3, "train", records(3))
    assert recorded_steps(tmp_path) == []
    written = [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.parquet")]
    assert written == ([] if kind == "images" else ["images"])


def test_a_recorded_step_is_not_overwritten(tmp_path: Path) -> None:
    write_groups(tmp_path, 1, "train", records(1))
    with pytest.raises(InputError, match=r"step-0000001.parquet: .* is recorded already"):
        write_groups(tmp_path, 1, "train", records(2))
    assert read_groups(tmp_path, 1, "train") == records(1)


def test_an_image_is_stored_once(tmp_path: Path) -> None:
    write_groups(tmp_path, 5, "train", records(step=5))
    # Two views, noise(5) and, from the members that called, noise(1) and noise(2).
    table = pq.read_table(tmp_path / "images/train/step-0000005.parquet")
    sizes = sorted(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True))
    assert sizes == [(28, 28)] * 3 + [(56, 28)] * 2


def shown(step: int, place: int) -> set[str]:
    """Names of the images of a group of `records`: its view, and what its members showed."""
    table = ImageTable()
    group = records(step, num_groups=3)[place].group
    return {table.name(image) for member in group.trajectories for image in member.context.images}


@pytest.mark.parametrize(
    ("image_groups", "ranks", "places"),
    [
        (-1, (None, 1, 0), [0, 1, 2]),
        (9, (None, 1, 0), [0, 1, 2]),
        (1, (None, 1, 0), [2]),
        (2, (None, 1, 0), [1, 2]),
        (2, (None, None, 0), [0, 2]),
        (0, (None, 1, 0), []),
    ],
)
def test_images_of_some_groups_only(tmp_path: Path, image_groups, ranks, places) -> None:
    """Those that were trained on first, best first, then the others as they were drawn."""
    written = [
        replace(record, rank=rank)
        for record, rank in zip(records(5, num_groups=3), ranks, strict=True)
    ]
    write_groups(tmp_path, 5, "train", written, image_groups)
    kept = pq.read_table(tmp_path / "images/train/step-0000005.parquet")["sha1"].to_pylist()
    assert set(kept) == set().union(*(shown(5, place) for place in places))
    assert len(list_trajectories(tmp_path)) == 9
    stored = read_stored(tmp_path, 5, "train", None)
    assert set().union(*(trajectory.image_names for trajectory in stored)) == set().union(
        *(shown(5, place) for place in range(3))
    )
    assert read_groups(tmp_path, 5, "train", places) == [written[place] for place in places]
    for place in {0, 1, 2} - set(places):
        with pytest.raises(InputError, match=r"step-0000005.parquet: holds no image \w{40}; a run"):
            read_groups(tmp_path, 5, "train", [place])


def test_how_many_groups_images_can_be_kept_of() -> None:
    with pytest.raises(ConfigError, match=r"records\.image_groups: -2, must be -1 \(all\) or more"):
        RecordConfig(image_groups=-2)


def test_one_image_by_name(tmp_path: Path) -> None:
    write_groups(tmp_path, 5, "train", records(step=5))
    turns = pq.read_table(tmp_path / "turns/train/step-0000005.parquet").to_pylist()
    name = turns[1]["turns"][0]["observation"]["images"][0]
    with Image.open(io.BytesIO(read_image(tmp_path, 5, "train", name))) as image:
        assert image.tobytes() == noise(5).tobytes()
    with pytest.raises(InputError, match="holds no image 0000"):
        read_image(tmp_path, 5, "train", "0000")


def test_some_groups_by_number_over_row_groups(tmp_path: Path) -> None:
    written = records(step=1, num_groups=40)
    write_groups(tmp_path, 1, "train", written)
    assert pq.ParquetFile(tmp_path / "turns/train/step-0000001.parquet").num_row_groups > 1
    assert read_groups(tmp_path, 1, "train", [0, 10, 11, 39]) == [
        written[place] for place in (0, 10, 11, 39)
    ]
    assert read_groups(tmp_path, 1, "train", [40]) == []


def test_the_flat_row_of_a_trajectory(tmp_path: Path) -> None:
    write_groups(tmp_path, 2, "train", records(step=2))
    rows = list_trajectories(tmp_path).to_pylist()
    assert rows[1] | {"seed": 0, "advantage": round(rows[1]["advantage"], 6)} == {
        "step": 2,
        "phase": "train",
        "group": 0,
        "index": 1,
        "task_id": "task-2-0",
        "source": "needle",
        "ability": "two_looks",
        "question": "Which digit is on the röd tag?\n<image>",
        "gold": "7",
        "answer": None,
        "stop": "max_tokens",
        "accuracy": 1.0,
        "tool": 0.1,
        "reward": 1.1,
        "advantage": 0.766667,
        "rank": 0,
        "dropped": "max_tokens",
        "num_turns": 3,
        "num_tool_calls": 2,
        "num_ok_tool_calls": 2,
        "visual_tokens_given": 36,
        "visual_tokens_shown": 8,
        "num_completion_tokens": 4,
        "seconds": 0.25,
        "seed": 0,
    }
    assert [row["num_ok_tool_calls"] for row in rows[:3]] == [0, 2, 1]


def test_listing_by_phase_step_and_column(tmp_path: Path) -> None:
    for phase, step in (("train", 10), ("train", 9), ("eval-greedy", 9)):
        write_groups(tmp_path, step, phase, records(step))
    assert recorded_steps(tmp_path) == [("eval-greedy", 9), ("train", 9), ("train", 10)]
    listed = list_trajectories(tmp_path, phases=["train"], columns=["step", "index"]).to_pydict()
    assert listed == {"step": [9] * 6 + [10] * 6, "index": [0, 1, 2] * 4}
    assert list_trajectories(tmp_path, steps=[10]).num_rows == 6


def test_later_records_are_dropped(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_groups(tmp_path, step, "train", records(step))
    drop_records_after(tmp_path, 1)
    assert [path.name for path in sorted(tmp_path.rglob("*.parquet"))] == [
        "step-0000001.parquet"
    ] * 3
    assert read_groups(tmp_path, 1, "train") == records(1)


def test_what_cannot_be_recorded_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    record = records(step=0)[0]
    with pytest.raises(InputError, match=r"task-0-0: a record of 3 trajectories .*\[2, 3\]"):
        write_groups(tmp_path, 0, "train", [replace(record, advantages=(0.0, 1.0))])
    with pytest.raises(InputError, match=r"phase '\.\./x'"):
        write_groups(tmp_path, 0, "../x", [record])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not readable as Parquet"),
        (lambda path: path.write_bytes(b""), "not readable as Parquet"),
        (lambda path: path.unlink(), "no such records"),
        (forget_schema_version, "record schema none"),
    ],
)
@pytest.mark.parametrize("kind", ["trajectories", "turns", "images"])
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, damage, message, kind) -> None:
    write_groups(tmp_path, 4, "train", records(step=4))
    path = tmp_path / kind / "train/step-0000004.parquet"
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        read_groups(tmp_path, 4, "train")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_became_of_each_group_of_a_selection() -> None:
    first, second = (record.group for record in records(step=0))
    carried = records(step=9)[0].group
    selection = Selection(
        drawn=(first, second),
        kept=(KeptGroup(carried, (0, 1, 2)), KeptGroup(second, (0, 2))),
        dropped=Counter(),
    )
    made = selection_records(
        selection,
        reason=lambda group, index: f"{group.task.id}/{index}",
        advantages=lambda group: [float(len(group.task.id))] * 3,
    )
    eights = (8.0,) * 3
    assert made == [
        GroupRecord(first, None, {i: f"task-0-0/{i}" for i in range(3)}, eights),
        GroupRecord(second, 1, {1: "task-0-1/1"}, eights),
        GroupRecord(carried, 0, {}, eights),
    ]


def test_an_image_that_is_gone_does_not_lend_its_identity() -> None:
    """Each image is freed before the next one is made, which may then get its `id`."""
    table = ImageTable()
    assert len({table.add(noise(number)) for number in range(50)}) == 50


_LARGE = """
import os, sys
from dataclasses import replace
from pathlib import Path
import pyarrow as pa
from pyvision_rl.runs import images
from pyvision_rl.runs.records import GroupRecord, write_groups
from pyvision_rl.types import Group
from tests.runs.examples import noise, records

images._png = lambda image: os.urandom(3_000_000)  # what a photograph of this size makes
group = records(0)[0].group
prompt = replace(group.trajectories[0].prompt, images=tuple(noise(k) for k in range(50)))
member = replace(group.trajectories[0], prompt=prompt, turns=())
record = GroupRecord(Group(group.task, (member,), group.rewards[:1]))
write_groups(Path(sys.argv[1]), 0, "train", [record])
print(pa.default_memory_pool().max_memory())
"""


def test_large_images_are_not_in_memory_over_and_over(tmp_path: Path) -> None:
    """A step of a large model has gigabytes of them; here it is 150 MB."""
    command = [sys.executable, "-c", _LARGE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    path = tmp_path / "images/train/step-0000000.parquet"
    assert path.stat().st_size > 150_000_000
    assert int(done.stdout) < 75_000_000
    # Of eight images, 24 MB at most, and of two.
    assert pq.ParquetFile(path).num_row_groups == 7
    assert len(read_pngs(path)) == 50
    path.unlink()
