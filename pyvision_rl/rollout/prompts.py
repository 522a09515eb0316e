"""Prompt templates: plain text files with named places, shipped ones and the user's own."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from PIL.Image import Image

from pyvision_rl.errors import InputError
from pyvision_rl.rollout.videos import VideoInfo

PLACES = frozenset(
    {"query", "width", "height", "image_info", "video_info", "media_info", "frame_info"}
)
"""Names a template may use: `query` is the question, `width` and `height` are those of the first
image, or video where there is none; `image_info`, `video_info` and `media_info` list what there is:
images, videos, or both; `frame_info` says which frames of the videos the context starts with."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""What `\\boxed` and `\\frac` become in json where the backslash is not doubled."""

_SHIPPED = resources.files("pyvision_rl.rollout") / "prompts"


def load_template(name: str) -> str:
    """A shipped template by name, or the user's: a text file, or `file.json:key`.

    The json form is that of the paper's release, an object of templates. Raises InputError for an
    unknown name, a missing key or a place that the template may not use.
    """
    template = _read(name)
    if slip := _CONTROL.search(template):
        raise InputError(
            f"prompt {name}: holds the character {slip[0]!r}; in json a backslash is written twice"
        )
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise InputError(f"prompt {name}: {error}; write literal braces twice") from error
    used = {place for _, place, _, _ in fields if place is not None}
    if unknown := sorted(used - PLACES):
        raise InputError(f"prompt {name}: unknown place {{{unknown[0]}}}, allowed {sorted(PLACES)}")
    if formatted := [place for _, place, form, conversion in fields if form or conversion]:
        raise InputError(f"prompt {name}: {{{formatted[0]}}} must stand there without a format")
    if "query" not in used:
        raise InputError(f"prompt {name}: no place {{query}} for the question")
    return template


def _read(name: str) -> str:
    shipped = sorted(entry.name[:-4] for entry in _SHIPPED.iterdir() if entry.name.endswith(".txt"))
    if name in shipped:
        return (_SHIPPED / f"{name}.txt").read_text("utf-8").removesuffix("\n")
    file, _, key = name.rpartition(":") if ".json:" in name else (name, "", "")
    path = Path(file)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"prompt {name}: neither a shipped template ({', '.join(shipped)}) "
            f"nor a file that can be read ({error})"
        ) from error
    return _entry(path, text, key) if key else text.removesuffix("\n")


def _entry(path: Path, text: str, key: str) -> str:
    try:
        templates = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"prompt {path}: {error}") from error
    if not isinstance(templates, dict) or not isinstance(templates.get(key), str):
        raise InputError(f"prompt {path}: no template under the key {key!r}")
    return templates[key]


def render_prompt(
    template: str,
    question: str,
    images: Sequence[Image],
    videos: Sequence[VideoInfo] = (),
    frames: str = "",
) -> str:
    """Fill a template with a question and what its media are, as they are in the runtime."""
    image_info = [f"image_clue_{k} is {i.width} x {i.height}" for k, i in enumerate(images)]
    video_info = [f"video_clue_{k} is {info}" for k, info in enumerate(videos)]
    sizes = [(medium.width, medium.height) for medium in (*images, *videos)]
    width, height = sizes[0] if sizes else (0, 0)
    return template.format(
        query=question,
        width=width,
        height=height,
        image_info=", ".join(image_info),
        video_info="; ".join(video_info),
        media_info="; ".join((*image_info, *video_info)) if videos else ", ".join(image_info),
        frame_info=frames,
    )
