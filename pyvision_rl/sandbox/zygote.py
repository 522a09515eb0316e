"""The fork server: imports what cells need once, then forks a confined runtime for each request.
One thread, no state.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import selectors
import shutil
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyvision_rl.sandbox import control
from pyvision_rl.sandbox.confine import Confinement, ConfinementError
from pyvision_rl.sandbox.confine.keeper import keep, namespaces_work
from pyvision_rl.sandbox.confine.libc import die_with_parent, fork
from pyvision_rl.sandbox.inside import late
from pyvision_rl.sandbox.limits import Limits, allow_open_files
from pyvision_rl.sandbox.memory import forget_lookups, make_room, settle

if TYPE_CHECKING:
    from pyvision_rl.sandbox.inside.worker import Worker

PRELOADED = (
    "base64",
    "json",
    "numpy",
    "numpy.fft",
    "numpy.linalg",
    "numpy.random",
    "secrets",
    "PIL.Image",
    "PIL.ImageDraw",
    "PIL.ImageEnhance",
    "PIL.ImageFilter",
    "PIL.ImageFont",
    "PIL.ImageOps",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "matplotlib.pyplot",
    "matplotlib.patches",
    "matplotlib.backends.backend_agg",
    "pyvision_rl.sandbox.inside.worker",
)


def main() -> None:
    """Serve until the pool closes its end. Arguments: the control socket's descriptor, the
    pool's process id.
    """
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool = socket.socket(fileno=descriptor)
    packet = pool.recv(control.MAX_PACKET)
    setup = control.TO_SERVER.decode(packet) if packet else None
    if not isinstance(setup, control.Setup):
        return
    keeper, folder = os.getpid(), Path(setup.folder)
    try:
        die_with_parent(signal.SIGTERM)
        if os.getppid() == parent:
            wanted = setup.isolation != "none" and "namespaces" not in setup.without
            private = wanted and namespaces_work(folder)
            keep(folder, private, lambda: serve(pool, setup, private))
    finally:
        if os.getpid() == keeper:  # the pool may have ended before anything was kept
            shutil.rmtree(folder, ignore_errors=True)


def serve(pool: socket.socket, setup: control.Setup, private: bool) -> None:
    """Warm up, confine what can be confined beforehand, and fork on request."""
    worker = warm_up(setup.limits)
    try:
        confinement = Confinement(setup, private)
    except (ConfinementError, OSError) as error:
        pool.send(control.encode(control.Refused(-1, str(error))))
        return
    settle()
    pool.send(control.encode(control.Ready(confinement.layers, confinement.missing)))
    with contextlib.closing(ForkServer(pool, worker, confinement)) as server:
        server.serve()


def warm_up(limits: Limits) -> Worker:
    """Import and use once what every runtime needs, so that forks share it."""
    make_room()
    import matplotlib

    matplotlib.use("Agg")
    for name in PRELOADED:
        importlib.import_module(name)
    sys.meta_path.insert(0, late.LateVideo())
    forget_lookups()
    draw_once()
    from pyvision_rl.sandbox.inside.worker import Worker

    worker = Worker(limits)
    num_threads = len(os.listdir("/proc/self/task"))
    if num_threads != 1:
        raise RuntimeError(
            f"the fork server has {num_threads} threads; a fork would copy their locks"
        )
    return worker


def draw_once() -> None:
    """What matplotlib builds at its first figure is built before the first fork."""
    import matplotlib.pyplot as plt
    from PIL import Image

    from pyvision_rl.sandbox.inside.drawing import copy_markers_lightly, fonts_kept
    from pyvision_rl.sandbox.inside.figures import render

    copy_markers_lightly()
    with fonts_kept():
        plt.imshow(Image.new("RGB", (84, 84)).crop((0, 0, 42, 42)))
        plt.title("warm")
        render(plt.gcf(), "matplotlib", 10**6)
        plt.close("all")


class Forked(NamedTuple):
    """A living runtime: its name at the pool, its slot, its process."""

    runtime: int
    slot: int
    pid: int


class ForkServer:
    """Forks on request and reports ends, watching its socket and a pidfd per runtime."""

    def __init__(self, pool: socket.socket, worker: Worker, confinement: Confinement) -> None:
        self._pool = pool
        self._worker = worker
        self._confinement = confinement
        self._selector = selectors.DefaultSelector()
        self._selector.register(pool, selectors.EVENT_READ, None)
        self._look_every_s = 0.5 if confinement.must_watch else None
        allow_open_files()

    def serve(self) -> None:
        """Until the pool's end is closed."""
        while True:
            if self._look_every_s is not None:
                self._end_overflowing()
            for key, _ in self._selector.select(self._look_every_s):
                if key.data is not None:
                    self._reap(key.fd, key.data)
                elif not self._fork_next():
                    return

    def close(self) -> None:
        """End what still runs and remove the scratch folders."""
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(key.fd, signal.SIGKILL)
                os.waitid(os.P_PIDFD, key.fd, os.WEXITED)

    def _end_overflowing(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None and self._confinement.overflows(key.data.slot, key.data.pid):
                signal.pidfd_send_signal(key.fd, signal.SIGKILL)

    def _fork_next(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(
            self._pool, control.MAX_PACKET, 1 + control.MAX_VIDEOS
        )
        if not packet:
            return False
        request = control.TO_SERVER.decode(packet)
        if not isinstance(request, control.Spawn):
            return False
        try:
            if len(descriptors) != 1 + request.num_videos:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if request.num_videos:
                self._load_video_reader()
            self._fork(request.id, descriptors)
        except OSError as error:
            self._pool.send(control.encode(control.Refused(request.id, f"cannot fork: {error}")))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _load_video_reader(self) -> None:
        """At the first trajectory with a video: its libraries make every later fork dearer."""
        if late.VIDEO not in sys.modules:
            importlib.import_module(late.VIDEO)
            settle()
            self._confinement.bound_memory()

    def _fork(self, runtime: int, descriptors: list[int]) -> None:
        slot = self._confinement.take_slot()
        parent = os.getpid()
        pid = 0
        try:
            pid = fork()
            if pid == 0:
                self._become_runtime(slot, parent, descriptors)
            pidfd = os.pidfd_open(pid)
        except OSError:
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            self._confinement.release_slot(slot)
            raise
        self._selector.register(pidfd, selectors.EVENT_READ, Forked(runtime, slot, pid))
        message = control.encode(control.Spawned(runtime))
        socket.send_fds(self._pool, [message], [pidfd])

    def _become_runtime(self, slot: int, parent: int, descriptors: list[int]) -> None:
        status = 70
        try:
            output = self._confinement.enter(slot, parent, descriptors)
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptors[0])
            self._worker.serve(channel, output, descriptors[1:])
            status = 0
        except BaseException:  # noqa: BLE001 - nothing may unwind into the server's loop
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)

    def _reap(self, pidfd: int, forked: Forked) -> None:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        self._confinement.release_slot(forked.slot)
        code = 0
        if ended is not None:
            code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        self._pool.send(control.encode(control.Exited(forked.runtime, code)))
