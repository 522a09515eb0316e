"""The conformance suite again, as other users and with fewer layers: as it would run in other
places.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SUITE = Path(__file__).parent / "conformance"
REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534

AS_NOBODY = f"""
import os, sys
from pathlib import Path
from pyvision_rl.sandbox.confine.libc import call_libc
from pyvision_rl.sandbox.confine.namespaces import MS_BIND, MS_PRIVATE, MS_REC, NEWNS, mount

call_libc("unshare", NEWNS)
mount(None, "/", None, MS_REC | MS_PRIVATE)
prefix, home = Path(sys.base_prefix).resolve(), Path(sys.argv[1])
closed = [p for p in prefix.parents if not p.stat().st_mode & 1]
if closed:  # an interpreter below a closed home: show it, and it alone, at the same place
    (home / "prefix").mkdir()
    mount(str(prefix), str(home / "prefix"), None, MS_BIND | MS_REC)
    mount("tmpfs", str(closed[-1]), "tmpfs", 0, "mode=755")
    prefix.mkdir(parents=True)
    mount(str(home / "prefix"), str(prefix), None, MS_BIND | MS_REC)
home.chmod(0o755)
os.chown(home, {NOBODY}, {NOBODY})
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
os.environ["HOME"] = os.environ["TMPDIR"] = str(home)
os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[2:]])
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that another user can get to; not pytest's own, which any other run closes again."""
    with tempfile.TemporaryDirectory(prefix="pyvision-home-") as folder:
        yield Path(folder)


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def rerun(home: Path, arguments: list[str], without: str, as_nobody: bool) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", str(home / "pytest"), *arguments]
    start = ["-c", AS_NOBODY, str(home)] if as_nobody else ["-m", "pytest"]
    done = subprocess.run(
        [sys.executable, *start, *options],
        cwd=REPOSITORY,
        env=os.environ | {"PYVISION_SANDBOX_WITHOUT": without, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@needs_root
def test_as_an_ordinary_user_without_namespaces(home: Path) -> None:
    """The fewest layers that strict accepts: landlock and seccomp."""
    rerun(home, [str(SUITE / "test_reach.py")], "namespaces", True)


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("without", ["", "namespaces"])
def test_all_of_it_as_an_ordinary_user(home: Path, without: str) -> None:
    rerun(home, [str(SUITE)], without, True)


@pytest.mark.slow
@pytest.mark.parametrize("without", ["namespaces", "uid", "namespaces uid"])
def test_all_of_it_with_fewer_layers(tmp_path: Path, without: str) -> None:
    rerun(tmp_path, [str(SUITE)], without, False)
