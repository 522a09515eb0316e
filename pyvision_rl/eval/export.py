"""Predictions in the layouts of VLMEvalKit and lmms-eval, so that others can score them again."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pyvision_rl.eval.benchmarks.item import BenchmarkItem, ScoredItem
from pyvision_rl.eval.store import ItemRecord
from pyvision_rl.runs.files import write_file


def write_vlmevalkit(
    path: Path, scored: Sequence[ScoredItem], records: Mapping[str, ItemRecord]
) -> None:
    """A table with the columns that the rows came with, images apart, and `prediction`, that of the
    first sample. Our own grade is `accuracy`: VLMEvalKit takes a column `hit` for a verdict.
    """
    letters = sorted({letter for entry in scored for letter in entry.item.options})
    labels = {name for entry in scored for name in (*entry.item.labels, *entry.item.columns)}
    first, last = ["index", "question", *letters, "answer"], ["prediction", "accuracy"]
    names = [*first, *sorted(labels - {*first, *last}), *last]
    file = io.StringIO(newline="")
    table = csv.DictWriter(file, names, delimiter="\t", restval="", lineterminator="\n")
    table.writeheader()
    for entry in scored:
        sample = records[entry.item.id].samples[0]
        row = {
            "index": entry.item.id,
            "question": entry.item.task.question,
            **entry.item.options,
            **entry.item.labels,
            **entry.item.columns,
            "answer": entry.item.task.answer,
            "prediction": sample.response.stated,
            "accuracy": "" if entry.grades[0] is None else entry.grades[0],
        }
        table.writerow(row)
    write_file(path, file.getvalue().encode())


def write_lmms_eval(
    path: Path, scored: Sequence[ScoredItem], records: Mapping[str, ItemRecord]
) -> None:
    """One json object a line as `--log_samples` writes them: doc, target, resps, filtered_resps."""
    lines = []
    for number, entry in enumerate(scored):
        doc = _doc(entry.item)
        samples = records[entry.item.id].samples
        line = {
            "doc_id": number,
            "doc": doc,
            "target": entry.item.task.answer,
            "input": entry.item.task.question,
            "arguments": [[entry.item.task.question]],
            "resps": [[sample.text for sample in samples]],
            "filtered_resps": [sample.response.stated for sample in samples],
            "doc_hash": hashlib.sha256(msgspec.json.encode(doc)).hexdigest(),
            "accuracy": entry.mean if entry.counted else None,
        }
        lines.append(msgspec.json.encode(line) + b"\n")
    write_file(path, b"".join(lines))


def _doc(item: BenchmarkItem) -> dict[str, object]:
    return {
        "id": item.id,
        "question": item.task.question,
        "answer": item.task.answer,
        "options": dict(item.options),
        "answer_type": item.answer_type,
        **item.labels,
    }
