"""What is needed of verl's environment on a CPU, and a checkpoint that knows the needle task."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

CPU_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "tests.distributed.cpu",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
}
"""Read by verl when it is first imported, here and in every process that Ray starts."""

if find_spec("verl"):
    os.environ.update(CPU_ENVIRONMENT)


@pytest.fixture(scope="session")
def verl() -> None:
    """Skip, and say so, where verl is not installed."""
    if not find_spec("verl"):
        pytest.skip("verl is not installed: make test-verl")
