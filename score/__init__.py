"""CLIP image and text embeddings behind Azure ML's contract.

    from score import Embedder, Labels, Params, Row, cosine

    model = Embedder.load()  # the embedded model; or the folder of a package or a checkpoint
    vector = model.embed_text("a photo of a cat")
    records = model.embed(Row(image=url, text=caption) for url, caption in pairs)

The public interface is what `__all__` names, with the modules `score.errors`, `score.settings`,
`score.type_aliases` (types) and `score.spark`. Everything else may change between versions.

Names are imported when they are first used: `import score` alone loads no other library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from score.concurrency.cancellation import Cancellation
    from score.contract.labels import Labels
    from score.contract.params import Params
    from score.contract.rows import Record, Row
    from score.core.embedder import Embedder
    from score.errors import ScoreError
    from score.index.build import build_index
    from score.index.index import Hit, Index
    from score.jobs.embed import embed_file
    from score.jobs.summary import Summary
    from score.model.zeroshot import cosine
    from score.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Cancellation",
    "Embedder",
    "Hit",
    "Index",
    "Labels",
    "Params",
    "Record",
    "Row",
    "ScoreError",
    "Settings",
    "Summary",
    "build_index",
    "cosine",
    "embed_file",
]

_MODULES = {
    "Cancellation": "concurrency.cancellation",
    "Embedder": "core.embedder",
    "Hit": "index.index",
    "Index": "index.index",
    "Labels": "contract.labels",
    "Params": "contract.params",
    "Record": "contract.rows",
    "Row": "contract.rows",
    "ScoreError": "errors",
    "Settings": "settings",
    "Summary": "jobs.summary",
    "build_index": "index.build",
    "cosine": "model.zeroshot",
    "embed_file": "jobs.embed",
}
"""Public name → the module that defines it."""

if not TYPE_CHECKING:  # a type checker would take any name for one of the package's

    def __getattr__(name):
        """Imports a public name. Raises ImportError, with what installs a library it lacks."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        try:
            module = import_module(f"{__name__}.{_MODULES[name]}")
        except ModuleNotFoundError as error:
            from score.extras import missing

            raise ImportError(missing(error), name=error.name) from error
        globals()[name] = getattr(module, name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
