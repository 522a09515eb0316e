"""Compares mathematical expressions for `symbolic.py`, in a process of its own.

Reads `[gold, answer, tolerance]` as json lines and writes `true` or `false` for each. An expression
that needs too much processor time or memory ends the process, which the caller takes for "not
equal".
"""

from __future__ import annotations

import json
import logging
import resource
import sys

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Expr

CPU_LIMIT_S = 2
MEMORY_LIMIT_MB = 4096


def limit_cpu() -> None:
    """Let the kernel end this process after 1 to 2 more seconds of processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime) + CPU_LIMIT_S
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))


def is_equal(gold: str, answer: str, tolerance: float) -> bool:
    """Whether math-verify finds two LaTeX or plain expressions equal, or both are numbers that
    differ by no more than `tolerance`.
    """
    config = (LatexExtractionConfig(), ExprExtractionConfig())
    # Its own time limits use signals; the limit of the process holds instead.
    left, right = (
        parse(f"${text}$", extraction_config=config, parsing_timeout=0) for text in (gold, answer)
    )
    if not left or not right:
        return False
    if verify(left, right, timeout_seconds=0):
        return True
    return tolerance > 0 and _is_close(left[0], right[0], tolerance)


def _is_close(left: object, right: object, tolerance: float) -> bool:
    values = [
        complex(value) for value in (left, right) if isinstance(value, Expr) and value.is_number
    ]
    # A share of room for the floats themselves.
    return len(values) == 2 and abs(values[0] - values[1]) <= tolerance * (1 + 1e-9)


def main() -> None:
    """Answer requests until the input is closed."""
    logging.disable(logging.CRITICAL)
    memory = MEMORY_LIMIT_MB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # The grammar is built at the first use.
    print(json.dumps(is_equal("\\frac{1}{2}", "0.5", 0.0)), flush=True)  # noqa: T201
    for line in sys.stdin:
        gold, answer, tolerance = json.loads(line)
        limit_cpu()
        print(json.dumps(is_equal(gold, answer, tolerance)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
