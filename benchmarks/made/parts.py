"""CPU seconds by part of the program, measured around the functions that do it."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable

from pyvision_rl.sandbox.bench import descendants, process_cpu_s


class Parts:
    """CPU seconds of the calling thread inside functions, by part; of nested parts the inner one
    counts, not the outer.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = threading.local()

    def watch(self, owner: type | object, name: str, part: str) -> None:
        """Measure a method, or a function of a module, from now on."""
        plain: Callable[..., object] = getattr(owner, name)

        @functools.wraps(plain)
        def measured(*args: object, **kwargs: object) -> object:
            above = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            start = time.thread_time()
            try:
                return plain(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                self.seconds[part] += spent - self._inner.seconds
                self._inner.seconds = above + spent

        setattr(owner, name, measured)


def children_cpu_s() -> float:
    """CPU seconds of all processes that this one has started, ended ones included."""
    return sum(map(process_cpu_s, descendants(os.getpid())))
