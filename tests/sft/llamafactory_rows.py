"""Run by LLaMA-Factory's Python in an exported folder: the rows that its trainer would see.

Writes a json list: ids, labels, and the sum over all patches of its images, per channel and place.
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
        images = row["images"] or []
        lengths = [len(images)], [0], [0]
        inputs = template.mm_plugin.get_mm_inputs(
            images, [], [], *lengths, [row["input_ids"]], module["processor"]
        )
        patches = inputs.get("pixel_values")
        rows.append(
            {
                "ids": row["input_ids"],
                "labels": row["labels"],
                "pixels": [] if patches is None else patches.double().sum(0).tolist(),
            }
        )
    Path(out).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
