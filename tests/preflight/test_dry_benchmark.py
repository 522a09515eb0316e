"""Dry runs of a benchmark: its files and its model or server looked at, nothing written."""

import pytest

from pyvision_rl.errors import ConfigError, InputError, PyVisionError
from pyvision_rl.eval.benchmark_stage import BenchmarkConfig
from pyvision_rl.preflight.dry_benchmark import dry_run_benchmark
from tests.eval.benchmarks.files import base64_png, tsv
from tests.http import ChatServer, served, unused_address


def config_of(tmp_path, rows=3, image=None, **options):
    row = {"question": "Which?", "A": "red", "B": "blue", "answer": "A", "category": "single"}
    image = image or base64_png()
    data = tsv(tmp_path / "v.tsv", [{**row, "index": n, "image": image} for n in range(rows)])
    return BenchmarkConfig("vstar", str(data), str(tmp_path / "run"), **options)


def test_a_server_is_asked_for_its_model_only(tmp_path):
    chat = ChatServer()
    with served(chat.app()) as url:
        found = dry_run_benchmark(config_of(tmp_path, server=f"{url}/v1"))
    assert found.ok
    assert f"server {url}/v1: serves served-model" in found.lines
    text = "\n".join(found.lines)
    assert "3 items, 1 images, 0 videos; category single: 3" in text
    assert "3 x 32 episodes" in text
    assert "temperature: 0.01" in text
    assert chat.bodies == []
    assert [path.name for path in tmp_path.iterdir()] == ["v.tsv"]


def test_a_model_is_measured(tmp_path):
    found = dry_run_benchmark(config_of(tmp_path, model="tiny"), memory_gb=4)
    assert found.ok
    assert "fits: cpu has 4.00 GB" in found.lines
    assert not dry_run_benchmark(config_of(tmp_path, model="tiny"), memory_gb=0.001).ok


def test_what_would_not_run(tmp_path):
    with pytest.raises(ConfigError, match="give either model, a checkpoint, or server"):
        dry_run_benchmark(config_of(tmp_path))
    with pytest.raises(PyVisionError, match="gave up after 1 attempts: ConnectError"):
        dry_run_benchmark(config_of(tmp_path, server=f"{unused_address()}/v1"))
    with pytest.raises(InputError, match=r"row 0 .*image = .*whole base64"):
        dry_run_benchmark(config_of(tmp_path, image="x" * 99, model="tiny"))
