"""Finds the model in a state dict, among whatever else the file holds.

Training code saves a model within others: `module.` before each name (DistributedDataParallel),
`_orig_mod.` (torch.compile), `model.` (Lightning), a dictionary under `state_dict`; with averages
of the weights (EMA), a teacher or the optimizer beside it. The model is recognised by tensors
that every CLIP has, and known wrappers are removed. Two models are never mixed, nor is one of them
chosen silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from score.checkpoints.source import Tensors
from score.errors import ModelError
from score.folder.architecture import Shape
from score.folder.weights import printable_name

# Wrappers that change nothing; each tower may have its own.
_TRANSPARENT = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = frozenset(
    (*_TRANSPARENT, "state_dict", "model_state_dict", "model_state", "model", "clip", "clip_model")
)
_MOST_NAMES = 2**15  # the largest CLIP and its optimizer's state have some 6,000
_MOST_ROOTS = 100  # each is searched for among all names
_LISTED = 5  # models that a message names
_AVERAGE = re.compile(r"(^|_)(ema|swa|avg|average|averaged)(_|$)")  # state_dict_ema, ema_model, …


class Names(NamedTuple):
    """The names by which a layout's model is recognised: tensors that every CLIP has.

    image: of the patch embedding; texts: possible names of the token embedding.
    """

    image: str
    texts: tuple[str, ...]


class Found(NamedTuple):
    """A model's tensors, by their names in its layout.

    names: the layout's; None where no model was recognised, and `tensors` are the file's as they
    are. remarks: decisions that the user should know of.
    """

    tensors: Tensors
    names: Names | None
    remarks: tuple[str, ...] = ()


class Unwrapped:
    """Some of a file's tensors, under other names."""

    def __init__(
        self, tensors: Tensors, names: Mapping[str, str], twice: Mapping[str, str]
    ) -> None:
        """`names`: name → name in `tensors`; `twice`: the same for their duplicates."""
        self._tensors = tensors
        self._names = names
        self._twice = twice

    def names(self) -> list[str]:
        """As `Tensors.names`."""
        return list(self._names)

    def shape(self, name: str) -> Shape | None:
        """As `Tensors.shape`. Also raises ModelError for a tensor that exists twice."""
        if name in self._twice:
            one, other = printable_name(self._names[name]), printable_name(self._twice[name])
            raise ModelError(
                f"the weights hold {printable_name(name)} twice: as {one} and as {other}"
            )
        return self._tensors.shape(self._names[name]) if name in self._names else None

    def dtype(self, name: str) -> torch.dtype:
        """As `Tensors.dtype`."""
        return self._tensors.dtype(self._names[name])

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`."""
        return self._tensors.read(self._names[name])


class _Model(NamedTuple):
    """A model in a file: the prefix of its names, the names of its layout, and its tensors.

    names, twice: as `Unwrapped` has them.
    """

    root: str
    layout: Names
    names: Mapping[str, str]
    twice: Mapping[str, str]

    @property
    def averaged(self) -> bool:
        """Whether these are an average of the weights (EMA)."""
        return any(map(_AVERAGE.search, self.root.split(".")))

    @property
    def known(self) -> bool:
        """Whether all its wrappers are known."""
        parts = self.root.split(".") if self.root else []
        return all(part in _WRAPPERS or _AVERAGE.search(part) for part in parts)


def find(tensors: Tensors, layouts: Sequence[Names], wanted: str | None = None) -> Found:
    """The one model of these layouts in a file.

    `wanted`: the prefix of its names (`state_dict.module`), if not a usual one. An average of the
    weights (EMA) is used only if the weights themselves are missing, or if it is wanted: training
    code itself loads the weights. Raises ModelError if several models match, or none.
    """
    names = tensors.names()
    if len(names) > _MOST_NAMES:
        raise ModelError(
            f"the weights hold {len(names):,} tensors; at most {_MOST_NAMES:,} are read"
        )
    models = [model for layout in layouts for model in _models(names, layout)]
    model = _chosen(models, wanted)
    if model is None:
        return Found(tensors, None)
    if len(models) == 1 and all(name == stored for name, stored in model.names.items()):
        return Found(tensors, model.layout)
    unwrapped = Unwrapped(tensors, model.names, model.twice)
    return Found(unwrapped, model.layout, tuple(_remarks(model, models)))


def _models(names: Iterable[str], layout: Names) -> Iterator[_Model]:
    """Every model of a layout that has an image and a text tower."""
    anchor = _anchor(layout.image)
    roots = {match["root"] or "" for name in names if (match := anchor.fullmatch(name))}
    if len(roots) > _MOST_ROOTS:
        raise ModelError(f"the weights hold {len(roots):,} models; at most {_MOST_ROOTS} are read")
    for root in sorted(roots):
        within, twice = _within(names, root, roots)
        if any(name in within for name in layout.texts):
            yield _Model(root, layout, within, twice)


def _anchor(name: str) -> re.Pattern[str]:
    """A pattern for a tensor's name with any prefix."""
    between = rf"\.(?:(?:{'|'.join(_TRANSPARENT)})\.)*"
    return re.compile(r"(?:(?P<root>.*)\.)?" + between.join(map(re.escape, name.split("."))), re.S)


def _within(
    names: Iterable[str], root: str, roots: Iterable[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The tensors under a root, but not under another root within it, for `Unwrapped`."""
    start = f"{root}." if root else ""
    others = tuple(f"{other}." for other in roots if other != root and other.startswith(start))
    within: dict[str, str] = {}
    twice: dict[str, str] = {}
    for stored in names:
        if not stored.startswith(start) or stored.startswith(others):
            continue
        name = ".".join(part for part in _parts(stored, root) if part not in _TRANSPARENT)
        (twice if name in within else within)[name] = stored
    return within, twice


def _chosen(models: Sequence[_Model], wanted: str | None) -> _Model | None:
    """The one matching model; None where there is none. Raises ModelError for several."""
    listed = ", ".join(_shown(model.root) for model in models[:_LISTED]) or "none of both towers"
    if wanted is not None:
        models = [m for m in models if m.root == wanted] or [
            m for m in models if _is_wrapped_within(m.root, wanted)
        ]
        if not models:
            raise ModelError(f"no model of the weights is under {wanted!r}: there is {listed}")
    else:
        models = [model for model in models if not model.averaged] or models
    if len(models) > 1:
        raise ModelError(f"the weights hold several models ({listed}): name one with --weights")
    if models and wanted is None and not models[0].known:
        raise ModelError(
            f"the weights hold a model under {listed}, which is no wrapper that is known: "
            f"--weights {printable_name(models[0].root)} takes it"
        )
    return models[0] if models else None


def _is_wrapped_within(root: str, wanted: str) -> bool:
    """Whether a model's prefix is the wanted one plus known wrappers: `model_ema.module`."""
    outer, inner = wanted.split("."), root.split(".")
    return inner[: len(outer)] == outer and all(part in _WRAPPERS for part in inner[len(outer) :])


def _remarks(model: _Model, models: Sequence[_Model]) -> Iterator[str]:
    if model.root:
        yield f"the model is what the weights hold under {_shown(model.root)}"
    inner = {part for stored in model.names.values() for part in _parts(stored, model.root)}
    if dropped := sorted(inner.intersection(_TRANSPARENT)):
        yield f"left out of the names of its tensors: {', '.join(dropped)}"
    averages = [other for other in models if other.averaged and other is not model]
    if model.averaged:
        alone = "" if len(models) > 1 else ", and the file holds no others"
        yield f"these weights are an average (EMA){alone}"
    elif averages:
        first = printable_name(averages[0].root)
        yield f"not used: averaged weights (EMA); --weights {first} takes them instead"


def _parts(stored: str, root: str) -> list[str]:
    return stored.removeprefix(f"{root}." if root else "").split(".")


def _shown(root: str) -> str:
    return repr(printable_name(root)) if root else "'' (not wrapped)"
