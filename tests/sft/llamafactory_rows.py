"""Run by LLaMA-Factory's Python in an exported folder: the rows that its trainer would see.

Prints one json object a row: ids, labels, and the mean of the first image's patches.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def main(recipe: str, out: str) -> None:
    settings = yaml.safe_load(Path(recipe).read_text())
    model_args, data_args, training_args, _, _ = get_train_args(settings)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    data = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    rows = []
    for row in data["train_dataset"]:
        lengths = [len(row["images"])], [0], [0]
        inputs = template.mm_plugin.get_mm_inputs(
            row["images"], [], [], *lengths, [row["input_ids"]], module["processor"]
        )
        grid = inputs["image_grid_thw"].tolist()
        pixels = inputs["pixel_values"].double()
        rows.append(
            {
                "ids": row["input_ids"],
                "labels": row["labels"],
                "grid": grid,
                "pixels": [float(pixels.sum()), float(pixels.abs().sum())],
            }
        )
    Path(out).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
