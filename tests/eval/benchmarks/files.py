"""Benchmark files as users download them, written small: TSV with base64, Parquet, json."""

import base64
import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pyvision_rl.eval.benchmarks.cells import ImageCache
from pyvision_rl.eval.benchmarks.item import BenchmarkItem, Response, ScoredItem, Source
from pyvision_rl.types import Task

REAL_DATA = Path(__file__).parents[4] / "shared" / "data"
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.exists(), reason="no ../shared/data beside the repository"
)


def png(colour: str = "red", size: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def base64_png(colour: str = "red") -> str:
    return base64.b64encode(png(colour)).decode()


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(colour))
    return path


def tsv(path: Path, rows: list[dict]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return path


def parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def as_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def source(path: Path, **options) -> Source:
    folder = path if path.is_dir() else path.parent
    return Source(path, ImageCache(folder / "cache"), **options)


def item(answer: str, **options) -> BenchmarkItem:
    """An item with this gold answer; `id` defaults to the answer."""
    return BenchmarkItem(Task(options.pop("id", answer), "?", answer), **options)


def said(answer: str, text: str = "") -> Response:
    return Response(answer, text or answer)


def scored(gold_item: BenchmarkItem, *grades: float | None) -> ScoredItem:
    return ScoredItem(gold_item, grades)


def values(metrics) -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics}
