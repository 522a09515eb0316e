"""Equality of mathematical expressions by math-verify, safe against answers made to hang it.

math-verify limits its own time by signals, which work in a main thread only; here it runs in a
worker process with a limit on processor time and memory. Any thread may ask.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

from pyvision_rl.errors import PyVisionError

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("symbolic_worker.py")
WALL_LIMIT_S = 60
"""For a worker that waits instead of working; the limit on processor time comes long before."""


class SymbolicWorker:
    """One worker process, started at the first question and again after each that ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def is_equal(self, gold: str, answer: str, tolerance: float = 0.0) -> bool:
        """Whether the expressions are equal, or numbers no further apart than `tolerance`; False
        where the comparison took too much.

        Raises PyVisionError where math-verify cannot be started at all.
        """
        request = json.dumps([gold, answer, tolerance]).encode() + b"\n"
        with self._lock:
            # A worker that something else ended, the system's memory killer say, gets a second try.
            for _ in range(2):
                verdict = _ask(self._running(), request)
                if verdict is not None:
                    return verdict
                if self._stop() == -signal.SIGXCPU:
                    break
        logger.info("took too much to compare, so not equal: %s and %s", gold, answer)
        return False

    def close(self) -> None:
        """End the worker process, if one runs; the next question starts another."""
        with self._lock:
            self._stop()

    def _running(self) -> subprocess.Popen[bytes]:
        # A forked child must not talk over its parent's pipe.
        if self._process is not None and self._owner == os.getpid():
            return self._process
        command = [sys.executable, "-P", str(WORKER)]
        with tempfile.TemporaryFile() as errors:
            # In a session of its own a Ctrl-C meant for the run does not end it mid-verdict.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
            if _ask(process, b"") is not True:
                process.kill()
                process.communicate()
                errors.seek(0)
                lines = errors.read().decode(errors="replace").splitlines()
                reason = lines[-1] if lines else "no message"
                raise PyVisionError(f"math-verify does not start: {reason}")
        self._process, self._owner = process, os.getpid()
        return process

    def _stop(self) -> int:
        """End the worker; returns its exit status, or minus the signal that had ended it."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        process.kill()
        process.communicate()
        return process.returncode


def _ask(process: subprocess.Popen[bytes], request: bytes) -> bool | None:
    """Send a request and wait for the verdict; None where the worker died or hangs."""
    if process.stdin is None or process.stdout is None:
        return None
    try:
        process.stdin.write(request)
        process.stdin.flush()
    except BrokenPipeError:
        return None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(WALL_LIMIT_S) else b""
    return json.loads(line) if line else None


_worker = SymbolicWorker()
atexit.register(_worker.close)


@lru_cache(maxsize=8192)
def is_equal(gold: str, answer: str, tolerance: float = 0.0) -> bool:
    """Whether two LaTeX or plain expressions are equal, or numbers no further apart than
    `tolerance`; blocks for some CPU seconds at worst.
    """
    return _worker.is_equal(gold, answer, tolerance)
