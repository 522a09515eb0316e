"""What verl lacks for a machine without an accelerator: a platform, and samplers on transformers.

Loaded into every process by VERL_USE_EXTERNAL_MODULES, before anything of verl is used.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps

import torch
import torch.distributed
from verl.plugin.platform import PlatformBase, PlatformRegistry


class CPUModule(types.SimpleNamespace):
    """`torch.cpu`; what only devices have, such as memory of their own, is 0 or does nothing."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(torch.cpu, name):
            return getattr(torch.cpu, name)
        if name == "get_device_name":
            return lambda *_args: "cpu"
        if name == "mem_get_info":
            return lambda *_args: (0, 0)
        if "memory" in name:
            return lambda *_args, **_options: 0
        return lambda *_args, **_options: None


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """One CPU as a device; Ray counts GPUs that are only numbers."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CPUModule()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def cudart(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False


_init_process_group = torch.distributed.init_process_group


@wraps(_init_process_group)
def init_process_group(backend=None, *args, **options):
    """verl names the backend of the CPU and that of the device; here they are one."""
    backend = "cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend
    return _init_process_group(backend, *args, **options)


torch.distributed.init_process_group = init_process_group
