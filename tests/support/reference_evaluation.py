"""open_clip's and CLIP_benchmark's own evaluation code, and transformers' CLIP to evaluate.

Importing the packages needs torchvision and more; the modules used here do not, so they are loaded
one by one from their files.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from score.folder.model_folder import EMBEDDED


def _module(package: str, file: str, **stubs: ModuleType) -> Any:
    """A module of an installed package, without importing the package."""
    installed = importlib.util.find_spec(package)  # located, not imported
    assert installed is not None, f"no {package}; run `make test`"
    assert installed.origin is not None
    path = Path(installed.origin).parent / file
    spec = importlib.util.spec_from_file_location(f"reference_{package}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with_stubs = {name.replace("__", "."): stub for name, stub in stubs.items()}
    before = {name: sys.modules.get(name) for name in with_stubs}
    sys.modules.update(with_stubs)
    try:
        spec.loader.exec_module(module)
    finally:
        for name, known in before.items():
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known
    return module


def _stub(name: str, *names: str) -> ModuleType:
    stub = ModuleType(name)
    for attribute in names:
        setattr(stub, attribute, None)
    return stub


METADATA = _module("open_clip", "zero_shot_metadata.py")
BUILDER = _module("open_clip", "zero_shot_classifier.py")
TRAIN = _module(
    "open_clip_train",
    "zero_shot.py",
    open_clip=_stub(
        "open_clip",
        "get_input_dtype",
        "get_tokenizer",
        "build_zero_shot_classifier",
        "IMAGENET_CLASSNAMES",
        "OPENAI_IMAGENET_TEMPLATES",
    ),
    open_clip_train=_stub("open_clip_train"),
    open_clip_train__precision=_stub("open_clip_train.precision", "get_autocast"),
)
CLASSIFICATION = _module("clip_benchmark", "metrics/zeroshot_classification.py")
RETRIEVAL = _module("clip_benchmark", "metrics/zeroshot_retrieval.py")


def _float(value: Any) -> float:
    return float(value.item() if isinstance(value, np.ndarray) else value)


# Both call float() on an array of one number, which NumPy no longer supports.
TRAIN.float = CLASSIFICATION.float = _float


class Reference:
    """transformers' CLIP with its own preprocessing, with the interface of open_clip's models."""

    def __init__(self) -> None:
        self._model = CLIPModel.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
        self._processor = CLIPImageProcessorPil.from_pretrained(EMBEDDED)

    def tokenizer(self, texts: Sequence[str]) -> torch.Tensor:
        ids: torch.Tensor = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        ).input_ids
        return ids

    def pixels(self, file: Path) -> torch.Tensor:
        with Image.open(file) as image:
            values: torch.Tensor = self._processor(image, return_tensors="pt").pixel_values
        return values[0]

    @torch.no_grad()
    def encode_text(self, ids: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        vectors: torch.Tensor = self._model.get_text_features(input_ids=ids).pooler_output
        return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self._model.get_image_features(pixel_values=pixels).pooler_output
        return vectors


class Identity:
    """A model that returns its inputs as vectors."""

    def encode_text(self, vectors: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors

    def encode_image(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors


class Loader:
    """A data loader over batches in memory, with `dataset.classes` as in torchvision."""

    def __init__(self, batches: Sequence[Any], classes: Sequence[str] = ()) -> None:
        self._batches = batches
        self.dataset = ModuleType("dataset")
        self.dataset.classes = list(classes)  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def retrieval_of(
    images: np.ndarray, texts: np.ndarray, image_of: Sequence[int], ks: Sequence[int]
) -> dict[str, float]:
    """CLIP_benchmark's metrics of vectors: `texts[i]` describes image `image_of[i]`.

    Its captions come image by image.
    """
    own = [
        [i for i, image in enumerate(image_of) if image == wanted] for wanted in range(len(images))
    ]

    def tokenizer(numbers: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(texts[list(numbers)])

    batches = [
        (torch.from_numpy(images[start : start + 16]), own[start : start + 16])
        for start in range(0, len(images), 16)
    ]
    metrics: dict[str, float] = RETRIEVAL.evaluate(
        Identity(), Loader(batches), tokenizer, "cpu", amp=False, recall_k_list=list(ks)
    )
    return metrics
