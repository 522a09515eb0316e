"""Confinement of a runtime: what the fork server sets up once, and what each fork applies to
itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
from pathlib import Path

from pyvision_rl.sandbox import control

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class ConfinementError(Exception):
    """This machine cannot hold the isolation that was asked for."""


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send `number` to this process when its parent goes; end now if it already
    has.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(71)


class Confinement:
    """The layers of one fork server."""

    def __init__(self, setup: control.Setup) -> None:
        self._setup = setup
        self.layers: list[str] = []
        self._free: list[int] = []
        self._num_slots = 0

    @classmethod
    def prepare(cls, setup: control.Setup) -> Confinement:
        """Find out and set up what this machine offers."""
        return cls(setup)

    def take_slot(self) -> int:
        """A scratch folder (and uid, where uids are ours to give) that no living runtime has."""
        if not self._free:
            self._num_slots += 1
            self._free.append(self._num_slots - 1)
        slot = self._free.pop()
        self._scratch(slot).mkdir(mode=0o700)
        return slot

    def release_slot(self, slot: int) -> None:
        """Give a slot back once its runtime has been waited for."""
        shutil.rmtree(self._scratch(slot), ignore_errors=True)
        self._free.append(slot)

    def close(self) -> None:
        """Remove every scratch folder."""
        shutil.rmtree(self._setup.folder, ignore_errors=True)

    def _scratch(self, slot: int) -> Path:
        return Path(self._setup.folder) / f"scratch-{slot}"

    def enter(self, slot: int, parent: int, descriptors: list[int]) -> int:
        """Confine this freshly forked process; returns the file behind its descriptors 1 and 2."""
        die_with_parent(parent, signal.SIGKILL)
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.memfd_create("output")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        keep_only({0, 1, 2, output, *descriptors})
        os.chdir(self._scratch(slot))
        size = self._setup.scratch_mb << 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return output


def keep_only(descriptors: set[int]) -> None:
    """Close every other descriptor."""
    low = 0
    for descriptor in sorted(descriptors):
        if low < descriptor:  # closerange(n, n) closes everything from n on
            os.closerange(low, descriptor)
        low = descriptor + 1
    with contextlib.suppress(OSError):
        os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
