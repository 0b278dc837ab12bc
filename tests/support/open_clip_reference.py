"""OpenCLIP's own model, as a reference.

`import open_clip` and `import timm` need torchvision, which is not available on every machine;
their transformers use none of it. So `open_clip.model`, and timm where it is installed, are
imported with stand-ins for the package and torchvision; the modules that compute are their own.
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
import pytest
import torch
import transformers  # noqa: F401 - looks for torchvision, and must not find the stand-in below

from score.checkpoints import openclip_tensors
from score.folder.model_folder import ModelFolder
from score.folder.weights import Weights

Json = dict[str, Any]


def package() -> Path:
    """The folder in which OpenCLIP is installed."""
    spec = importlib.util.find_spec("open_clip")
    assert spec, "pip install --no-deps open_clip_torch"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


class _AnyValue(type):
    """A class that has every attribute, each with its own name for a value."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _AnyClass(types.ModuleType):
    """A module that has every class, empty, and its stand-ins for submodules."""

    __path__: list[str] = []  # noqa: RUF012 - of the module, as Python has it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or _AnyValue(name, (), {})


_TORCHVISION = (
    *("datasets", "datasets.folder", "models", "models.feature_extraction", "ops", "ops.misc"),
    *("transforms", "transforms.functional"),
)


def _model() -> Any:
    stands = {"open_clip": types.ModuleType("open_clip")}
    stands["open_clip"].__path__ = [str(package())]
    for name in ("torchvision", *(f"torchvision.{part}" for part in _TORCHVISION)):
        stands[name] = _AnyClass(name)
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


def of_folder(folder: ModelFolder) -> torch.nn.Module:
    """OpenCLIP's model with the weights of a canonical model folder."""
    architecture = folder.architecture
    vision, text = architecture.vision, architecture.text
    model = MODEL.CLIP(
        embed_dim=architecture.dimension,
        quick_gelu=vision.tower.activation == "quick_gelu",
        vision_cfg={
            "image_size": vision.image,
            "layers": vision.tower.layers,
            "width": vision.tower.width,
            "head_width": vision.tower.width // vision.tower.heads,
            "mlp_ratio": vision.tower.hidden / vision.tower.width,
            "patch_size": vision.patch,
        },
        text_cfg={
            "context_length": text.context,
            "vocab_size": text.vocabulary,
            "width": text.tower.width,
            "heads": text.tower.heads,
            "layers": text.tower.layers,
        },
    )
    weights, wanted = Weights.open(folder.path), model.state_dict()
    parts: dict[str, list[torch.Tensor]] = {}  # OpenCLIP has queries, keys and values in one
    for name, part in openclip_tensors.clip(architecture, "", ()).items():
        tensor = weights.read(name)
        turned = tensor.t() if part.convert is torch.Tensor.t else tensor
        parts.setdefault(part.source, []).append(turned)
    for name, tensors in parts.items():
        wanted[name] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    model.load_state_dict(wanted)
    return model.eval()


needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="pip install --no-deps timm==1.0.31"
)


class OpenClip:
    """A randomly initialised OpenCLIP model."""

    def __init__(self, model_cfg: Json, *, custom: bool = False, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind = MODEL.CustomTextCLIP if custom else MODEL.CLIP
            self.model = kind(**model_cfg).eval()
            # No parameter at its neutral value, which would hide that it is not used.
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
