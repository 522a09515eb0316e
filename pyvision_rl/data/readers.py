"""Task files as `Task`s: the released RL and validation layouts and the plain one, told apart by
their fields. Images are checked to exist, never decoded here.

Plain (and validation) rows hold `id`, `question`, `answer`, and media as `image_path`,
`images_path`, `video_path` or `videos_path` (one path or a list); `data_source` and `ability` may
lack. RL rows hold `prompt`, `reward_model.ground_truth` and `mm_hint.{hint_path, hint_type}`.
Either may declare the `rule` that grades it, RL rows also as `reward_model.rule`.
"""

from __future__ import annotations

import os
import re
import stat
from array import array
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np

from pyvision_rl.data.rows import (
    PLACEHOLDER,
    Problem,
    Row,
    as_text,
    check_unicode,
    iter_rows,
    shown,
)
from pyvision_rl.errors import InputError
from pyvision_rl.types import Task

LEADING_MARKS = re.compile(r"(?:\s*<(?:image|video)>)*")
MEDIA_FIELDS = {
    "image_path": "image",
    "images_path": "image",
    "video_path": "video",
    "videos_path": "video",
}
RULE_NAMES = {"auto", "choice", "number", "text", "math", "mra", "set", "sequence", "judge"}
"""What a row's `rule` may say; `reward.register_rule` adds the names of own rules."""


def read_tasks(
    path: str | Path, *, image_root: str | Path | None = None, limit: int | None = None
) -> list[Task]:
    """The tasks of a .json, .jsonl or .parquet file, in order.

    Relative media paths are taken from `image_root`, by default the file's folder. An RL row
    without an `id` is named by its row number. A question's leading `<image>` and `<video>` marks
    are dropped; a later one becomes the name of that image, `<image_clue_k>`.
    Raises InputError that names file, row, field and value at the first row that is not usable.
    """
    return list(usable_tasks(path, image_root, limit))


def usable_tasks(
    path: str | Path, image_root: str | Path | None = None, limit: int | None = None
) -> Iterator[Task]:
    """The tasks of a file one after the other, as `read_tasks` gives them; an id that comes twice
    is an InputError at the end.
    """
    ids = SeenIds()
    for row, task in iter_tasks(path, image_root, limit):
        row.raise_first()
        ids.add(task.id)
        yield task
    for problem in ids.repeated(path, limit):
        raise InputError(str(problem))


