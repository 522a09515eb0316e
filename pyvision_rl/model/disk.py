"""Disks that refuse: safetensors and torch say so in errors of their own, which are no OSErrors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

TORCH_WRITER = "inline_container.cc"
"""The part of torch that writes files, which its errors name."""


def as_os_errors(write: Callable[[Path], None]) -> Callable[[Path], None]:
    """`write` with OSErrors in place of what safetensors and torch raise on a full disk."""

    def wrapped(folder: Path) -> None:
        try:
            write(folder)
        except SafetensorError as error:
            raise OSError(_line(error)) from error
        except RuntimeError as error:
            if TORCH_WRITER not in str(error):
                raise
            # It does not say why the operating system refused.
            raise OSError(f"no room for a file of torch's ({_line(error)})") from error

    return wrapped


def _line(error: Exception) -> str:
    return str(error).splitlines()[0].rpartition("] . ")[2]  # behind the place in torch's code
