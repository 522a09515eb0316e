"""Stage 2: the text model learns to ground, read and follow, on features of the frozen tower."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel as VisionTower,
)

from pyvision_rl.data.needle import TAG_KINDS, Kind, item_seed, make_scene
from pyvision_rl.data.needle_draw import crop_of
from scripts.tiny_base.chats import (
    IGNORE,
    Chat,
    Scene,
    SeenImage,
    chat_crops,
    chat_places,
    chat_python,
    chat_questions,
)
from scripts.tiny_base.optimize import muon_and_adamw, scheduled_lr, take_step
from scripts.tiny_base.scenes import loose_crop, to_patches, view_of

log = logging.getLogger(__name__)

WriteChat = Callable[[PreTrainedTokenizerBase, Scene, Random], Chat]
_LOOSE_SHARE = 0.15
_NUM_SCALING_SCENES = 40
_RICH_KINDS: tuple[tuple[Kind, ...], ...] = (
    (*("easy",) * 5, "one_look", "one_look", "two_looks"),
    (*("easy",) * 4, "one_look", "two_looks", "two_looks"),
)
_PLAIN_WEIGHT = 0.2
"""Weight of a label that tests nothing: words that always come the same are soon learned."""


@dataclass(frozen=True)
class Lesson:
    """A type of conversation, its share of the batches and how many make one."""

    write: WriteChat
    share: float
    batch_size: int


# One type a batch: padding costs more than anything else.
LESSONS = (
    Lesson(chat_places, 0.30, 20),
    Lesson(chat_questions, 0.25, 14),
    Lesson(chat_crops, 0.35, 10),
    Lesson(chat_python, 0.10, 12),
)


@dataclass(frozen=True)
class LanguageConfig:
    """How long and how fast the text model is trained."""

    num_steps: int = 1800
    num_scenes: int = 5000
    peak_lr: float = 4e-3
    seed: int = 0


@torch.no_grad()
def normalize_features(visual: VisionTower) -> None:
    """Scale the tower's last layer so that features have a standard deviation of 1."""
    images = [
        view_of(make_scene(Random(item_seed("base", 2, index)))[0])
        for index in range(_NUM_SCALING_SCENES)
    ]
    patches, grids = to_patches(images)
    scale = 1 / visual(patches, grid_thw=grids).pooler_output.std().item()
    for parameter in visual.merger.mlp[-1].parameters():
        parameter.mul_(scale)


