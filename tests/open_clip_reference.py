"""OpenCLIP's own model, as a reference.

`import open_clip` needs torchvision, which has no build for every machine; its model does not, but
for one class that no transformer uses. So its package is entered by the side: the modules that
compute are OpenCLIP's own, untouched.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers  # noqa: F401 - looks for torchvision, and must not find the stand-in below

Json = dict[str, Any]


def package() -> Path:
    """Where OpenCLIP is installed."""
    spec = importlib.util.find_spec("open_clip")
    assert spec, "pip install --no-deps open_clip_torch"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _model() -> Any:
    stands = {"open_clip": types.ModuleType("open_clip")}
    stands["open_clip"].__path__ = [str(package())]
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc"):
        stands[name] = types.ModuleType(name)
    stands["torchvision.ops.misc"].FrozenBatchNorm2d = torch.nn.BatchNorm2d  # type: ignore[attr-defined]
    sys.modules.update(stands)
    try:
        return importlib.import_module("open_clip.model")
    finally:
        for name in stands:
            del sys.modules[name]


MODEL = _model()


def config(name: str) -> Json:
    """One of OpenCLIP's own model configurations."""
    content: Json = json.loads((package() / "model_configs" / f"{name}.json").read_text("utf-8"))
    return content


class OpenClip:
    """A randomly initialised model of OpenCLIP's."""

    def __init__(self, model_cfg: Json, *, custom: bool = False, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind = MODEL.CustomTextCLIP if custom else MODEL.CLIP
            self.model = kind(**model_cfg).eval()
            # Nothing at its neutral value, which would hide that it is not used.
            for name, parameter in self.model.named_parameters():
                if name.endswith(("bias", "class_embedding", "positional_embedding")):
                    torch.nn.init.normal_(parameter, std=0.02)
                elif ".ln_" in name or name.startswith("ln_"):
                    torch.nn.init.normal_(parameter, mean=1, std=0.1)

    @torch.inference_mode()
    def images(self, normalised: np.ndarray) -> np.ndarray:
        """Normalised pixels [n, 3, side, side] → [n, dimension]."""
        return self.model.encode_image(torch.from_numpy(normalised)).numpy()

    @torch.inference_mode()
    def texts(self, ids: list[list[int]], context: int) -> np.ndarray:
        """Token ids → [n, dimension], padded with 0 to the context, as OpenCLIP pads."""
        padded = torch.zeros(len(ids), context, dtype=torch.long)
        for row, text in zip(padded, ids, strict=True):
            row[: len(text)] = torch.tensor(text)
        return self.model.encode_text(padded).numpy()
