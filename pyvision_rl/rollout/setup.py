"""A program of the user's that runs in every runtime before the policy's first one: it defines the
tools that a prompt of one's own speaks of.
"""

from __future__ import annotations

from pathlib import Path

from pyvision_rl.errors import InputError
from pyvision_rl.sandbox import CellResult


def load_setup(path: str) -> str:
    """The program, empty where none is named. Raises InputError for a file that cannot be read or
    is no Python.
    """
    if not path:
        return ""
    try:
        code = Path(path).read_text("utf-8")
        compile(code, path, "exec", dont_inherit=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"rollout.setup {path}: cannot be read ({error})") from error
    except (SyntaxError, ValueError) as error:
        raise InputError(f"rollout.setup {path}: is no Python ({error})") from error
    return code


def check_setup(path: str, result: CellResult) -> None:
    """Raise InputError unless the program ran, and showed nothing, which no one would see."""
    if result.kind != "ok":
        reason = (result.text.strip().splitlines() or [result.kind])[-1]
        raise InputError(f"rollout.setup {path}: failed in the sandbox ({reason})")
    if result.images:
        raise InputError(f"rollout.setup {path}: shows a figure; it may only define names")
