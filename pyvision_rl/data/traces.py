"""Cold-start traces: conversations in the released SFT layout (sharegpt json), read and checked.

A row holds `conversations` [{role, content}] (or {from, value}), `images` and `source_dataset`, and
where it is about videos `videos`: either as many `<video>` marks stand in its user messages, or
none, where the videos are in the runtime only.
Our extension `loss_exclude` [[message, start, end], ...] names characters of assistant messages
that the SFT loss skips, for example a guess that the trace cannot know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyvision_rl.data.readers import media_paths
from pyvision_rl.data.rows import Row, check_unicode, iter_rows

Role = Literal["system", "user", "assistant", "observation"]

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "observation": "observation",
    "tool": "observation",
}


VIDEO = "<video>"
"""Stands for a video in a message of a row that has videos; elsewhere it is text."""


@dataclass(frozen=True)
class Message:
    """One message as pieces of text: between each piece and the next stands one image.

    `("<image_clue_0>", "</image_clue_0>\\n\\nHow many?")` has one image. The released data writes
    what code returned as a "user" message with its `<tool_response>` wrapping; an "observation"
    message comes without that wrapping, which the chat template adds.
    """

    role: Role
    parts: tuple[str, ...]

    @property
    def num_images(self) -> int:
        """Images that stand in this message."""
        return len(self.parts) - 1

    @property
    def text(self) -> str:
        """The whole text, images left out."""
        return "".join(self.parts)


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of an assistant message that the loss skips."""

    message: int
    start: int
    end: int


@dataclass(frozen=True)
class Trace:
    """A conversation to imitate; `images` and `videos` are those of all messages, in order."""

    messages: tuple[Message, ...]
    images: tuple[Path, ...]
    excluded: tuple[Span, ...] = ()
    source: str = ""
    videos: tuple[Path, ...] = ()


def read_traces(
    path: str | Path, *, image_root: str | Path | None = None, limit: int | None = None
) -> list[Trace]:
    """The traces of a sharegpt file, in order; relative images are taken from `image_root`, by
    default the file's folder.

    Raises InputError that names file, row, field and value at the first row that is not usable.
    """
    traces = []
    for row, trace in iter_traces(path, image_root, limit):
        row.raise_first()
        traces.append(trace)
    return traces


def iter_traces(
    path: str | Path, image_root: str | Path | None, limit: int | None
) -> Iterator[tuple[Row, Trace]]:
    """Each row and its trace; where the row has problems the trace is not to be used."""
    base = Path(image_root) if image_root is not None else Path(path).parent
    for row in iter_rows(path, limit):
        yield row, _trace(row, base)


def _trace(row: Row, base: Path) -> Trace:
    messages = _messages(row)
    images = media_paths(row, "images", row.fields.get("images") or [], base)
    num_marks = sum(message.num_images for message in messages)
    if num_marks != len(images):
        row.fail("images", f"{len(images)} paths", f"the messages hold {num_marks} <image>")
    videos = media_paths(row, "videos", row.fields.get("videos") or [], base)
    num_marks = sum(message.text.count(VIDEO) for message in messages)
    if videos and num_marks not in (0, len(videos)):
        row.fail("videos", f"{len(videos)} paths", f"the messages hold {num_marks} {VIDEO}")
    if videos and any(VIDEO in message.text for message in messages if message.role != "user"):
        row.fail("videos", f"{len(videos)} paths", f"{VIDEO} may stand in user messages only")
    return Trace(messages, images, _spans(row, messages), row.text("source_dataset", ""), videos)


def _messages(row: Row) -> tuple[Message, ...]:
    name = "messages" if "messages" in row.fields else "conversations"
    values = row.fields.get(name)
    if not isinstance(values, list) or not values:
        row.fail(name, values, "must be a list of {role, content}")
        return ()
    messages = tuple(_message(row, f"{name}[{at}]", value) for at, value in enumerate(values))
    roles = " ".join(message.role for message in messages)
    if any(message.role == "system" for message in messages[1:]):
        row.fail(name, roles, "a system message comes first")
    if row.fields.get("system"):
        reason = "must be the first message, with the role 'system'"
        row.fail("system", row.fields["system"], reason)
    turns = [message.role == "assistant" for message in messages if message.role != "system"]
    if any(turn != bool(at % 2) for at, turn in enumerate(turns)) or len(turns) % 2 or not turns:
        row.fail(name, roles, "must go user, assistant, user or observation, assistant, ...")
    return messages


def _message(row: Row, name: str, value: object) -> Message:
    if not isinstance(value, Mapping):
        row.fail(name, value, "must be {role, content} or {from, value}")
        return Message("user", ("",))
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if not isinstance(role, str) or role not in ROLES:
        row.fail(f"{name}.role", role, f"must be one of {', '.join(ROLES)}")
        role = "user"
    if not isinstance(content, str) or not content.strip():
        row.fail(f"{name}.content", content, "must be text and not empty")
        content = ""
    check_unicode(row, f"{name}.content", content)
    message = Message(ROLES[role], tuple(content.split("<image>")))
    if message.role in ("assistant", "system") and message.num_images:
        row.fail(f"{name}.content", content, "<image> may stand in user messages only")
    return message


def _spans(row: Row, messages: tuple[Message, ...]) -> tuple[Span, ...]:
    values = row.fields.get("loss_exclude")
    if values is None:
        return ()
    if not isinstance(values, list):
        row.fail("loss_exclude", values, "must be a list of [message, start, end]")
        return ()
    spans: list[Span] = []
    for value in values:
        span = _span(value, messages)
        if span is None:
            row.fail(
                "loss_exclude",
                value,
                "must be [message, start, end]: an assistant message and characters inside it",
            )
        else:
            spans.append(span)
    return tuple(spans)


def _span(value: object, messages: tuple[Message, ...]) -> Span | None:
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or any(type(number) is not int for number in numbers):
        return None
    message, start, end = numbers
    if not 0 <= message < len(messages) or messages[message].role != "assistant":
        return None
    return Span(message, start, end) if 0 <= start < end <= len(messages[message].text) else None
