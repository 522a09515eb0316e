"""The file view of a runtime: landlock rules by descriptor, so that no path is looked up twice."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator

from pyvision_rl.sandbox.confine.libc import call_libc

SYS_CREATE_RULESET, SYS_ADD_RULE, SYS_RESTRICT_SELF = 444, 445, 446
RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
NEVER = EXECUTE | MAKE_CHAR | MAKE_SOCK | MAKE_BLOCK | IOCTL_DEV
OWN_PROC_FILES = tuple(f"/proc/self/{name}" for name in ("maps", "stat", "statm", "status"))
"""Not the folder: `net`, `mountinfo` and `cgroup` in it tell of the host."""
ALL_NETWORK = 0b11
ALL_SCOPES = 0b11


def landlock_version() -> int:
    """The kernel's landlock ABI, 0 where there is none."""
    try:
        return call_libc("syscall", SYS_CREATE_RULESET, 0, 0, 1)
    except OSError:
        return 0


def all_file_rights(version: int) -> int:
    """Every file right that ABI `version` knows: 13 in the first, one more in 2, 3 and 5."""
    return (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1


@contextlib.contextmanager
def ruleset(version: int) -> Iterator[int]:
    """A ruleset that denies every file right, TCP, and (ABI 6) signals and abstract sockets
    outside.
    """
    attributes = struct.pack("<Q", all_file_rights(version))
    if version >= 4:
        attributes += struct.pack("<Q", ALL_NETWORK)
    if version >= 6:
        attributes += struct.pack("<Q", ALL_SCOPES)
    descriptor = call_libc("syscall", SYS_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def allow(rules: int, rights: int, path: int) -> None:
    """Allow `rights` on and below the open path."""
    rule = struct.pack("<Qi", rights, path)
    call_libc("syscall", SYS_ADD_RULE, rules, RULE_PATH_BENEATH, rule, 0)


def restrict_files(version: int, readable: Iterable[tuple[int, bool]], scratch: str) -> None:
    """Confine this process to reading `readable` (open path, is a folder) and working in `scratch`.

    Needs no_new_privs. Raises `OSError`.
    """
    everything = all_file_rights(version)
    with ruleset(version) as rules:
        for path, is_folder in readable:
            allow(rules, READ if is_folder else READ_FILE, path)
        with open_path(scratch) as path:
            allow(rules, everything & ~NEVER, path)
        for name in OWN_PROC_FILES:
            with contextlib.suppress(OSError), open_path(name) as path:
                allow(rules, READ_FILE, path)
        with contextlib.suppress(FileNotFoundError), open_path(os.devnull) as path:
            allow(rules, READ_FILE | WRITE_FILE | TRUNCATE & everything, path)
        call_libc("syscall", SYS_RESTRICT_SELF, rules, 0)


@contextlib.contextmanager
def open_path(name: str) -> Iterator[int]:
    """A descriptor that only names `name`."""
    descriptor = os.open(name, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
