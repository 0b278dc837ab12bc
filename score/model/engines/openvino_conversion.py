"""PyTorch's towers → OpenVINO's models of them."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from score.hardware.processor import release_free_memory
from score.texts.packing import packed

if TYPE_CHECKING:
    import torch

    from score.model.engines.pytorch import PyTorch


def convert(engine: PyTorch, side: int, *, head_apart: bool = False) -> list[list[Any]]:
    """OpenVINO's models of the image tower and of the text tower, for batches of any size.

    `side`: of an image, in pixels. `head_apart`: two models a tower, the second being its head
    (last norm and projection); else one.
    """
    import torch

    pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    ((texts, _),) = packed([[3, 2, 1]] * 40)
    images, tokens = engine.modules(head_apart=head_apart)
    with torch.no_grad():
        return [
            _models_of(images, pixels),
            _models_of(tokens, *map(torch.from_numpy, texts)),
        ]


def _models_of(modules: Sequence[torch.nn.Module], *examples: torch.Tensor) -> list[Any]:
    """Models of modules that run one after another. `examples`: inputs of the first."""
    models = []
    for module in modules:
        models.append(model_of(module, *examples))
        examples = (module(*examples),)
    return models


def model_of(tower: torch.nn.Module, *examples: torch.Tensor) -> Any:
    """OpenVINO's model of a module, traced on `examples`; the sizes of its inputs stay free."""
    # As `openvino.convert_model`, without its telemetry.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.passes import ConstantFolding, Manager

    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation of tracing in favour of torch.export
        decoder = TorchScriptPythonDecoder(tower.eval(), example_input=examples)
    model = frontend.convert(frontend.load(decoder))
    passes = Manager()
    passes.register_pass(ConstantFolding())  # NNCF quantises constants, not slices of one
    passes.run_passes(model)
    return model


def release_traces() -> None:
    """Frees the memory of traces and of what was read for them: up to twice the model's size.

    PyTorch's traces are reference cycles, and glibc keeps freed memory.
    """
    gc.collect()
    release_free_memory()
