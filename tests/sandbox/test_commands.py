"""The functions behind `pyvision-rl sandbox`."""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest

from pyvision_rl.errors import InputError
from pyvision_rl.sandbox.bench import BenchConfig, bench
from pyvision_rl.sandbox.commands import probe, trace
from pyvision_rl.sandbox.confine.privileges import unused_range
from pyvision_rl.sandbox.confine.syscall_names import REFUSED
from pyvision_rl.sandbox.confine.syscalls import ALLOWED, ALLOWED_BY_ARGUMENT, numbers


def trace_apart(script: Path) -> str:
    """As the command line does it: in a process of one thread, which is about to be forked."""
    program = "import sys; from pyvision_rl.sandbox.trace import trace; print(trace(sys.argv[1]))"
    return subprocess.check_output([sys.executable, "-c", program, str(script)], text=True)


def test_probe_names_every_layer() -> None:
    table, holds = probe()
    for layer in ("seccomp", "landlock", "namespaces", "own uid", "no_new_privs"):
        assert f"  {layer}" in table
    assert holds == ("strict isolation holds here" in table)


def test_trace_lists_what_would_be_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, socket\n"
        "socket.socket(socket.AF_UNIX).close()\n"
        "os.chmod(__file__, 0o600)\n"
        "os.chmod(__file__, 0o644)\n"
        "open(__file__).read()\n"
    )
    lines = trace_apart(script).splitlines()
    assert lines[0] == f"{script} ended well"
    found = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    assert found["socket"] == 1
    assert found.get("chmod", found.get("fchmodat")) == 2
    assert not {"openat", "read", "close"} & found.keys()


def test_trace_of_harmless_code_and_of_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print(1 + 1)")
    assert "nothing would be refused" in trace_apart(script)
    with pytest.raises(InputError, match="no such file"):
        trace(str(tmp_path / "missing.py"))


@pytest.mark.slow
def test_bench_reports_every_row() -> None:
    report = bench(BenchConfig(num_runtimes=4, num_cells=5, max_flight=2))
    for row in ("start, CPU", "round trip", "crop, imshow, show", "private memory", "throughput"):
        assert row in report


@pytest.mark.parametrize(("machine", "token"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_call_numbers_agree_with_libseccomp(machine: str, token: int) -> None:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("libseccomp is not installed")
    library = ctypes.CDLL(name)
    for table in (ALLOWED, ALLOWED_BY_ARGUMENT, REFUSED):
        for call, number in numbers(table, machine).items():
            known = library.seccomp_syscall_resolve_name_arch(token, call.encode())
            assert known == number or known < 0, call  # newer than that library, or not its own


def test_uids_are_taken_where_this_user_namespace_has_them() -> None:
    assert unused_range("0 0 4294967295\n") == 2_000_000_000
    assert unused_range("0 100000 65536\n") == 65536 - 12_000 - 2
    assert unused_range("0 1000 1\n1 100000 65536\n") == 65537 - 12_000 - 2
    assert unused_range("0 1000 1\n") is None
