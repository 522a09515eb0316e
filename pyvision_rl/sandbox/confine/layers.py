"""The layers together: what the fork server sets up once, and the order in which a fork
applies them to itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import tempfile
from pathlib import Path

from pyvision_rl.sandbox.confine import folders, landlock, namespaces, paths, privileges, seccomp
from pyvision_rl.sandbox.confine.libc import (
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    call_libc,
    die_with_parent,
    forget_handlers,
)
from pyvision_rl.sandbox.control import Setup

MAX_SCRATCH_FILES = namespaces.MAX_FILES


class ConfinementError(Exception):
    """This machine cannot hold the isolation that was asked for."""


class Confinement:
    """The layers of one fork server. Make it in the server, after its imports and with one
    thread.
    """

    def __init__(self, setup: Setup, private_root: bool) -> None:
        """Find out what this machine offers; with `private_root`, leave the host's file tree."""
        self._setup = setup
        self._folder = Path(setup.folder)
        self._free: list[int] = []
        self._num_slots = 0
        self.layers: list[str] = []
        self.missing: list[str] = []
        self._private_root = private_root
        self._landlock = 0
        self._address_space = 0
        self._filter: bytes | None = None
        self._first_uid: int | None = None
        if setup.isolation != "none":
            self._find_layers()
            self._refuse_if_too_weak()
            call_libc("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
        self.bound_memory()
        readable = paths.readable_paths()
        if private_root:
            namespaces.enter_private_root(self._folder, readable)
        self._readable = [
            (os.open(path, os.O_PATH | os.O_CLOEXEC), path.is_dir())
            for path in readable
            if path.exists() and self._landlock
        ]
        self._paths = {path for path, _ in self._readable}
        set_environment(namespaces.SCRATCH if private_root else None)

    def _find_layers(self) -> None:
        without = self._setup.without
        if "landlock" not in without:
            self._landlock = landlock.landlock_version()
        if "seccomp" not in without and seccomp.has_seccomp():
            self._filter = seccomp.build_filter()
        reachable = self._private_root or paths.reachable_by_anyone(self._folder)
        readable = paths.libraries_readable_by_anyone(not self._private_root)
        if "uid" not in without and reachable and readable:
            self._first_uid = privileges.first_uid()
        found = {
            "seccomp": self._filter is not None,
            f"landlock ABI {self._landlock}": bool(self._landlock),
            "namespaces with a private root": self._private_root,
            "own uid": self._first_uid is not None,
        }
        self.layers = [name for name, on in found.items() if on]
        self.layers.append("no_new_privs, no capabilities, rlimits")
        if self._filter is None:
            self.missing.append("seccomp: the kernel takes no filters, or the machine is unknown")
        if not self._landlock:
            self.missing.append("landlock: the kernel has none (5.13 or later, `lsm=landlock`)")
        if not self._private_root:
            self.missing.append("namespaces: not allowed here (Docker: --security-opt, sysctl)")

    def _refuse_if_too_weak(self) -> None:
        files_hidden = self._landlock or self._private_root
        if self._setup.isolation == "strict" and not (self._filter and files_hidden):
            raise ConfinementError(
                "isolation strict needs seccomp and either landlock or namespaces; missing: "
                + "; ".join(self.missing)
                + ". Use a newer kernel or a less restricted container, "
                "or isolation best_effort if the model code can be trusted."
            )

    def bound_memory(self) -> None:
        """Let a runtime add `memory_mb` to the addresses that this process uses now."""
        memory, file_size = self._setup.memory_mb << 20, self._setup.scratch_mb << 20
        with contextlib.suppress(FileNotFoundError):  # no /proc in the private root: as before
            num_pages = int(Path("/proc/self/statm").read_text().split()[0])
            self._address_space = num_pages * resource.getpagesize()
        self._limits = privileges.resource_limits(
            self._address_space + memory, file_size, self._first_uid is not None
        )

    @property
    def must_watch(self) -> bool:
        """Whether the fork server bounds what the kernel does not: scratch folders that are plain
        folders, threads of runtimes that share a uid.
        """
        return not self._private_root or self._first_uid is None

    def take_slot(self) -> int:
        """A scratch folder and, as root, a uid that no living runtime has. Raises `OSError`."""
        if not self._free:
            if self._num_slots == privileges.NUM_UIDS:
                raise OSError(f"{self._num_slots} runtimes are alive, the most there can be")
            self._free.append(self._num_slots)
            self._num_slots += 1
        slot = self._free[-1]
        if not self._private_root:
            scratch = self._scratch(slot)
            scratch.mkdir(mode=0o700)
            self._folder.chmod(0o711)
            if self._first_uid is not None:
                os.chown(scratch, self._first_uid + slot, self._first_uid + slot)
        return self._free.pop()

    def release_slot(self, slot: int) -> None:
        """Give a slot back once its runtime has been waited for."""
        if not self._private_root:
            folders.remove(self._scratch(slot))
        self._free.append(slot)

    def overflows(self, slot: int, pid: int) -> bool:
        """Whether a runtime has more in its plain scratch folder, or more threads of a shared uid,
        than it may.
        """
        room = (self._setup.scratch_mb + 1) << 20
        if not self._private_root and folders.holds_more(
            self._scratch(slot), room, MAX_SCRATCH_FILES
        ):
            return True
        return self._first_uid is None and privileges.num_threads(pid) > privileges.STORM

    def _scratch(self, slot: int) -> Path:
        return self._folder / f"scratch-{slot}"

    def enter(self, slot: int, parent: int, descriptors: list[int]) -> int:
        """Confine this freshly forked process; returns the file behind its descriptors 1 and 2.

        Any failure raises, and the caller ends the process: nothing runs half confined.
        """
        follow(parent)
        os.setsid()
        forget_handlers(signal.SIGTERM, signal.SIGINT)
        uid = os.getuid() if self._first_uid is None else self._first_uid + slot
        if self._private_root:
            namespaces.enter_scratch(self._setup.scratch_mb, uid)
            scratch = namespaces.SCRATCH
        else:
            scratch = str(self._scratch(slot))
            set_environment(scratch)
        output = os.memfd_create("output")
        os.chdir(scratch)
        os.umask(0o077)
        # The server has one for each living runtime: soon more than this process may open.
        keep_only({0, 1, 2, output, *descriptors, *self._paths})
        if self._setup.isolation != "none":
            self._give_up_rights(uid, parent, scratch)
        for path in self._paths:
            os.close(path)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if self._filter is not None:
            seccomp.install_filter(self._filter, os.getpid())
        return output

    def _give_up_rights(self, uid: int, parent: int, scratch: str) -> None:
        if self._first_uid is not None:
            privileges.become(uid)
            follow(parent)  # changing the uid takes the parent-death signal away
        privileges.drop_capabilities()
        for name, value in self._limits:
            resource.setrlimit(name, (value, value))
        call_libc("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
        call_libc("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if self._landlock:
            landlock.restrict_files(self._landlock, self._readable, scratch)


def follow(parent: int) -> None:
    """End with the fork server, also if it has ended already."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(71)


def keep_only(descriptors: set[int]) -> None:
    """Close every other descriptor."""
    low = 0
    for descriptor in sorted(descriptors):
        if low < descriptor:  # closerange(n, n) closes everything from n on
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 2**31 - 1)


def set_environment(scratch: str | None) -> None:
    """What a cell finds in `os.environ`, its own folder where that is known: nothing of the
    host.
    """
    kept = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    folders = ("HOME", "TMPDIR", "MPLCONFIGDIR") if scratch else ()
    os.environ.clear()
    os.environ.update(
        kept,
        MPLBACKEND="Agg",
        LANG="C.UTF-8",
        PATH="/usr/bin:/bin",
        JOBLIB_MULTIPROCESSING="0",  # it would warn at import that there are no semaphores
        **dict.fromkeys(folders, scratch or ""),
    )
    tempfile.tempdir = None
