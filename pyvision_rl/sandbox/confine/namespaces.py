"""Namespaces of the fork server, and its private root: read-only binds of what runtimes may
read, nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from pyvision_rl.sandbox.confine.libc import call_libc
from pyvision_rl.sandbox.confine.paths import DEVICES

NEWNS, NEWUTS, NEWIPC = 0x00020000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
KEPT_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC
SCRATCH = "/scratch"
MAX_FILES = 8192


def mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    """mount(2)."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    call_libc("mount", texts[0], texts[1], texts[2], flags, texts[3])


def enter_namespaces() -> None:
    """Leave the host's user (unless root), process, network and IPC namespaces; raises `OSError`.

    The process id namespace is that of the next child. Call with one thread.
    """
    rest = NEWUTS | NEWIPC | NEWNET | NEWPID
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        call_libc("unshare", rest)
    else:
        call_libc("unshare", NEWUSER | rest)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def enter_private_root(folder: Path, readable: Iterable[Path]) -> None:
    """Make a tmpfs on `folder` the root: binds of `readable`, `/proc` of this namespace,
    `/scratch`.

    Raises `OSError`, possibly half done: the caller must not go on as if nothing had happened.
    """
    call_libc("unshare", NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", str(folder), "tmpfs", MS_NOSUID, "size=1m,mode=755")
    for path in readable:
        if path.is_relative_to("/proc"):
            continue
        bind_read_only(path, folder / path.relative_to("/"))
    (folder / "proc").mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # a container that masks parts of /proc forbids a fresh one
        mount("proc", str(folder / "proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    (folder / SCRATCH.lstrip("/")).mkdir()
    mount("tmpfs", str(folder), None, MS_REMOUNT | MS_NOSUID | MS_RDONLY, "size=1m,mode=755")
    os.chdir(folder)
    call_libc("pivot_root", b".", b".")
    call_libc("umount2", b".", MNT_DETACH)
    os.chdir("/")


def bind_read_only(path: Path, target: Path) -> None:
    """Bind `path` to `target`; a symbolic link (such as /lib) is copied as a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and not path.is_relative_to("/etc"):
        if not target.is_symlink():
            target.symlink_to(os.readlink(path))
        return
    if path.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    mount(str(path), str(target), None, MS_BIND | MS_REC)
    kept = os.statvfs(path).f_flag & KEPT_FLAGS  # those of the host cannot be taken away
    device = str(path) in DEVICES
    added = MS_NOSUID | (0 if device else MS_NODEV | MS_RDONLY)
    mount(None, str(target), None, MS_BIND | MS_REMOUNT | kept | added)


def enter_scratch(size_mb: int, uid: int) -> None:
    """Give this process a mount namespace with its own tmpfs on `/scratch`, bounded in bytes
    and files.
    """
    call_libc("unshare", NEWNS)
    options = f"size={size_mb + 1}m,nr_inodes={MAX_FILES},mode=700,uid={uid},gid={uid}"
    mount("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
