import sys

import pytest

from pyvision_rl.errors import ConfigError
from pyvision_rl.runs import RunFolder


def test_a_service_that_is_not_installed_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"^track: wandb is not installed: pip install wandb$"):
        RunFolder.create(tmp_path / "run", "seed: 0\n", track="wandb")
    # the folder was given free
    with RunFolder.create(tmp_path / "run", "seed: 0\n", resume=True) as run:
        run.log(1, {"reward/mean": 0.5})


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with RunFolder.create(tmp_path / "run", "seed: 3\n", track="wandb") as run:
        run.log(1, {"reward/mean": 0.5})
        run.log(2, {"reward/mean": 0.75})
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"reward/mean" in log.read_bytes()


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    with RunFolder.create(tmp_path / "run", "seed: 3\n", track="trackio") as run:
        run.log(1, {"reward/mean": 0.5})
    stored = b"".join(p.read_bytes() for p in (tmp_path / "trackio").rglob("*") if p.is_file())
    assert b"reward/mean" in stored
