"""Needle data sets on disk: images, a training file and a validation file in the paper's layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from PIL import Image

from pyvision_rl.data.generated import is_written, write_json, write_once
from pyvision_rl.data.needle import (
    KINDS,
    MAX_ITEMS,
    Kind,
    Look,
    NeedlePlan,
    Split,
    item_seed,
    make_item,
)
from pyvision_rl.errors import ConfigError, InputError

TRAIN_FILE = "train.json"
TEST_FILE = "image_val_dataset_needle.json"
PLANS_FILE = "needle_plans.json"
"""The oracle's side file: the configuration of the set and the plan behind every image."""

_SOURCE = "needle"
_ENVIRONMENT = "pyvision_gym_w_image_hint"


@dataclass(frozen=True)
class NeedleConfig:
    """Size and mixture of a needle data set."""

    num_train: int = 1024
    """Training items."""
    num_test: int = 300
    """Test items, the three kinds in turn (as many of each)."""
    mix: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Shares of easy, one-look and two-look items in training; any positive sum."""
    seed: int = 0
    """Data sets of different seeds share no image."""

    def __post_init__(self) -> None:
        for name in ("num_train", "num_test", "seed"):
            value = getattr(self, name)
            if not 0 <= value < MAX_ITEMS:
                raise ConfigError(f"needle.{name}: {value} is not from 0 to {MAX_ITEMS - 1}")
        if len(self.mix) != len(KINDS) or min(self.mix) < 0 or sum(self.mix) <= 0:
            raise ConfigError(
                f"needle.mix: {self.mix} must be {len(KINDS)} shares, none negative, not all 0"
            )


def train_kinds(config: NeedleConfig) -> list[Kind]:
    """The kind of every training item, drawn from the mixture."""
    rng = Random(config.seed)
    return rng.choices(KINDS, config.mix, k=config.num_train) if config.num_train else []


def test_kinds(config: NeedleConfig) -> list[Kind]:
    """The kind of every test item: easy, one look, two looks, easy, ..."""
    return [KINDS[index % len(KINDS)] for index in range(config.num_test)]


def write_needle(folder: Path, config: NeedleConfig) -> None:
    """Write the data set; the same configuration gives the same bytes.

    The folder appears whole or not at all. One that already holds this very set is left as it is;
    any other content raises InputError.
    """
    write_once(
        folder, "needle", PLANS_FILE, asdict(config), lambda partial: _write_files(partial, config)
    )


def needle_is_written(folder: Path, config: NeedleConfig) -> bool:
    """Whether the folder holds this very set. InputError where it holds anything else."""
    return is_written(folder, "needle", PLANS_FILE, asdict(config))


def load_plans(folder: Path) -> dict[str, NeedlePlan]:
    """The plan behind every image of a written set, by the image's file name."""
    path = folder / PLANS_FILE
    try:
        plans = json.loads(path.read_text())["plans"]
        return {
            name: NeedlePlan(
                plan["kind"], tuple(Look(**look) for look in plan["looks"]), plan["answer"]
            )
            for name, plan in plans.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the plans of a needle data set ({error})") from error


def _write_files(folder: Path, config: NeedleConfig) -> None:
    (folder / "images").mkdir()
    train = list(_write_images(folder, "train", config.seed, train_kinds(config)))
    test = list(_write_images(folder, "test", config.seed, test_kinds(config)))
    plans = {Path(row.image).name: asdict(row.plan) for row in (*train, *test)}
    write_json(folder / TRAIN_FILE, [_train_row(row) for row in train])
    write_json(folder / TEST_FILE, [_test_row(row) for row in test])
    write_json(folder / PLANS_FILE, {"config": asdict(config), "plans": plans})


@dataclass(frozen=True)
class _Row:
    index: int
    image: str
    question: str
    plan: NeedlePlan


def _write_images(
    folder: Path, split: Split, dataset_seed: int, kinds: Sequence[Kind]
) -> Iterator[_Row]:
    for index, kind in enumerate(kinds):
        item = make_item(item_seed(split, dataset_seed, index), kind)
        path = f"images/{split}_{index:06d}.png"
        Image.fromarray(item.image).save(folder / path, compress_level=1)
        yield _Row(index, path, item.question, item.plan)


def _train_row(row: _Row) -> dict[str, object]:
    """A row of the paper's RL training json."""
    return {
        "prompt": [{"role": "user", "content": f"<image>\n{row.question}"}],
        "data_source": _SOURCE,
        "ability": row.plan.kind,
        "env_name": _ENVIRONMENT,
        "reward_model": {"ground_truth": row.plan.answer, "style": "rule"},
        "extra_info": {
            "answer": row.plan.answer,
            "index": row.index,
            "question": row.question,
            "split": "train",
            "looks": [asdict(look) for look in row.plan.looks],
        },
        "mm_hint": {"hint_path": row.image, "hint_type": "image"},
    }


def _test_row(row: _Row) -> dict[str, object]:
    """A row of the released validation json."""
    return {
        "id": f"{_SOURCE}_test_{row.index:06d}",
        "question": row.question,
        "answer": row.plan.answer,
        "ability": row.plan.kind,
        "data_source": _SOURCE,
        "image_path": row.image,
    }
