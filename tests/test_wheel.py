"""Every data file of the package is named in the package data, so that wheels hold it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_package_data_names_every_file_that_is_not_python() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["pyvision_rl"]
    package = ROOT / "pyvision_rl"
    named = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file()}
    left_out = {path for path in files - named if path.suffix not in {".py", ".pyc"}}
    assert left_out == set()
    assert package / "model" / "tiny_base" / "model.safetensors" in named
