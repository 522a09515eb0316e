"""Calls into the C library that Python has no name for; a failure raises `OSError` naming the
call.
"""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
LIBC = ctypes.CDLL(None, use_errno=True)


def call_libc(name: str, *arguments: int | bytes | None) -> int:
    """Call `name`; integers go as 64-bit words, bytes as pointers."""
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    function = getattr(LIBC, name)
    function.restype = ctypes.c_int
    result = function(*words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def forget_handlers(*numbers: signal.Signals) -> None:
    """Let signals have their default effect; `signal.signal` would make enum members of its
    results first.
    """
    for number in numbers:
        LIBC.signal(int(number), None)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send `number` to this process when its parent goes."""
    call_libc("prctl", PR_SET_PDEATHSIG, int(number), 0, 0, 0)
