"""The system call filter of a runtime: an allow-list as a classic BPF program, installed by
the process itself.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Iterable

from pyvision_rl.sandbox.confine.libc import call_libc
from pyvision_rl.sandbox.confine.syscalls import (
    ALLOWED,
    ALLOWED_BY_ARGUMENT,
    AUDIT_ARCH,
    numbers,
)

LOAD, AND, JUMP_IF_EQUAL, JUMP_IF_GE, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
OFFSET_NUMBER, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16
ALLOW, KILL_PROCESS, USER_NOTIFY = 0x7FFF0000, 0x80000000, 0x7FC00000
PR_SET_SECCOMP, PR_GET_SECCOMP, SECCOMP_MODE_FILTER = 22, 21, 2

OWN_PID = 0x7FFF1234
"""Stands for the runtime's own process id until the filter is installed; above the kernel's
largest id.
"""

CLONE_OF_A_THREAD = 0x7D0F00
CLONE_THREAD = 0x10000
O_ACCMODE, O_TRUNC = 0o3, 0o1000
SOCK_FLAGS = 0o2004000
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
"""Duplicates, flags, locks, and the size of a pipe; no owners, signals, leases or seals."""
IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Is it a terminal, its size, bytes to read, non-blocking, close-on-exec."""
PRCTL_OPTIONS = (3, 15, 16, 23, 0x53564D41)
"""Dumpable and capability bounds read, thread name, name of a mapping."""

Instruction = tuple[int, int, int, int]
Run = tuple[int, list[Instruction]]


def refuse(number: int = errno.EPERM) -> Instruction:
    """Return `number` to the caller as errno."""
    return (RETURN, 0, 0, 0x00050000 | number)


def load_argument(index: int, high: bool = False) -> Instruction:
    """Load one half of a 64-bit argument."""
    return (LOAD, 0, 0, OFFSET_ARGS + 8 * index + (4 if high else 0))


def one_of(index: int, values: Iterable[int]) -> list[Instruction]:
    """Allow when the argument is one of `values`."""
    body = [load_argument(index)]
    for value in values:
        body += [(JUMP_IF_EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    return [*body, refuse()]


def masked(index: int, mask: int, value: int) -> list[Instruction]:
    """Allow when the argument's bits under `mask` are `value`."""
    test = [load_argument(index), (AND, 0, 0, mask), (JUMP_IF_EQUAL, 0, 1, value)]
    return [*test, (RETURN, 0, 0, ALLOW), refuse()]


def is_null(index: int) -> list[Instruction]:
    """Allow when a pointer is NULL."""
    low = [load_argument(index), (JUMP_IF_EQUAL, 1, 0, 0), refuse()]
    high = [load_argument(index, high=True), (JUMP_IF_EQUAL, 1, 0, 0), refuse()]
    return [*low, *high, (RETURN, 0, 0, ALLOW)]


def not_truncating_read(index: int) -> list[Instruction]:
    """Allow unless a read-only open would truncate, which old landlock versions do not see."""
    test = [load_argument(index), (AND, 0, 0, O_ACCMODE | O_TRUNC)]
    return [*test, (JUMP_IF_EQUAL, 0, 1, O_TRUNC), refuse(), (RETURN, 0, 0, ALLOW)]


def conditions() -> dict[str, list[Instruction]]:
    """What must hold of the arguments of the calls in `ALLOWED_BY_ARGUMENT`."""
    socketpair = [load_argument(0), (JUMP_IF_EQUAL, 1, 0, 1), refuse()]  # AF_UNIX
    socketpair += masked(1, 0xFFFFFFFF & ~SOCK_FLAGS, 1)  # SOCK_STREAM: cannot be sent elsewhere
    thread_only = 0xFFFFFFFF & ~CLONE_OF_A_THREAD | CLONE_THREAD
    return {
        "clone": masked(0, thread_only, CLONE_THREAD),
        "clone3": [refuse(errno.ENOSYS)],  # flags in memory cannot be checked; libc falls back
        "fcntl": one_of(1, FCNTL_COMMANDS),
        "ioctl": one_of(1, IOCTL_REQUESTS),
        "prctl": one_of(0, PRCTL_OPTIONS),
        "kill": one_of(0, [OWN_PID]),
        "tgkill": one_of(0, [OWN_PID]),
        "prlimit64": one_of(0, [0, OWN_PID]),
        "sched_setaffinity": one_of(0, [0, OWN_PID]),
        "socketpair": socketpair,
        "sendto": is_null(4),
        "open": not_truncating_read(1),
        "openat": not_truncating_read(2),
    }


def build_filter() -> bytes:
    """The program for this machine, with `OWN_PID` in place of the process id."""
    bodies = conditions()
    answers = {number: [(RETURN, 0, 0, ALLOW)] for number in numbers(ALLOWED).values()}
    answers |= {number: bodies[name] for name, number in numbers(ALLOWED_BY_ARGUMENT).items()}
    program = [
        (LOAD, 0, 0, OFFSET_ARCH),
        (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH[platform.machine()]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, OFFSET_NUMBER),
        *search(runs(answers)),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def runs(answers: dict[int, list[Instruction]]) -> list[Run]:
    """Runs of call numbers that are answered alike, each by its first; all others (x32's too) are
    refused.
    """
    found: list[Run] = [(0, [refuse()])]
    for number, answer in sorted(answers.items()):
        for first, body in ((number, answer), (number + 1, [refuse()])):
            if found[-1][0] == first:
                found.pop()
            if not found or found[-1][1] != body:
                found.append((first, body))
    return found


def search(found: list[Run]) -> list[Instruction]:
    """A tree of comparisons: the kernel walks the whole program for every call number when it is
    installed.
    """
    if len(found) == 1:
        return found[0][1]
    middle = len(found) // 2
    below, above = search(found[:middle]), search(found[middle:])
    return [(JUMP_IF_GE, len(below), 0, found[middle][0]), *below, *above]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def own_program(program: bytes, pid: int) -> tuple[ctypes.Structure, int]:
    """The kernel's view of the program, made out to process `pid`, and its address."""
    own = program.replace(struct.pack("<I", OWN_PID), struct.pack("<I", pid))
    view = _Program(len(own) // 8, own)
    return view, ctypes.addressof(view)


def install_filter(program: bytes, pid: int) -> None:
    """Apply the program to this process for good; needs no_new_privs. Raises `OSError`."""
    view, address = own_program(program, pid)
    call_libc("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0)
    del view


def has_seccomp() -> bool:
    """Whether this kernel takes filters and this machine's system calls are known here."""
    if platform.machine() not in AUDIT_ARCH:
        return False
    try:
        # A filter at address 0 is EFAULT where filters exist and EINVAL where they do not.
        call_libc("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0, 0)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False
