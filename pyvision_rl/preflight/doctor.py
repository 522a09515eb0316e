"""`pyvision-rl doctor`: what this machine offers a run, on one screen."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pyvision_rl import __version__
from pyvision_rl.preflight.machine import GB, available_ram, cuda_devices, free_disk
from pyvision_rl.sandbox.commands import probe

NEEDED = ("torch", "transformers", "tokenizers", "pyarrow", "av", "matplotlib", "math-verify")
EXTRAS = {
    "lora": ("peft",),
    "server": ("httpx", "starlette", "uvicorn"),
    "tracking": ("wandb", "trackio"),
}
MIN_RAM_GB = 4.0
MIN_DISK_GB = 2.0


def examine(runs: Path = Path()) -> tuple[list[str], bool]:
    """The report's lines, and whether the quickstart can run here.

    `runs`: where run folders would be written.
    """
    ram, disk = available_ram() / GB, free_disk(runs) / GB
    layers, holds = probe()
    missing = [name for name in NEEDED if _version(name) is None]
    problems = [f"not installed: {', '.join(missing)}"] if missing else []
    if ram < MIN_RAM_GB:
        problems.append(f"memory: {ram:.1f} GB free, the quickstart needs {MIN_RAM_GB:.0f}")
    if disk < MIN_DISK_GB:
        problems.append(f"disk: {disk:.1f} GB free, runs need at least {MIN_DISK_GB:.0f}")
    if not holds:
        problems.append("sandbox: strict isolation does not hold here (isolation: best_effort)")
    lines = [
        f"pyvision-rl {__version__}, Python {platform.python_version()} on {sys.platform}",
        "packages   " + "  ".join(f"{name} {_version(name) or 'missing'}" for name in NEEDED),
        *(f"{name:<11}{_extra(packages)}" for name, packages in EXTRAS.items()),
        f"devices    {_devices()}",
        f"memory     {ram:.1f} GB free",
        f"disk       {disk:.1f} GB free at {runs.resolve()}",
        "sandbox",
        *(f"  {line}" for line in layers.splitlines()),
    ]
    verdict = [f"problem    {problem}" for problem in problems] or ["ready"]
    return [*lines, *verdict], not problems


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extra(packages: tuple[str, ...]) -> str:
    return "  ".join(f"{name} {_version(name) or '-'}" for name in packages)


def _devices() -> str:
    cores = len(os.sched_getaffinity(0))
    return "; ".join([f"{cores} CPU cores", *(cuda_devices() or ["no CUDA device"])])
