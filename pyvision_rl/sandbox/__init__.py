"""Runs untrusted Python in confined processes, many at once. Knows no model and no prompt."""

from pyvision_rl.sandbox.config import CellResult, ResultKind, SandboxConfig
from pyvision_rl.sandbox.pool import Runtime, SandboxPool

__all__ = ["CellResult", "ResultKind", "Runtime", "SandboxConfig", "SandboxPool"]
