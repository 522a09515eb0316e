"""Traces as a folder that LLaMA-Factory trains from, on the same tokens that our own stage sees.

LLaMA-Factory's `qwen2_vl` template gives our codec's ids, and its labels are our loss mask plus the
line feed after each end of turn. It cuts long rows, resizes large images in a way of its own, takes
`<video>` in any text for a placeholder and knows no masked spans: what follows deals with these.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from pyvision_rl.data.generated import fill_folder
from pyvision_rl.data.rows import Row, write_rows
from pyvision_rl.data.traces import Trace, iter_traces
from pyvision_rl.errors import ConfigError, InputError
from pyvision_rl.model.batch import Sample
from pyvision_rl.model.codec import ChatCodec
from pyvision_rl.model.images import PixelLimits
from pyvision_rl.model.inputs import image_key
from pyvision_rl.model.loading import checkpoint_folder
from pyvision_rl.rollout.videos import FramesConfig
from pyvision_rl.sft.data import ShownMessage, encode_messages, show_messages

ROWS_FILE = "traces.json"
TRAIN_FILE = "train.yaml"
MERGE_FILE = "merge.yaml"
OTHER_MARKS = re.compile(r"<video>|<audio>|\{\{idx\}\}")
"""What LLaMA-Factory replaces in any text, images aside."""
DATASET_INFO = {
    "file_name": ROWS_FILE,
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


@dataclass(frozen=True)
class RecipeConfig:
    """What the YAML tells LLaMA-Factory's trainer; the vision tower stays as it is."""

    finetuning: Literal["full", "lora"] = "full"
    """Train all weights of the language model, or adapters."""
    num_epochs: float = 1.0
    """Passes over the traces."""
    batch_size: int = 32
    """Traces per update on one device; with several divide gradient_accumulation_steps by hand."""
    learning_rate: float = 1e-5
    """Peak learning rate."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of training; float32 on a CPU."""

    def __post_init__(self) -> None:
        if self.num_epochs <= 0 or self.batch_size < 1 or self.learning_rate <= 0:
            raise ConfigError("recipe: num_epochs, batch_size and learning_rate must be above 0")


