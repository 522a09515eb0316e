"""Stage 1: the vision tower learns, token by token, what lies where and which glyph it is."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from random import Random

import torch
from torch import nn
from torch.nn import functional as F

from pyvision_rl.data.needle_draw import COLOURS, GLYPHS, GRID, Pixels, crop_of
from pyvision_rl.model.tiny import HIDDEN_SIZE
from scripts.tiny_base.optimize import muon_and_adamw, scheduled_lr, take_step
from scripts.tiny_base.scenes import (
    IGNORE,
    LARGE,
    NONE,
    SMALL,
    dense_scene,
    loose_crop,
    to_patches,
    view_of,
)

log = logging.getLogger(__name__)

NUM_CELLS = GRID * GRID
_WEIGHTS = {
    "colour": 1.0,
    "row": 0.4,
    "column": 0.4,
    "size": 0.3,
    "glyph": 2.0,
    "view_glyph": 1.0,
    "small_glyph": 0.3,
}
_NEAT_SHARE = 0.7
_MIDDLE_TOKEN = 4


@dataclass(frozen=True)
class VisionConfig:
    """How long and how fast the vision tower is trained."""

    num_steps: int = 3000
    num_views: int = 6
    """Dense images a step; each gives its view and `crops_per_view` crops."""
    crops_per_view: int = 9
    peak_lr: float = 3e-3
    seed: int = 0


class DenseHeads(nn.Module):
    """Linear readers of a token, dropped after the stage. View and crop share the glyph reader."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Linear(HIDDEN_SIZE, 1 + len(COLOURS))
        self.row = nn.Linear(HIDDEN_SIZE, GRID)
        self.column = nn.Linear(HIDDEN_SIZE, GRID)
        self.size = nn.Linear(HIDDEN_SIZE, 3)
        self.glyph = nn.Linear(HIDDEN_SIZE, len(GLYPHS))
        self.unreadable = nn.Linear(HIDDEN_SIZE, len(GLYPHS))


@dataclass(frozen=True)
class Scenes:
    """Patches of views, then crops, with a target a view token [num_views * 36] or crop."""

    patches: torch.Tensor
    grids: torch.Tensor
    targets: dict[str, torch.Tensor]
    crop_tokens: torch.Tensor
    """Which token, counted over all crops, holds the glyph of each crop."""
    neat: torch.Tensor
    """Which crops are exactly what the oracle shows."""


def draw_scenes(rng: Random, num_views: int, crops_per_view: int) -> Scenes:
    """Fresh images: nothing is ever seen twice."""
    names = ("colour", "size", "view_glyph", "small_glyph")
    cells = {name: torch.full((num_views, NUM_CELLS), IGNORE) for name in names}
    cells["colour"].zero_()
    cells["size"].fill_(NONE)
    views: list[Pixels] = []
    crops: list[Pixels] = []
    tokens: list[int] = []
    glyphs: list[int] = []
    neat: list[bool] = []
    offset = 0
    for index in range(num_views):
        image, marks = dense_scene(rng)
        views.append(view_of(image))
        for mark in marks:
            cell, glyph = mark.row * GRID + mark.column, GLYPHS.index(mark.glyph)
            cells["colour"][index, cell] = 1 + list(COLOURS).index(mark.colour)
            cells["size"][index, cell] = mark.size
            cells["view_glyph" if mark.size == LARGE else "small_glyph"][index, cell] = glyph
        large = [mark for mark in marks if mark.size == LARGE]
        small = [mark for mark in marks if mark.size == SMALL]
        for mark in large[: crops_per_view - len(small)] + small:
            neat.append(rng.random() < _NEAT_SHARE)
            if neat[-1]:
                crop, token = crop_of(image, mark.row, mark.column), _MIDDLE_TOKEN
            else:
                crop, token = loose_crop(image, mark.row, mark.column, rng)
            crops.append(crop)
            tokens.append(offset + token)
            glyphs.append(GLYPHS.index(mark.glyph))
            offset += crop.shape[0] * crop.shape[1] // 28**2
    targets = {name: values.flatten() for name, values in cells.items()}
    position = torch.arange(NUM_CELLS).repeat(num_views)
    targets |= {"row": position // GRID, "column": position % GRID, "glyph": torch.tensor(glyphs)}
    return Scenes(*to_patches(views + crops), targets, torch.tensor(tokens), torch.tensor(neat))


def read_scenes(visual: nn.Module, heads: DenseHeads, scenes: Scenes) -> dict[str, torch.Tensor]:
    """Logits for every target of the scenes."""
    features = visual(scenes.patches, grid_thw=scenes.grids).pooler_output
    num_view_tokens = len(scenes.targets["colour"])
    seen, cropped = features[:num_view_tokens], features[num_view_tokens:]
    return {
        "colour": heads.colour(seen),
        "row": heads.row(seen),
        "column": heads.column(seen),
        "size": heads.size(seen),
        "view_glyph": heads.glyph(seen),
        "glyph": heads.glyph(cropped[scenes.crop_tokens]),
        # A probe only (no gradient into the tower): what the view betrays of small glyphs.
        "small_glyph": heads.unreadable(seen.detach()),
    }


def dense_loss(logits: dict[str, torch.Tensor], scenes: Scenes) -> torch.Tensor:
    """The weighted sum of the readers' losses."""
    losses = [
        _WEIGHTS[name] * F.cross_entropy(values, scenes.targets[name], ignore_index=IGNORE)
        for name, values in logits.items()
    ]
    return torch.stack(losses).sum()


def accuracies(logits: dict[str, torch.Tensor], scenes: Scenes) -> dict[str, float]:
    """Share of right readings per target; positions and colours on tags only."""
    tagged = scenes.targets["colour"] > 0
    result = {}
    for name, values in logits.items():
        target = scenes.targets[name]
        known = target != IGNORE
        if name in ("colour", "row", "column", "size"):
            known &= tagged
        if name == "glyph":
            right = values.argmax(-1) == target
            result["neat_glyph"] = right[scenes.neat].float().mean().item()
            known &= ~scenes.neat
        result[name] = (values.argmax(-1) == target)[known].float().mean().item()
    return result


def train_vision(visual: nn.Module, config: VisionConfig) -> None:
    """Train the tower in place; linear warm-up, constant, linear decay over the last half."""
    rng = Random(config.seed)
    held_out = draw_scenes(Random(config.seed + 10**6), 60, 14)
    heads = DenseHeads()
    parameters = [*visual.parameters(), *heads.parameters()]
    matrices = [parameter for parameter in visual.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in parameters if parameter.ndim != 2]
    others += [parameter for parameter in heads.parameters() if parameter.ndim == 2]
    optimizers = muon_and_adamw(matrices, others, config.peak_lr)
    started = time.process_time()
    for step in range(1, config.num_steps + 1):
        lr = scheduled_lr(config.peak_lr, step, config.num_steps)
        scenes = draw_scenes(rng, config.num_views, config.crops_per_view)
        logits = read_scenes(visual, heads, scenes)
        loss = dense_loss(logits, scenes)
        take_step(loss, optimizers, lr)
        if step % 100 == 0 or step == config.num_steps:
            with torch.no_grad():
                right = accuracies(read_scenes(visual, heads, held_out), held_out)
            shown = " ".join(f"{name} {value:.3f}" for name, value in right.items())
            seconds = time.process_time() - started
            log.info("vision %d loss %.3f %s cpu %.0f s", step, loss.item(), shown, seconds)
