"""Make the tiny base from nothing: `python -m scripts.tiny_base --out FOLDER`.

About 21 minutes of one CPU core (vision 9, language 12). The seed decides every image, chat and
weight: the same machine type and the same torch give the same result. The last line printed holds
the gates on unseen images. To ship the folder, add its MODEL_CARD.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pyvision_rl.model.tiny import tiny_config, train_tokenizer
from scripts.tiny_base.corpus import VOCAB_SIZE, tokenizer_corpus
from scripts.tiny_base.language import (
    LanguageConfig,
    encode_scenes,
    measure_gates,
    normalize_features,
    train_language,
)
from scripts.tiny_base.scenes import VIEW_PX
from scripts.tiny_base.vision import VisionConfig, train_vision

log = logging.getLogger(__name__)


def make_base(
    out: Path, vision: VisionConfig, language: LanguageConfig, tower: Path | None = None
) -> None:
    """Train tokenizer, vision tower and text model, and write the folder.

    With `tower`, the folder of an earlier or interrupted run, its vision tower is taken as it is.
    """
    started = time.process_time()
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(tokenizer_corpus(), VOCAB_SIZE)
    torch.manual_seed(vision.seed)
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer))
    if tower is None:
        train_vision(model.model.visual, vision)
        normalize_features(model.model.visual)
        save_base(out, model, tokenizer)
    else:
        trained = Qwen2_5_VLForConditionalGeneration.from_pretrained(tower)
        model.model.visual.load_state_dict(trained.model.visual.state_dict())
    model.model.visual.requires_grad_(False)
    train_language(model, tokenizer, language)
    save_base(out, model, tokenizer)
    fresh = encode_scenes(model.model.visual, 3, 400)
    gates = {
        name: {"right": round(right, 4), "probability": round(probability, 4)}
        for name, (right, probability) in measure_gates(model, tokenizer, fresh).items()
    }
    log.info("%s", json.dumps({"gates": gates, "cpu_s": round(time.process_time() - started)}))


def save_base(
    out: Path, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Write weights, configuration, tokenizer and processor in Hugging Face layout."""
    model.generation_config.update(
        eos_token_id=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # The class of older transformers lines, which the newer ones load as well.
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")
    Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=VIEW_PX**2).save_pretrained(out)


def main() -> None:
    """Parse the command line and make the base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vision-steps", type=int, default=VisionConfig.num_steps)
    parser.add_argument("--language-steps", type=int, default=LanguageConfig.num_steps)
    parser.add_argument("--tower", type=Path, help="folder to take the vision tower from")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    make_base(
        arguments.out,
        VisionConfig(num_steps=arguments.vision_steps, seed=arguments.seed),
        LanguageConfig(num_steps=arguments.language_steps, seed=arguments.seed),
        arguments.tower,
    )


if __name__ == "__main__":
    main()
