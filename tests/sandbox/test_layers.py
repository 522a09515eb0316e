"""What each layer is worth: with it off, cases that the suite holds to be refused succeed. And
failing closed.

The cases are harmless where they succeed: nothing is killed, nothing of the host is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvision_rl.errors import SandboxError
from pyvision_rl.sandbox import Layer, SandboxConfig, SandboxPool
from tests.sandbox.conformance.test_reach import LIBC
from tests.sandbox.conftest import Sandbox

WITHOUT_FILE_LAYERS: tuple[Layer, ...] = ("landlock", "namespaces", "uid")


@pytest.fixture(scope="module")
def no_files() -> Iterator[Sandbox]:
    opened = Sandbox(SandboxConfig(isolation="best_effort"), WITHOUT_FILE_LAYERS)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def no_seccomp() -> Iterator[Sandbox]:
    opened = Sandbox(SandboxConfig(isolation="best_effort"), ["seccomp"])
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "os.listdir('/')",
        "os.listdir('/proc')",
        "os.symlink('/etc/passwd', 'p'); open('p').read()",
    ],
)
def test_without_landlock_and_namespaces_host_files_are_readable(
    no_files: Sandbox, sandbox: Sandbox, code: str
) -> None:
    assert no_files.run(code).kind == "ok"
    assert sandbox.run(code).kind == "error"


def test_without_landlock_and_namespaces_a_cell_writes_outside(
    no_files: Sandbox, sandbox: Sandbox, tmp_path: Path
) -> None:
    target = Path("/tmp") / f"pyvision-control-{tmp_path.name}"
    assert no_files.run(f"open({str(target)!r}, 'w').write('x')").kind == "ok"
    assert target.read_text() == "x"
    target.unlink()
    assert sandbox.run(f"open({str(target)!r}, 'w')").kind == "error"
    assert not target.exists()


@pytest.mark.parametrize(
    "code",
    [
        "pid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0)",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socket(16, socket.SOCK_RAW, 0)",
        "os.memfd_create('x')",
        LIBC + "call(29, 0, 4096, 0o600)",
        "os.pidfd_open(os.getpid())",
        "import socket; socket.socketpair(type=socket.SOCK_DGRAM)",
    ],
)
def test_without_seccomp_the_kernel_answers(
    no_seccomp: Sandbox, sandbox: Sandbox, code: str
) -> None:
    assert no_seccomp.run(code).kind == "ok"
    assert sandbox.run(code).kind == "error"


@pytest.mark.parametrize(
    ("without", "named"), [(["seccomp"], "seccomp"), (["landlock", "namespaces"], "landlock")]
)
def test_strict_refuses_to_start_and_says_what_is_missing(without: list[Layer], named: str) -> None:
    async def scenario() -> None:
        async with SandboxPool(SandboxConfig(), without):
            pass

    with pytest.raises(SandboxError, match=f"isolation strict needs .* missing: .*{named}: "):
        asyncio.run(scenario())


def test_best_effort_starts_and_names_what_is_missing(
    no_seccomp: Sandbox, no_files: Sandbox
) -> None:
    assert [line.split(":")[0] for line in no_seccomp.pool.missing] == ["seccomp"]
    assert [line.split(":")[0] for line in no_files.pool.missing] == ["landlock", "namespaces"]
    assert "seccomp" in no_files.pool.layers
