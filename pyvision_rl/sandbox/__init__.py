"""Runs untrusted Python in confined processes, many at once. Knows no model and no prompt."""

from pyvision_rl.sandbox.config import CellResult, ResultKind, SandboxConfig
from pyvision_rl.sandbox.pool import Layer, Runtime, SandboxPool

__all__ = ["CellResult", "Layer", "ResultKind", "Runtime", "SandboxConfig", "SandboxPool"]
