"""The process between the pool and the fork server: puts the server into namespaces and
cleans up behind it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pyvision_rl.sandbox.confine import folders, namespaces, paths
from pyvision_rl.sandbox.confine.libc import call_libc, die_with_parent

PR_SET_CHILD_SUBREAPER = 36


def namespaces_work(folder: Path) -> bool:
    """Try the whole of it in a process of its own, since a failure half way cannot be undone."""
    readable = paths.readable_paths()

    def attempt() -> None:
        namespaces.enter_namespaces()
        in_child(lambda: namespaces.enter_private_root(folder, readable), attempt_scratch)

    return run_apart(attempt)


def attempt_scratch() -> None:
    """The part that every runtime does."""
    namespaces.enter_scratch(1, os.getuid())


def in_child(*steps: Callable[[], None]) -> None:
    """Run `steps` in a child and raise `OSError` if they fail there."""

    def attempt() -> None:
        for step in steps:
            step()

    if not run_apart(attempt):
        raise OSError("failed in the child")


def run_apart(attempt: Callable[[], None]) -> bool:
    """Whether `attempt` runs without `OSError` in a forked process."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(OSError):
            attempt()
            status = 0
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def keep(folder: Path, use_namespaces: bool, serve: Callable[[], None]) -> None:
    """Run `serve` in a child, the first process of new namespaces if asked for, and outlive all its
    forks.

    Then the pool's folder is removed, whoever ended first and however.
    """
    if use_namespaces:
        namespaces.enter_namespaces()
    call_libc("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with_parent(signal.SIGTERM)
        if os.getppid() not in (keeper, 0):
            os._exit(71)
        serve()
        sys.exit(0)
    # The control socket is the server's alone: the pool must see its end when the server ends.
    os.closerange(3, 2**31 - 1)
    try:
        os.waitpid(pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        folders.remove(folder)
