"""A chat request as a task: its text, and its images and videos as files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyvision_rl.data.media import MAX_PIXELS, load_image
from pyvision_rl.errors import InputError
from pyvision_rl.types import Task

ROLES = ("system", "developer", "user", "assistant")
MEDIA = {"image_url": "image", "video_url": "video"}


@dataclass
class _Files:
    """Media of a request, written into a folder as they are found."""

    folder: Path
    images: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    num_px: int = 0
    """Of all images together, which are in memory at once."""

    def add(self, kind: str, part: Mapping[str, object]) -> str:
        """Write a medium; its name in the runtime, as it stands in the text."""
        found = self.images if kind == "image" else self.videos
        name = f"{kind}_clue_{len(found)}"
        held = part.get(f"{kind}_url")
        url = held.get("url") if isinstance(held, Mapping) else held
        path = self.folder / name
        path.write_bytes(_data(url, f"{kind} {len(found)}"))
        if kind == "image":
            try:
                image = load_image(path)
            except InputError as error:
                raise InputError(f"image {len(found)}: not a readable image") from error
            self.num_px += image.width * image.height
            if self.num_px > MAX_PIXELS:
                raise InputError(f"image {len(found)}: over {MAX_PIXELS:,} pixels together")
        found.append(path)
        return f"<{name}>"


def read_question(messages: Sequence[object], folder: Path) -> Task:
    """The task that a list of chat messages asks; media are written into `folder`.

    A lone user message is the question. Of a longer chat the earlier messages stand in front of
    the last, each with its role. Media that follow text are named in it; leading ones are not.
    Raises InputError that says which message cannot be used, and why.
    """
    if not messages:
        raise InputError("messages: must hold at least one {role, content}")
    files = _Files(folder)
    said = [_message(message, at, files) for at, message in enumerate(messages)]
    if said[-1][0] != "user":
        raise InputError(
            f"messages[{len(said) - 1}]: is of {said[-1][0]!r}, the last must be 'user'"
        )
    question = said[-1][1]
    if len(said) > 1:
        earlier = "\n\n".join(f"{role.capitalize()}: {text}" for role, text in said[:-1])
        question = f"{earlier}\n\nUser: {question}"
    if not question.strip():
        raise InputError(f"messages[{len(said) - 1}]: has no text")
    return Task("chat", question, "", tuple(files.images), tuple(files.videos))


def _message(message: object, at: int, files: _Files) -> tuple[str, str]:
    """Role and text of a message."""
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise InputError(f"messages[{at}]: must have a role of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, str):
        return str(message["role"]), content
    if not isinstance(content, list):
        raise InputError(f"messages[{at}].content: must be text or a list of parts")
    return str(message["role"]), _parts(content, at, files)


def _parts(parts: Sequence[object], at: int, files: _Files) -> str:
    text = ""
    for place, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or (kind != "text" and kind not in MEDIA):
            raise InputError(
                f"messages[{at}].content[{place}]: type {kind!r}; there are text, "
                f"{', '.join(MEDIA)}"
            )
        if kind == "text":
            said = part.get("text")
            if not isinstance(said, str):
                raise InputError(f"messages[{at}].content[{place}]: text must be a string")
            text += said
        else:
            mark = files.add(MEDIA[str(kind)], part)
            text += mark if text.strip() else ""
    return text


def _data(url: object, name: str) -> bytes:
    """The bytes of a data URL: the server fetches nothing and opens no file for a client."""
    if not isinstance(url, str) or not url.startswith("data:"):
        raise InputError(f"{name}: must be a data: URL (data:image/png;base64,...)")
    head, _, text = url.partition(",")
    if not head.endswith(";base64"):
        raise InputError(f"{name}: the data: URL must be base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, or that of a character beyond ASCII
        raise InputError(f"{name}: broken base64 ({error})") from error
