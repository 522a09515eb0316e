"""What `sandbox bench` measures beside the sandbox: a plain multiprocessing worker, a fresh
interpreter, a Jupyter kernel.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import io
import multiprocessing
import multiprocessing.queues
import os
import subprocess
import sys
from collections.abc import Callable

IMPORTS = "import numpy, PIL.Image, matplotlib; matplotlib.use('Agg'); import matplotlib.pyplot"


def fresh_interpreter_cpu_s() -> float:
    """CPU seconds of a new interpreter that imports what a runtime finds imported."""
    process = subprocess.Popen([sys.executable, "-c", IMPORTS], env=os.environ)
    usage = os.wait4(process.pid, 0)[2]
    process.returncode = 0
    return usage.ru_utime + usage.ru_stime


def serve_worker(
    requests: multiprocessing.queues.Queue[str | None],
    answers: multiprocessing.queues.Queue[tuple[str, list[str]]],
) -> None:
    """The usual tool worker: code from one queue, text and base64 PNG figures into another."""
    import matplotlib.pyplot as plt
    import numpy as np
    from PIL import Image

    figures: list[str] = []

    def capture() -> None:
        file = io.BytesIO()
        plt.gcf().savefig(file, format="png")
        plt.close()
        figures.append(base64.b64encode(file.getvalue()).decode())

    names = {"np": np, "plt": plt, "Image": Image, "capture": capture}
    while (code := requests.get()) is not None:
        exec(code, names)
        answers.put((str(os.getpid()), list(figures)))
        figures.clear()


class MultiprocessingWorker:
    """One persistent, unconfined worker process, forked from this one."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self._requests = context.Queue()
        self._answers = context.Queue()
        self.process = context.Process(
            target=serve_worker, args=(self._requests, self._answers), daemon=True
        )
        self.process.start()

    def run(self, code: str) -> None:
        """Run one cell; figures are decoded, as a trainer must."""
        from PIL import Image

        self._requests.put(code)
        for figure in self._answers.get()[1]:
            Image.open(io.BytesIO(base64.b64decode(figure))).convert("RGB")

    def close(self) -> None:
        """End it."""
        self._requests.put(None)
        self.process.join()


def start_jupyter_kernel() -> tuple[Callable[[str], None], Callable[[], None], int] | None:
    """Run, close and process id of a kernel, or None where jupyter_client and ipykernel are
    missing.
    """
    if not (importlib.util.find_spec("jupyter_client") and importlib.util.find_spec("ipykernel")):
        return None
    start_new_kernel = importlib.import_module("jupyter_client.manager").start_new_kernel
    manager, client = start_new_kernel()

    def close() -> None:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    def ignore(message: object) -> None:
        """What a cell prints is not looked at."""

    def run(code: str) -> None:
        client.execute_interactive(code, output_hook=ignore)

    return run, close, manager.provisioner.pid
