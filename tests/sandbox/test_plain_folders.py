"""Scratch folders where no tmpfs can be mounted, as in most containers: bounded and removed
however a cell shapes them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvision_rl.sandbox import SandboxConfig
from pyvision_rl.sandbox.confine.folders import holds_more, remove
from tests.sandbox.conftest import Sandbox

NOBODY = 65534
PLENTY = 1 << 40


@pytest.fixture
def folder() -> Iterator[Path]:
    """A scratch folder of another user than root: root may read whatever it likes."""
    with tempfile.TemporaryDirectory(prefix="pyvision-plain-") as outer:
        scratch = Path(outer) / "scratch"
        scratch.mkdir()
        if os.getuid() == 0:
            for path in (Path(outer), scratch):
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield scratch
            left = os.listdir(outer)
        finally:
            os.seteuid(os.getuid())
    assert left == []


def dig(folder: Path, name: str, depth: int) -> int:
    """Make `depth` folders in each other; a descriptor of the innermost."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    return descriptor


def test_what_a_folder_holds_is_counted(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "data").write_bytes(bytes(1 << 20))
    (folder / "a" / "link").symlink_to("/dev/zero")
    assert not holds_more(folder, 2 << 20, 3)
    assert holds_more(folder, 1 << 19, 3)
    assert holds_more(folder, 2 << 20, 2)
    remove(folder)


def test_a_folder_that_cannot_be_listed_counts_as_too_much(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (inner / "data").write_bytes(b"hidden")
    inner.chmod(0o300)
    assert holds_more(folder, PLENTY, 100)
    remove(folder)


def test_a_path_too_long_to_follow_counts_as_too_much(folder: Path) -> None:
    os.close(dig(folder, "n" * 250, 20))
    assert holds_more(folder, PLENTY, 100)
    remove(folder)


def test_folders_too_deep_to_recurse_into_are_removed(folder: Path) -> None:
    innermost = dig(folder, "d", 1200)
    os.symlink("/", "root", dir_fd=innermost)
    os.mkdir("closed", 0o000, dir_fd=innermost)
    os.close(innermost)
    remove(folder)


def test_a_cell_that_digs_deep_ends_nobody_else(tmp_path: Path) -> None:
    tempfile.tempdir = str(tmp_path)
    try:
        sandbox = Sandbox(SandboxConfig(timeout_s=20.0), ["namespaces"])
    finally:
        tempfile.tempdir = None
    other = sandbox.runtime()
    other.run("x = 5")
    deep = "for _ in range(1500):\n    os.mkdir('d'); os.chdir('d')\nos._exit(0)"
    assert sandbox.run(deep).kind == "dead"
    assert other.run("print(x)").text == "5\n"
    sandbox.close()
    assert list(tmp_path.iterdir()) == []
