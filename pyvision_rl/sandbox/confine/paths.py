"""Which host paths a runtime may read: the interpreter's libraries, shared libraries, fonts,
a few devices.
"""

from __future__ import annotations

import os
import site
import stat
import sys
from pathlib import Path

SYSTEM_PATHS = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/share/fonts",
    "/usr/share/fontconfig",
    "/usr/share/zoneinfo",
    "/usr/share/tesseract-ocr",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
PROC_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu")


def library_paths() -> list[Path]:
    """Folders of this interpreter's own libraries; never a folder that merely is on `sys.path`."""
    candidates = [
        Path(prefix) / part
        for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
        for part in ("lib", "lib64", "share", "nltk_data")
        if prefix not in ("/", "/usr", "/usr/local")
    ]
    if site.ENABLE_USER_SITE:
        candidates.append(Path(site.getusersitepackages()))
    return [path for path in candidates if path.is_dir()]


def readable_paths() -> list[Path]:
    """Everything a runtime may read besides its scratch folder and its own `/proc/self`."""
    named = [Path(name) for name in (*SYSTEM_PATHS, *DEVICES, *PROC_FILES)]
    return [path for path in (*library_paths(), *named) if path.exists()]


def reachable_by_anyone(path: Path) -> bool:
    """Whether a user without any right of its own can get to `path`."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


def readable_by_anyone(path: Path, with_parents: bool) -> bool:
    """Whether a user without any right of its own can read `path` (and, asked so, get there)."""
    mode = path.stat().st_mode
    needed = stat.S_IROTH | stat.S_IXOTH if path.is_dir() else stat.S_IROTH
    return mode & needed == needed and (not with_parents or reachable_by_anyone(path))


def libraries_readable_by_anyone(with_parents: bool) -> bool:
    """Whether the standard library and numpy stay importable after giving up the own uid."""
    samples = (Path(os.__file__).parent, Path(sys.modules["numpy"].__file__ or "/"))
    return all(readable_by_anyone(path, with_parents) for path in samples)
