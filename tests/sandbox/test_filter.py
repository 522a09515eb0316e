"""The filter, interpreted call by call beside its table."""

from __future__ import annotations

import platform
import struct

import pytest

from pyvision_rl.sandbox.confine import seccomp
from pyvision_rl.sandbox.confine.syscalls import ALLOWED, AUDIT_ARCH, numbers

REFUSED = 0x00050001  # errno EPERM


def answer(number: int, arguments: tuple[int, ...] = (), architecture: int | None = None) -> int:
    """What the installed filter returns to the kernel, by interpreting the program."""
    architecture = architecture or AUDIT_ARCH[platform.machine()]
    words = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, architecture, 0, *words)
    program = list(struct.iter_unpack("<HBBI", seccomp.build_filter()))
    register, at = 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == seccomp.RETURN:
            return value
        if code == seccomp.LOAD:
            register = struct.unpack_from("<I", data, value)[0]
        elif code == seccomp.AND:
            register &= value
        else:
            true = register == value if code == seccomp.JUMP_IF_EQUAL else register >= value
            at += if_true if true else if_false


def test_every_call_number_is_answered_as_its_table_says() -> None:
    allowed = set(numbers(ALLOWED).values())
    by_argument = set(seccomp.numbers(seccomp.ALLOWED_BY_ARGUMENT).values())
    for number in (*range(600), 2**30, 2**30 + min(allowed), 2**32 - 1):
        if number not in by_argument:
            wanted = seccomp.ALLOW if number in allowed else REFUSED
            assert answer(number) == wanted, number


@pytest.mark.skipif(platform.machine() != "x86_64", reason="call numbers of x86_64")
def test_arguments_decide_where_they_must() -> None:
    assert answer(62, (seccomp.OWN_PID, 9)) == seccomp.ALLOW  # kill
    assert answer(62, (1, 9)) == REFUSED
    assert answer(62, (2**32 - 1, 9)) == REFUSED
    assert answer(56, (0x7D0F00,)) == seccomp.ALLOW  # clone: a thread
    assert answer(56, (0x7D0F00 | 0x10000000,)) == REFUSED  # and a user namespace
    assert answer(56, (17,)) == REFUSED
    assert answer(435) == 0x00050000 | 38  # clone3
    assert answer(257, (0, 0, 0o1000)) == REFUSED  # openat: read-only, truncating
    assert answer(257, (0, 0, 0o1001)) == seccomp.ALLOW
    assert answer(44, (3, 0, 1, 0, 0)) == seccomp.ALLOW  # sendto without an address
    assert answer(44, (3, 0, 1, 0, 2**32)) == REFUSED


def test_another_architecture_ends_the_process() -> None:
    assert answer(0, architecture=0x40000003) == seccomp.KILL_PROCESS
