"""Memory of the fork server and its forks: huge pages make a fork and the buffers of a figure
cheap, and what a cell frees goes back to the system.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

from pyvision_rl.sandbox.confine.libc import LIBC, call_libc

HUGE_PAGE = 1 << 21
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
RESERVE = 16 << 20
"""Bytes for the large buffers of a cell; a figure of 640x480 needs 10 MiB at once."""
SMALL = 1 << 19
"""Bytes before them for small objects, so that an idle runtime touches no huge page."""
HAS_GLIBC = hasattr(LIBC, "malloc_trim")


def settle() -> None:
    """Before the first fork: what was imported stays for good, what was freed goes, and pages are
    gathered into huge ones, of which a fork copies one entry instead of 512.
    """
    if HAS_GLIBC:  # within a cell nothing goes back, only to be asked for again
        call_libc("mallopt", M_MMAP_THRESHOLD, 2 * RESERVE)
        call_libc("mallopt", M_TRIM_THRESHOLD, 1 << 30)
    tidy()
    gc.freeze()
    for start, num_bytes in private_memory():
        with contextlib.suppress(OSError):  # kernels before 6.1 cannot, and some pages will not
            call_libc("madvise", start, num_bytes, MADV_COLLAPSE)


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
