"""What safetensors and torch raise where a file takes no more bytes, turned into an OSError."""

import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pyvision_rl.model.disk import as_os_errors

MANY = {"weight": torch.zeros(100_000)}


@pytest.fixture
def _small_files():
    """No file of this process may grow beyond 64 KB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("_small_files")
@pytest.mark.parametrize("save", [save_file, torch.save])
def test_a_file_that_takes_no_more(save, tmp_path):
    with pytest.raises(OSError, match=r"\S") as caught:
        as_os_errors(lambda folder: save(MANY, folder / "weights"))(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are(tmp_path):
    def wrong(path: Path) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        as_os_errors(wrong)(tmp_path)
