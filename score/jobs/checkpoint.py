"""Writes a randomly initialised CLIP in the published transformers layout.

Its vectors mean nothing, but everything about them is real: the files, the tokenizer, the shapes,
the arithmetic. The embedded model is one; tests and benchmarks make others, full size too.
Deterministic for a seed, on any machine.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from score.architecture import Architecture
from score.errors import ModelError
from score.texts import clip_tokenizer

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 49408  # 256 bytes, twice; 48,894 merges; begin and end (openai/CLIP)
CONTEXT = 77

Json = dict[str, Any]


def vit_b_32() -> Json:
    """`config.json` of OpenAI's ViT-B/32: 151 M parameters, 512 dimensions."""
    return _config(
        text={"hidden_size": 512, "layers": 12, "heads": 8},
        vision={"hidden_size": 768, "layers": 12, "heads": 12, "patch_size": 32},
    )


def tiny() -> Json:
    """`config.json` of the embedded model: ViT-B/32's shape, two thin layers deep."""
    return _config(
        text={"hidden_size": 64, "layers": 2, "heads": 2},
        vision={"hidden_size": 64, "layers": 2, "heads": 2, "patch_size": 32},
    )


SIZES = {"tiny": tiny, "vit-b-32": vit_b_32}


def write(folder: Path, config: Json, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Writes config, weights, tokenizer and preprocessor into `folder`, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", {**config, "dtype": str(dtype).removeprefix("torch.")})
    _write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
    _write_json(folder / "tokenizer_config.json", _TOKENIZER)
    write_tokenizer(folder / "tokenizer.json")
    weights = random_weights(config, seed)
    file = folder / "model.safetensors"
    save_file(
        {name: weights[name].to(dtype).contiguous() for name in sorted(weights)},
        file,
        metadata={"format": "pt"},
    )
    file.chmod(0o644)  # safetensors writes for the owner alone; servers run as somebody else
    return folder


def random_weights(config: Json, seed: int) -> dict[str, torch.Tensor]:
    """Every tensor of the architecture, drawn so that signals keep their size through the layers.

    Matrices: normal, 1/√fan-in. Embeddings: normal, 0.02, position included. Norms: near identity.
    NumPy draws them, since its streams are the same on every machine.
    """
    random = np.random.default_rng(seed)
    shapes = Architecture.from_config(config).shapes()
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = random.standard_normal(shape, dtype=np.float32)
        if name == "logit_scale":
            values = np.array(math.log(1 / 0.07), dtype=np.float32)  # CLIP paper, section 2.5
        elif "norm" in name or "layrnorm" in name:
            values = 0.1 * values + (1 if name.endswith("weight") else 0)
        elif "embedding" in name or len(shape) < 2:
            values *= 0.02
        else:
            values /= math.sqrt(math.prod(shape[1:]))
        weights[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return weights


def write_tokenizer(file: Path) -> None:
    """CLIP's own byte-pair vocabulary as a `tokenizer.json`."""
    merges = _merges()
    symbols = list(_BYTES)
    symbols += [symbol + "</w>" for symbol in symbols]
    symbols += ["".join(pair) for pair in merges]
    symbols += [BEGIN, END]
    vocabulary = {symbol: place for place, symbol in enumerate(symbols)}
    if len(vocabulary) != VOCABULARY:
        raise ModelError(f"the vocabulary has {len(vocabulary)} entries, not {VOCABULARY}")
    clip_tokenizer(vocabulary, merges).save(str(file), pretty=False)


def _merges() -> list[tuple[str, str]]:
    """The merges of openai/CLIP's `bpe_simple_vocab_16e6.txt.gz`, which open_clip carries."""
    spec = importlib.util.find_spec("open_clip")  # located, not imported: no torchvision needed
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "CLIP's vocabulary comes with open_clip: pip install --no-deps open_clip_torch"
        )
    file = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")
    pairs = [line.split() for line in lines[1 : VOCABULARY - 512 - 2 + 1]]
    return [(left, right) for left, right in pairs]


def _byte_symbols() -> list[str]:
    """A visible character for each byte, printable ones first (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(others)]


_BYTES = _byte_symbols()


def _config(text: Json, vision: Json) -> Json:
    def tower(model_type: str, spec: Json, extra: Json) -> Json:
        return {
            "model_type": model_type,
            "hidden_size": spec["hidden_size"],
            "intermediate_size": 4 * spec["hidden_size"],
            "num_hidden_layers": spec["layers"],
            "num_attention_heads": spec["heads"],
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "projection_dim": 512,
            **extra,
        }

    ids = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": 1}
    words = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, **ids}
    picture = {"image_size": 224, "patch_size": vision["patch_size"]}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 512,
        "logit_scale_init_value": math.log(1 / 0.07),
        "text_config": tower("clip_text_model", text, words),
        "vision_config": tower("clip_vision_model", vision, picture),
    }


# As openai/clip-vit-base-patch32 publishes them.
_PREPROCESSOR: Json = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}
_TOKENIZER: Json = {
    "bos_token": BEGIN,
    "eos_token": END,
    "model_max_length": CONTEXT,
    "pad_token": END,
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": END,
}


def _write_json(file: Path, content: Json) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m score.jobs.checkpoint vit-b-32 FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--half", action="store_true", help="weights in fp16")
    options = parser.parse_args(arguments)
    dtype = torch.float16 if options.half else torch.float32
    print(write(options.folder, SIZES[options.size](), options.seed, dtype))


if __name__ == "__main__":
    main()