class SeenIds:
    """The ids of a file in 8 bytes each, to find those that come twice."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, task_id: str) -> None:
        """Note the id of the next row."""
        self._hashes.append(hash(task_id))

    def repeated(self, path: str | Path, limit: int | None = None) -> Iterator[Problem]:
        """A problem for each row whose id an earlier one has; only suspects are read again."""
        hashes, counts = np.unique(np.frombuffer(self._hashes, np.int64), return_counts=True)
        suspects = set(hashes[counts > 1].tolist())
        first: dict[str, int] = {}
        for row in iter_rows(path, limit) if suspects else ():
            task_id = _id(row)
            if task_id and hash(task_id) in suspects:
                at = first.setdefault(task_id, row.index)
                if at != row.index:
                    reason = f"already the id of row {at}"
                    yield Problem(row.file, row.index, row.line, "id", shown(task_id), reason)


def iter_tasks(
    path: str | Path, image_root: str | Path | None, limit: int | None
) -> Iterator[tuple[Row, Task]]:
    """Each row and its task; where the row has problems the task is not to be used."""
    base = Path(image_root) if image_root is not None else Path(path).parent
    for row in iter_rows(path, limit):
        yield row, _task(row, base)


def _is_released(row: Row) -> bool:
    return "reward_model" in row.fields or "mm_hint" in row.fields


def _id(row: Row) -> str:
    return row.text("id", str(row.index)) if _is_released(row) else row.text("id")


def _task(row: Row, base: Path) -> Task:
    if row.problems:
        return Task("", "", "")
    if _is_released(row):
        return _released_task(row, base)
    media = _plain_media(row)
    images, videos = (media_paths(row, name, value, base) for name, value in media)
    return Task(
        id=_id(row),
        question=_question(row, "question", row.text("question"), len(images), len(videos)),
        answer=row.text("answer"),
        images=images,
        videos=videos,
        source=row.text("data_source", ""),
        ability=row.text("ability", ""),
        rule=_rule(row, "rule", row.fields.get("rule")),
    )


def _rule(row: Row, name: str, value: object) -> str:
    """The rule that a row declares; "auto" where it declares none."""
    if value is None or value == "":
        return "auto"
    if not isinstance(value, str) or value not in RULE_NAMES:
        row.fail(name, value, f"no such rule; there are {', '.join(sorted(RULE_NAMES))}")
        return "auto"
    return value


def _plain_media(row: Row) -> list[tuple[str, object]]:
    """The fields that name images and videos, and what they hold."""
    found: dict[str, tuple[str, object]] = {}
    for name, kind in MEDIA_FIELDS.items():
        if name not in row.fields or row.fields[name] is None:
            continue
        if kind in found:
            row.fail(name, row.fields[name], f"give either {found[kind][0]} or {name}, not both")
        found[kind] = (name, row.fields[name])
    if not found:
        row.fail("", row.fields, f"names no media; use one of {', '.join(MEDIA_FIELDS)}")
    return [found.get("image", ("image_path", [])), found.get("video", ("video_path", []))]


def _released_task(row: Row, base: Path) -> Task:
    hint = row.section("mm_hint")
    kind = hint.get("hint_type", "image")
    if kind not in ("image", "video"):
        row.fail("mm_hint.hint_type", kind, "must be 'image' or 'video'")
    paths = media_paths(row, "mm_hint.hint_path", hint.get("hint_path"), base)
    images, videos = ((), paths) if kind == "video" else (paths, ())
    graded = row.section("reward_model")
    answer = graded.get("ground_truth")
    rule = "reward_model.rule" if graded.get("rule") else "rule"
    return Task(
        id=_id(row),
        question=_question(row, "prompt", _prompt(row), len(images), len(videos)),
        answer=as_text(row, "reward_model.ground_truth", answer),
        images=images,
        videos=videos,
        source=row.text("data_source", ""),
        ability=row.text("ability", ""),
        rule=_rule(row, rule, graded.get("rule") or row.fields.get("rule")),
    )


def _prompt(row: Row) -> str:
    """The last user message of an RL row."""
    messages = row.fields.get("prompt")
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        row.fail("prompt", messages, "must be a list of {role, content}")
        return ""
    contents = [message.get("content") for message in messages if message.get("role") == "user"]
    if not contents:
        row.fail("prompt", messages, "has no message of role 'user'")
        return ""
    return as_text(row, "prompt", contents[-1])


def _question(row: Row, name: str, text: str, num_images: int, num_videos: int) -> str:
    """The text with leading media marks dropped and later ones replaced by the media's names."""
    marks = PLACEHOLDER.findall(text)
    for kind, num in (("image", num_images), ("video", num_videos)):
        marked = marks.count(kind)
        if marked not in (0, num):
            row.fail(name, text, f"{marked} <{kind}> for {num} {kind}s; must be none or as many")
    head = LEADING_MARKS.match(text)
    seen = head[0] if head else ""
    numbers = {kind: count(seen.count(f"<{kind}>")) for kind in ("image", "video")}
    question = PLACEHOLDER.sub(
        lambda mark: f"<{mark[1]}_clue_{next(numbers[mark[1]])}>", text[len(seen) :]
    ).strip()
    if text and not question:
        row.fail(name, text, "has no text")
    return question


def media_paths(row: Row, name: str, value: object, base: Path) -> tuple[Path, ...]:
    """The paths that a field holds (one or a list), relative ones taken from `base`.

    Notes a problem for anything that is not a path, and for a file that is missing or empty.
    """
    values = value if isinstance(value, list) else [value]
    paths = []
    for item in values:
        if not isinstance(item, str) or not item.strip():
            row.fail(name, item, "must be a path or a list of paths")
            continue
        path = base / item
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
                row.fail(name, item, f"{path} is empty or not a file")
        except (OSError, ValueError):
            row.fail(name, item, f"no file {path}")
        check_unicode(row, name, item)
        paths.append(path)
    return tuple(paths)
