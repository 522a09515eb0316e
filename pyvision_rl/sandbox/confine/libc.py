"""Calls into the C library that Python has no name for; a failure raises `OSError` naming the
call.
"""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
LIBC = ctypes.CDLL(None, use_errno=True)
HOLDING_THE_LOCK = ctypes.PyDLL(None, use_errno=True)
for _name in ("capset", "mount", "prctl", "signal", "syscall", "unshare"):
    getattr(LIBC, _name)  # looked up before the first fork, not in each


def call_libc(name: str, *arguments: int | bytes | None) -> int:
    """Call `name`; integers go as 64-bit words, bytes as pointers."""
    result: int = getattr(LIBC, name)(*map(word, arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def word(argument: int | bytes | None) -> ctypes.c_ulong | bytes | None:
    """An argument of a call as ctypes is to pass it; a plain int would be cut to 32 bits."""
    return ctypes.c_ulong(argument) if isinstance(argument, int) else argument


def forget_handlers(*numbers: signal.Signals) -> None:
    """Let signals have their default effect; `signal.signal` would make enum members of its
    results first.
    """
    for number in numbers:
        LIBC.signal(int(number), None)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send `number` to this process when its parent goes."""
    call_libc("prctl", PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def fork() -> int:
    """fork(2) of a process with one thread, without what `os.fork` does around it for the sake of
    others: locks made anew, generators seeded, fonts closed. All that writes to memory, which the
    new process then has to copy.
    """
    pid: int = HOLDING_THE_LOCK.fork()
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"fork: {os.strerror(number)}")
    return pid