@torch.no_grad()
def encode_scenes(
    visual: VisionTower, dataset_seed: int, num_scenes: int, *, practice: bool = False
) -> list[Scene]:
    """Scenes as frozen features, so that the language stage never runs the tower again.

    `practice`: every second scene has more tags than a task, mostly large digits, and some crops
    are loose. Else scenes and crops are as in the task.
    """
    scenes: list[Scene] = []
    for index in range(num_scenes):
        rng = Random(item_seed("base", dataset_seed, index))
        image, tags = make_scene(rng, _RICH_KINDS if practice and index % 2 else TAG_KINDS)
        crops = [
            loose_crop(image, tag.row, tag.column, rng)[0]
            if practice and rng.random() < _LOOSE_SHARE
            else crop_of(image, tag.row, tag.column)
            for tag in tags
        ]
        patches, grids = to_patches([view_of(image), *crops])
        features = visual(patches, grid_thw=grids).pooler_output
        lengths = (grids.prod(-1) // 4).tolist()
        images = [
            SeenImage(part.clone(), grid)
            for part, grid in zip(features.split(lengths), grids.tolist(), strict=True)
        ]
        scenes.append(Scene(tags, images[0], tuple(images[1:])))
    return scenes


def forward_chats(
    model: Qwen2_5_VLForConditionalGeneration, chats: Sequence[Chat]
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Logits [N, V] and labels [N] of the trained tokens of all chats, and what each tests."""
    pad_id = model.config.get_text_config().pad_token_id
    length = max(len(chat.token_ids) for chat in chats)
    ids = torch.full((len(chats), length), pad_id)
    labels = torch.full((len(chats), length), IGNORE)
    for row, chat in enumerate(chats):
        ids[row, : len(chat.token_ids)] = torch.tensor(chat.token_ids)
        labels[row, : len(chat.labels)] = torch.tensor(chat.labels)
    images = [image for chat in chats for image in chat.images]
    hidden = model.model(
        input_ids=ids,
        attention_mask=(ids != pad_id).long(),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        image_grid_thw=torch.tensor([image.grid for image in images]),
        mm_encoder_outputs={
            # One tensor an image, as the tower itself returns them.
            "image": BaseModelOutputWithPooling(
                pooler_output=tuple(image.features for image in images)  # pyrefly: ignore
            )
        },
        use_cache=False,
    ).last_hidden_state
    trained = labels[:, 1:] != IGNORE
    kinds = [
        kind
        for chat in chats
        for kind, label in zip(chat.kinds[1:], chat.labels[1:], strict=True)
        if label != IGNORE
    ]
    return model.lm_head(hidden[:, :-1][trained]), labels[:, 1:][trained], kinds


def text_optimizers(
    model: Qwen2_5_VLForConditionalGeneration, lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for embeddings and norms; the tower is left alone."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if "visual" not in name:
            matrix = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if matrix else others).append(parameter)
    return muon_and_adamw(matrices, others, lr)


@torch.no_grad()
def measure_gates(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scenes: Sequence[Scene],
) -> dict[str, tuple[float, float]]:
    """Per gate: the share of right tokens given the right past, and their mean probability."""
    rng = Random(1)
    right: dict[str, list[float]] = defaultdict(list)
    sure: dict[str, list[float]] = defaultdict(list)
    for write in (chat_places, chat_questions, chat_crops, chat_python):
        for start in range(0, len(scenes), 20):
            chats = [write(tokenizer, scene, rng) for scene in scenes[start : start + 20]]
            logits, labels, kinds = forward_chats(model, chats)
            chosen = logits.softmax(-1).gather(1, labels[:, None])[:, 0].tolist()
            hits = (logits.argmax(-1) == labels).tolist()
            for kind, hit, probability in zip(kinds, hits, chosen, strict=True):
                name = f"{write.__name__[5:]}/{kind}" if kind in ("row", "column") else kind
                right[name].append(hit)
                sure[name].append(probability)
    return {
        name: (math.fsum(hits) / len(hits), math.fsum(sure[name]) / len(hits))
        for name, hits in sorted(right.items())
        if name
    }


def freeze_unwritten(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scenes: Sequence[Scene],
) -> None:
    """Leave the embeddings of words that no lesson writes as they were drawn.

    Trained, they would only ever be pushed away, all in one direction, and end up alike: a cold
    start could then not teach one of them, such as `<code`, without all the others.
    """
    rng = Random(0)
    written = torch.zeros(len(tokenizer), 1)
    for lesson in LESSONS:
        for scene in scenes:
            labels = lesson.write(tokenizer, scene, rng).labels
            written[[label for label in labels if label != IGNORE]] = 1.0
    log.info("%d of %d tokens are written", int(written.sum()), len(tokenizer))

    def keep_written(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * written

    model.model.language_model.embed_tokens.weight.register_hook(keep_written)


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    config: LanguageConfig,
) -> None:
    """Train the text model in place; linear warm-up, constant, linear decay over the last half."""
    rng = Random(config.seed)
    started = time.process_time()
    scenes = encode_scenes(model.model.visual, 0, config.num_scenes, practice=True)
    held_out = encode_scenes(model.model.visual, 1, 100)
    log.info("features of %d scenes: cpu %.0f s", len(scenes), time.process_time() - started)
    freeze_unwritten(model, tokenizer, scenes[:300])
    optimizers = text_optimizers(model, config.peak_lr)
    for step in range(1, config.num_steps + 1):
        lr = scheduled_lr(config.peak_lr, step, config.num_steps)
        lesson = rng.choices(LESSONS, [lesson.share for lesson in LESSONS])[0]
        drawn = rng.sample(scenes, lesson.batch_size)
        logits, labels, kinds = forward_chats(
            model, [lesson.write(tokenizer, scene, rng) for scene in drawn]
        )
        weights = torch.tensor([1.0 if kind else _PLAIN_WEIGHT for kind in kinds])
        loss = (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
        take_step(loss, optimizers, lr)
        if step % 200 == 0 or step == config.num_steps:
            gates = measure_gates(model, tokenizer, held_out)
            shown = " ".join(f"{name} {hit:.3f}/{p:.3f}" for name, (hit, p) in gates.items())
            seconds = time.process_time() - started
            log.info("language %d loss %.3f %s cpu %.0f s", step, loss.item(), shown, seconds)
