"""Runs untrusted Python in confined processes, many at once. Knows no model and no prompt.

Names load when they are first used: the fork server imports this package too, and each of its forks
pays for what it has loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyvision_rl.sandbox.config import CellResult, ResultKind, SandboxConfig
    from pyvision_rl.sandbox.pool import Layer, SandboxPool
    from pyvision_rl.sandbox.remote.client import SandboxClient
    from pyvision_rl.sandbox.runtime import Runtime

__all__ = [
    "CellResult",
    "Layer",
    "ResultKind",
    "Runtime",
    "SandboxClient",
    "SandboxConfig",
    "SandboxPool",
]
HOMES = {
    "CellResult": "config",
    "Layer": "pool",
    "ResultKind": "config",
    "Runtime": "runtime",
    "SandboxClient": "remote.client",
    "SandboxConfig": "config",
    "SandboxPool": "pool",
}


def __getattr__(name: str) -> object:
    """Import `name` from its module."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
