"""A lazy video reader."""

from __future__ import annotations


class VideoReader:
    """Not there yet."""


def cpu(index: int = 0) -> tuple[str, int]:
    """The only device."""
    return ("cpu", index)


def open_descriptor(descriptor: int) -> VideoReader:
    """A reader of the open file."""
    return VideoReader()
