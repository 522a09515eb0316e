"""The exported folder, read back by our own reader; LLaMA-Factory itself is asked elsewhere."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pyvision_rl.data.traces import read_traces
from pyvision_rl.errors import InputError
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.rollout.videos import FramesConfig
from pyvision_rl.sft.data import encode_trace
from pyvision_rl.sft.llamafactory import ExportConfig, RecipeConfig, export_llamafactory
from tests.sft.traces import SMALL, trace_file, trace_row


def config_of(data, out, model, **changes) -> ExportConfig:
    config = ExportConfig(str(data), str(out), model=str(model), pixels=SMALL)
    return replace(config, **changes)


def test_the_export_has_the_tokens_and_pixels_of_its_source(
    codec, tiny_random_checkpoint, tmp_path
):
    data = trace_file(tmp_path)
    result = export_llamafactory(config_of(data, tmp_path / "out", tiny_random_checkpoint))
    ours = [encode_trace(trace, codec) for trace in read_traces(data)]
    exported = [encode_trace(t, codec) for t in read_traces(tmp_path / "out" / "traces.json")]
    assert [s.token_ids for s in exported] == [s.token_ids for s in ours]
    assert [s.loss_mask for s in exported] == [s.loss_mask for s in ours]
    for mine, theirs in zip(ours, exported, strict=True):
        assert [i.tobytes() for i in mine.images] == [i.tobytes() for i in theirs.images]
    assert result.num_traces == len(ours) == 4
    assert result.num_tokens == sum(len(sample.token_ids) for sample in ours)
    assert not result.dropped


def test_a_video_is_its_frames_or_its_name(codec, tiny_random_checkpoint, tmp_path):
    film = Path(__file__).parents[3] / "shared" / "data" / "videos" / "bigbuckbunny.mp4"
    if not film.is_file():
        pytest.skip(f"{film} is not here")
    row = {
        "conversations": [
            {"role": "user", "content": "<video>\nHow many?"},
            {"role": "assistant", "content": "Three."},
        ],
        "videos": [str(film)],
    }
    data = trace_file(tmp_path, [row])
    (trace,) = read_traces(data)
    for name, video in (("on", FramesConfig()), ("off", FramesConfig("uniform", num_frames=3))):
        config = config_of(data, tmp_path / name, tiny_random_checkpoint, video=video)
        result = export_llamafactory(config)
        (exported,) = read_traces(tmp_path / name / "traces.json")
        assert encode_trace(exported, codec) == encode_trace(trace, codec, video)
        assert result.num_images == (3 if name == "off" else 0)


def test_every_written_image_is_one_that_needs_no_resizing(tiny_random_checkpoint, tmp_path):
    data = trace_file(tmp_path)
    result = export_llamafactory(config_of(data, tmp_path / "out", tiny_random_checkpoint))
    files = sorted((tmp_path / "out" / "images").iterdir())
    assert len(files) == result.num_images == 4
    for file in files:
        with Image.open(file) as image:
            assert image.mode == "RGB"
            assert image.width % 28 == image.height % 28 == 0
            assert SMALL.min_pixels <= image.width * image.height <= SMALL.max_pixels


def test_what_llamafactory_is_told(tiny_random_checkpoint, tmp_path):
    recipe = RecipeConfig(finetuning="lora", num_epochs=2, batch_size=4, dtype="float32")
    out = tmp_path / "out"
    export_llamafactory(
        config_of(trace_file(tmp_path), out, tiny_random_checkpoint, max_tokens=900, recipe=recipe)
    )
    told = yaml.safe_load((out / "train.yaml").read_text())
    assert told["model_name_or_path"] == str(tiny_random_checkpoint)
    assert (told["cutoff_len"], told["template"]) == (900, "qwen2_vl")
    assert (told["image_min_pixels"], told["image_max_pixels"]) == (784, 28224)
    assert (told["finetuning_type"], told["bf16"]) == ("lora", False)
    assert (told["num_train_epochs"], told["gradient_accumulation_steps"]) == (2, 4)
    info = json.loads((out / "dataset_info.json").read_text())
    assert (out / info[told["dataset"]]["file_name"]).is_file()
    assert yaml.safe_load((out / "merge.yaml").read_text())["adapter_name_or_path"] == "checkpoint"


@pytest.mark.parametrize(
    ("changes", "options", "why"),
    [
        ({"loss_exclude": [[1, 0, 3]]}, {}, "with loss_exclude"),
        ({}, {"max_tokens": 60}, "longer than 60 tokens"),
        ({"said": "as in <video>\n<answer>4</answer>"}, {}, "with <video>"),
        ({"said": "f'{{idx}}'\n<answer>4</answer>"}, {}, "with <video>"),
    ],
)
def test_what_llamafactory_would_get_wrong_is_left_out_and_counted(
    tiny_random_checkpoint, tmp_path, changes, options, why
):
    short = {"conversations": [{"role": "user", "content": "hi"}]}
    short["conversations"].append({"role": "assistant", "content": "yes"})
    data = trace_file(tmp_path, [trace_row(**changes), short])
    result = export_llamafactory(
        config_of(data, tmp_path / "out", tiny_random_checkpoint, **options)
    )
    ((reason, num),) = result.dropped.items()
    assert reason.startswith(why)
    assert (num, result.num_traces) == (1, 1)
    assert f"left out  1 {why}" in "\n".join(result.lines())


def test_a_trace_with_masked_characters_is_learned_whole_where_asked(
    tiny_random_checkpoint, tmp_path
):
    data = trace_file(tmp_path, [trace_row(loss_exclude=[[1, 0, 3]])])
    config = config_of(data, tmp_path / "out", tiny_random_checkpoint, loss_exclude="learn")
    assert export_llamafactory(config).dropped == Counter()


def test_special_tokens_in_a_text_are_no_markup(tiny_random_checkpoint, tmp_path):
    data = trace_file(tmp_path, [trace_row(shown="<|im_end|> printed")])
    export_llamafactory(config_of(data, tmp_path / "out", tiny_random_checkpoint))
    (row,) = json.loads((tmp_path / "out" / "traces.json").read_text())
    assert "< |im_end|> printed" in row["conversations"][2]["content"]


def test_bad_input_is_one_line(tiny_random_checkpoint, tmp_path):
    data = trace_file(tmp_path)
    with pytest.raises(InputError, match=r"no trace is left; left out were \{'longer than 5"):
        export_llamafactory(
            config_of(data, tmp_path / "none", tiny_random_checkpoint, max_tokens=5)
        )
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already; nothing was overwritten"):
        export_llamafactory(config_of(data, taken, tiny_random_checkpoint))
    (tmp_path / "broken.png").write_bytes(b"no image")
    row = trace_row() | {"images": ["broken.png", "large.png"]}
    broken = trace_file(tmp_path, [trace_row(), row])
    with pytest.raises(InputError, match=r"traces\.json: row 1: .*broken\.png: not a readable"):
        export_llamafactory(config_of(broken, tmp_path / "b", tiny_random_checkpoint))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "b"))) == [
        "broken.png"
    ]
    for out in (taken / "mine.txt" / "deeper", Path("/proc/none")):
        with pytest.raises(InputError, match=f"^{out}: cannot be written: "):
            export_llamafactory(config_of(data, out, tiny_random_checkpoint))


def test_limits_are_checked():
    with pytest.raises(InputError, match="batch_size"):
        RecipeConfig(batch_size=0)
    assert PixelLimits() == ExportConfig("a", "b").pixels
