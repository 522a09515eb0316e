"""A program of the user's that runs in every runtime before the policy's first one: it defines the
tools that a prompt of one's own speaks of.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pyvision_rl.errors import InputError
from pyvision_rl.rollout.shared_cells import SHARED_KINDS
from pyvision_rl.sandbox import CellResult

logger = logging.getLogger(__name__)


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


def check_setup(path: str, result: CellResult) -> bool:
    """Whether the program ran; False, with a warning, where the machine may be to blame for its
    end (a time-out, a death): that loses a sandbox, not the run.

    Raises InputError where it failed, or showed a figure, which no one would see.
    """
    reason = (result.text.strip().splitlines() or [result.kind])[-1]
    if result.kind not in SHARED_KINDS:
        logger.warning("rollout.setup %s: did not end in the sandbox (%s)", path, reason)
        return False
    if result.kind != "ok":
        raise InputError(f"rollout.setup {path}: failed in the sandbox ({reason})")
    if result.images:
        raise InputError(f"rollout.setup {path}: shows a figure; it may only define names")
    return True
