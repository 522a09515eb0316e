"""Giving up rights: an own uid per runtime where the fork server is root, capabilities,
resource limits.
"""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

from pyvision_rl.sandbox.confine.libc import call_libc

CAPABILITY_VERSION = 0x20080522
PREFERRED_UIDS = 2_000_000_000
NUM_UIDS = 12_000
MAX_DESCRIPTORS = 256
MAX_THREADS = 64
STORM = 256
"""Threads for which a runtime is ended where the kernel does not count them for each alone."""


def first_uid() -> int | None:
    """The first of `NUM_UIDS` user ids that nobody uses, or None where this process may not
    give any.
    """
    if os.getuid() != 0:
        return None
    first = unused_range(Path("/proc/self/uid_map").read_text())
    if first is None:
        return None
    pid = os.fork()
    if pid == 0:
        try:
            become(first)
        except OSError:
            os._exit(1)
        os._exit(0)
    return first if os.waitpid(pid, 0)[1] == 0 else None


def unused_range(uid_map: str) -> int | None:
    """Where a run of `NUM_UIDS` ids lies in this user namespace: far up, or at the end of the
    largest range.
    """
    rows = [[int(word) for word in line.split()] for line in uid_map.splitlines()]
    start, _, length = max(rows, key=lambda row: row[2])
    if start <= PREFERRED_UIDS and start + length >= PREFERRED_UIDS + NUM_UIDS:
        return PREFERRED_UIDS
    # Two short of the end: 65534 is nobody.
    return start + length - NUM_UIDS - 2 if length > 2 * NUM_UIDS else None


def become(uid: int) -> None:
    """Be user and group `uid` for good, without supplementary groups."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def drop_capabilities() -> None:
    """Clear every capability; with no_new_privs and no exec none can come back."""
    header = struct.pack("<Ii", CAPABILITY_VERSION, 0)
    call_libc("capset", header, struct.pack("<6I", *[0] * 6))


def resource_limits(address_space: int, file_size: int, own_uid: bool) -> list[tuple[int, int]]:
    """Bounds on memory, files, descriptors and (where they are counted per runtime) threads, none
    above what this process may have.
    """
    limits = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: MAX_DESCRIPTORS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if own_uid:
        limits[resource.RLIMIT_NPROC] = MAX_THREADS
    hard = {name: resource.getrlimit(name)[1] for name in limits}
    return [
        (name, value if hard[name] == resource.RLIM_INFINITY else min(value, hard[name]))
        for name, value in limits.items()
    ]


def num_threads(pid: int) -> int:
    """Threads of a process, 0 where it is gone or cannot be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[17])
