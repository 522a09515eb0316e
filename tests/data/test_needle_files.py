import json
from collections import Counter
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from pyvision_rl.data.needle import item_seed, make_item, oracle_turns
from pyvision_rl.data.needle_files import (
    TEST_FILE,
    TRAIN_FILE,
    NeedleConfig,
    load_plans,
    train_kinds,
    write_needle,
)
from pyvision_rl.errors import ConfigError, InputError

SMALL = NeedleConfig(num_train=5, num_test=3, seed=4)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).digest() for path in files}


def test_rows_point_to_their_items(tmp_path):
    write_needle(tmp_path / "set", SMALL)
    rows = json.loads((tmp_path / "set" / TRAIN_FILE).read_text())
    assert len(rows) == 5
    for index, (row, kind) in enumerate(zip(rows, train_kinds(SMALL), strict=True)):
        item = make_item(item_seed("train", 4, index), kind)
        image = Image.open(tmp_path / "set" / row["mm_hint"]["hint_path"])
        assert np.array_equal(np.asarray(image), item.image)
        assert row["prompt"] == [{"role": "user", "content": f"<image>\n{item.question}"}]
        assert row["reward_model"] == {"ground_truth": item.plan.answer, "style": "rule"}
        assert (row["ability"], row["data_source"]) == (kind, "needle")
        assert row["extra_info"]["index"] == index


def test_test_rows_take_the_kinds_in_turn(tmp_path):
    write_needle(tmp_path / "set", SMALL)
    rows = json.loads((tmp_path / "set" / TEST_FILE).read_text())
    assert [row["ability"] for row in rows] == ["easy", "one_look", "two_looks"]
    assert set(rows[0]) == {"id", "question", "answer", "ability", "data_source", "image_path"}
    plans = load_plans(tmp_path / "set")
    plan = plans[rows[2]["image_path"].removeprefix("images/")]
    assert plan == make_item(item_seed("test", 4, 2), "two_looks").plan
    assert rows[2]["answer"] in oracle_turns(plan)[-1]


def test_same_config_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_needle(tmp_path / name, SMALL)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_written_set_is_left_alone(tmp_path):
    write_needle(tmp_path / "set", SMALL)
    before = (tmp_path / "set" / TRAIN_FILE).stat().st_mtime_ns
    write_needle(tmp_path / "set", SMALL)
    assert (tmp_path / "set" / TRAIN_FILE).stat().st_mtime_ns == before


def test_other_content_is_never_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        write_needle(tmp_path, SMALL)
    write_needle(tmp_path / "set", SMALL)
    with pytest.raises(InputError, match="another needle data set"):
        write_needle(tmp_path / "set", NeedleConfig(num_train=5, num_test=3, seed=5))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InputError, match="set: cannot be written: disk full"):
        write_needle(tmp_path / "set", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_mix_decides_the_training_kinds():
    only_two = NeedleConfig(num_train=50, num_test=0, mix=(0, 0, 1))
    assert Counter(train_kinds(only_two)) == {"two_looks": 50}
    counts = Counter(train_kinds(NeedleConfig(num_train=4000)))
    assert counts["easy"] == pytest.approx(2000, abs=130)  # 4 standard deviations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": -1}, r"needle.num_train: -1 is not from 0"),
        ({"mix": (1, 0)}, r"needle.mix: \(1, 0\) must be 3 shares"),
        ({"mix": (0, 0, 0)}, r"not all 0"),
    ],
)
def test_bad_config_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        NeedleConfig(**options)


def test_missing_plans_name_the_file(tmp_path):
    with pytest.raises(InputError, match=r"needle_plans\.json"):
        load_plans(tmp_path)
