"""Memory of the fork server and its forks: huge pages make a fork and the buffers of a figure
cheap, and what a cell frees goes back to the system.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

from pyvision_rl.sandbox.confine.libc import LIBC, call_libc

HUGE_PAGE = 1 << 21
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
TOP_PAD = 1 << 17
"""glibc's own choice."""
RESERVE = 16 << 20
"""Bytes for the large buffers of a cell; a figure of 640x480 needs 10 MiB at once."""
SMALL = 1 << 19
"""Bytes before them for small objects, so that an idle runtime touches no huge page."""
ROOM = 32 << 20
"""Bytes that the fork server's imports fill with small objects, and again with large ones."""
POOL, POOL_HEADER, MAX_SMALL = 1 << 14, 48, 512
"""Python keeps objects of up to `MAX_SMALL` bytes in pools, each for one size."""
SMALLEST_ARENA = 1 << 18
"""Pools lie in arenas; one with nothing in it goes back to the system."""
HAS_GLIBC = hasattr(LIBC, "malloc_trim")

_held: list[object] = []


def make_room() -> None:
    """Before the imports: what they make shall lie in two long pieces, which huge pages can hold,
    not in dozens of short ones between the libraries.
    """
    if HAS_GLIBC:  # and within a cell nothing goes back, only to be asked for again
        call_libc("mallopt", M_TOP_PAD, ROOM)
        call_libc("mallopt", M_MMAP_THRESHOLD, 2 * RESERVE)
        call_libc("mallopt", M_TRIM_THRESHOLD, 1 << 30)
    blocks = [new_block(MAX_SMALL) for _ in range(ROOM // MAX_SMALL)]
    _held.extend(blocks[:: SMALLEST_ARENA // MAX_SMALL])


def forget_lookups() -> None:
    """Empty the cache of methods that were looked up: whoever replaces an entry writes to the name
    that was there before, anywhere in memory.
    """
    ctypes.pythonapi.PyType_ClearCache()


def settle() -> None:
    """Before the first fork: what was imported stays for good, what was freed goes, and pages are
    gathered into huge ones, of which a fork copies one entry instead of 512.
    """
    if HAS_GLIBC:  # memory taken in advance is not known to be zero: `calloc` would clear it
        call_libc("mallopt", M_TOP_PAD, TOP_PAD)
    tidy()
    fill_holes()
    gc.freeze()
    for start, num_bytes in private_memory():
        with contextlib.suppress(OSError):  # kernels before 6.1 cannot, and some pages will not
            call_libc("madvise", start, num_bytes, MADV_COLLAPSE)


def fill_holes() -> None:
    """Take the free blocks between what is there, so that what is made from now on lies together:
    what server and forks write to is copied page by page, and each huge page with it is split.
    """
    for size in range(16, MAX_SMALL + 1, 16):
        in_pool = (POOL - POOL_HEADER) // size
        for _ in range(ROOM // POOL // 8):
            blocks = [new_block(size) for _ in range(in_pool)]
            pools = [id(block) // POOL for block in blocks]
            if len(set(pools)) <= 2:  # the last one that something was in, and a new one
                _held.extend(blocks[: pools.count(pools[0])])
                break
            _held.extend(blocks)


def new_block(size: int) -> object:
    """An object that takes `size` bytes, a multiple of 16, and is no one else's."""
    if size == 16:
        return object()
    return int("2000000000") if size == 32 else bytes(size - sys.getsizeof(b""))


def private_memory() -> Iterator[tuple[int, int]]:
    """Address and size of what has the size of whole huge pages in this process's own memory."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except FileNotFoundError:  # some containers forbid a /proc in the private root
        return
    for line in maps.splitlines():
        addresses, rights, _, _, inode, *name = line.split()
        if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            first, end = (int(address, 16) for address in addresses.split("-"))
            start = -(-first // HUGE_PAGE) * HUGE_PAGE
            if end - start >= HUGE_PAGE:
                yield start, (end - start) // HUGE_PAGE * HUGE_PAGE


def tidy() -> None:
    """Give memory that was freed back to the system: hundreds of runtimes idle between turns."""
    gc.collect()
    if HAS_GLIBC:
        LIBC.malloc_trim(0)
        reserve()


def reserve() -> None:
    """Have the heap end in room that is untouched and, when touched, comes in huge pages: 256 KiB
    of it cost what 4 KiB cost otherwise.
    """
    LIBC.malloc.restype = ctypes.c_size_t
    block = LIBC.malloc(ctypes.c_size_t(RESERVE))
    start = -(-(block + SMALL) // HUGE_PAGE) * HUGE_PAGE
    if block:
        LIBC.madvise(
            ctypes.c_size_t(start),
            ctypes.c_size_t((block + RESERVE - start) // HUGE_PAGE * HUGE_PAGE),
            MADV_HUGEPAGE,
        )
    LIBC.free(ctypes.c_size_t(block))
