"""What this machine has: memory, disk, devices."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

MB, GB = 2**20, 2**30

_CGROUP = Path("/sys/fs/cgroup")


def available_ram() -> int:
    """Bytes that a new process may take: of the machine, and of the container it is in."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (_read_number(_CGROUP / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None  # no such group, or "max"


def free_disk(folder: Path) -> int:
    """Bytes free where `folder` is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def available_memory(device: str) -> int | None:
    """Bytes free on a device; None where it is not here."""
    if torch.device(device).type == "cpu":
        return available_ram()
    return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else None


def cuda_devices() -> list[str]:
    """A line for each CUDA device: name, free and whole memory."""
    lines = []
    for index in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        lines.append(f"cuda:{index} {name}, {free / GB:.1f} of {whole / GB:.1f} GB free")
    return lines