@dataclass(frozen=True)
class ExportConfig:
    """Traces for LLaMA-Factory: data, dataset_info.json and a YAML that it trains from."""

    data: str
    """Trace file in the released SFT layout (sharegpt json)."""
    out: str
    """Folder to write, a new one."""
    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """Folder or hub id of the checkpoint to train; its tokenizer counts tokens."""
    image_root: str = ""
    """Folder that relative image paths start from; empty: the trace file's own."""
    pixels: PixelLimits = field(default_factory=PixelLimits)
    """Pixels that an image may have in the context; images are written at that size."""
    max_tokens: int = 32768
    """Longer traces are left out, since LLaMA-Factory would cut them."""
    loss_exclude: Literal["drop", "learn"] = "drop"
    """Traces with characters that the loss should skip, which LLaMA-Factory cannot: left out, or
    learned whole."""
    video: FramesConfig = field(default_factory=FramesConfig)
    """What a `<video>` of a trace becomes: frames, as images, or its name."""
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    """Optimizer and schedule."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens: {self.max_tokens}, must be at least 1")


@dataclass(frozen=True)
class Export:
    """What was written, and why what was not was left out."""

    folder: Path
    num_traces: int
    num_images: int
    num_tokens: int
    dropped: Counter[str]

    def lines(self) -> list[str]:
        """For a person: the counts, and how to go on."""
        left_out = "".join(f"\nleft out  {num} {why}" for why, num in sorted(self.dropped.items()))
        return [
            f"{self.folder}: {self.num_traces} traces, {self.num_images} images, "
            f"{self.num_tokens} tokens",
            *left_out.splitlines()[1:],
            f"train     cd {self.folder} && llamafactory-cli train {TRAIN_FILE}",
        ]


def export_llamafactory(config: ExportConfig) -> Export:
    """Write the folder. Raises InputError at the first row that is not usable, and where `out`
    holds something already.
    """
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; nothing was overwritten")
    folder = checkpoint_folder(config.model)
    writer = _Writer(config, ChatCodec.from_folder(folder, config.pixels))
    fill_folder(out, lambda draft: _write_files(draft, config, folder, writer))
    return writer.result()


def _write_files(out: Path, config: ExportConfig, folder: str, writer: _Writer) -> None:
    (out / "images").mkdir()
    write_rows(out / ROWS_FILE, writer.rows(out))
    if not writer.num_traces:
        raise InputError(f"{config.data}: no trace is left; left out were {dict(writer.dropped)}")
    info = {"pyvision_rl": DATASET_INFO}
    (out / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", "utf-8")
    model = str(Path(folder).absolute()) if Path(folder).is_dir() else config.model
    (out / TRAIN_FILE).write_text(_train_yaml(config, model), "utf-8")
    if config.recipe.finetuning == "lora":
        (out / MERGE_FILE).write_text(_merge_yaml(model), "utf-8")


class _Writer:
    """Turns traces into rows, one at a time, so that memory stays flat."""

    def __init__(self, config: ExportConfig, codec: ChatCodec) -> None:
        self.config = config
        self.codec = codec
        self.num_traces = 0
        self.num_tokens = 0
        self.dropped: Counter[str] = Counter()
        self._names: dict[bytes, str] = {}

    def rows(self, out: Path) -> Iterator[dict[str, object]]:
        """The rows of the file in `out`, whose images are written there on the way."""
        for row, trace in iter_traces(self.config.data, self.config.image_root or None, None):
            row.raise_first()
            messages = self._show(row, trace)
            sample = encode_messages(messages, trace.excluded, self.codec)
            if why := self._reason(trace, messages, len(sample.token_ids)):
                self.dropped[why] += 1
                continue
            self.num_traces += 1
            self.num_tokens += len(sample.token_ids)
            yield self._row(out, trace, messages, sample)

    def _show(self, row: Row, trace: Trace) -> list[ShownMessage]:
        try:
            return show_messages(trace, self.config.video)
        except InputError as error:
            raise InputError(f"{row.file}: row {row.index}: {error}") from error

    def _reason(self, trace: Trace, messages: Sequence[ShownMessage], num_tokens: int) -> str:
        """Why LLaMA-Factory could not learn this trace as it is; empty where it can."""
        if trace.excluded and self.config.loss_exclude == "drop":
            return "with loss_exclude (--loss_exclude learn keeps them)"
        # Its last line feed is one more token than ours.
        if num_tokens + 1 > self.config.max_tokens:
            return f"longer than {self.config.max_tokens} tokens"
        if any(OTHER_MARKS.search(message.text) for message in messages):
            return "with <video>, <audio> or {{idx}} in a text"
        return ""

    def _row(
        self, out: Path, trace: Trace, messages: Sequence[ShownMessage], sample: Sample
    ) -> dict[str, object]:
        images = []
        for image in sample.images:
            key = image_key(image)
            if key not in self._names:
                self._names[key] = f"images/{len(self._names):06d}.png"
                image.save(out / self._names[key], compress_level=1)
            images.append(self._names[key])
        conversations = [
            {"role": message.role, "content": self.codec.defuse(message.text)}
            for message in messages
        ]
        return {
            "conversations": conversations,
            "images": images,
            "source_dataset": trace.source,
        }

    def result(self) -> Export:
        num_images = len(self._names)
        return Export(
            Path(self.config.out), self.num_traces, num_images, self.num_tokens, self.dropped
        )


def _train_yaml(config: ExportConfig, model: str) -> str:
    recipe = config.recipe
    settings: dict[str, object] = {
        "model_name_or_path": model,
        "image_max_pixels": config.pixels.max_pixels,
        "image_min_pixels": config.pixels.min_pixels,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": recipe.finetuning,
        **({"lora_rank": 64, "lora_target": "all"} if recipe.finetuning == "lora" else {}),
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "dataset_dir": ".",
        "media_dir": ".",
        "dataset": "pyvision_rl",
        "template": "qwen2_vl",
        "cutoff_len": config.max_tokens,
        "preprocessing_batch_size": 64,
        "output_dir": "checkpoint",
        "logging_steps": 1,
        "save_steps": 200,
        "save_total_limit": 1,
        "save_only_model": True,
        "report_to": "none",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "num_train_epochs": recipe.num_epochs,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "max_grad_norm": 1.0,
        "bf16": recipe.dtype == "bfloat16",
    }
    first = f"# Run here: llamafactory-cli train {TRAIN_FILE}"
    if recipe.finetuning == "lora":
        first += f", then llamafactory-cli export {MERGE_FILE}"
    return first + "\n" + yaml.safe_dump(settings, sort_keys=False)


def _merge_yaml(model: str) -> str:
    settings = {
        "model_name_or_path": model,
        "adapter_name_or_path": "checkpoint",
        "template": "qwen2_vl",
        "export_dir": "merged",
    }
    return yaml.safe_dump(settings, sort_keys=False)
