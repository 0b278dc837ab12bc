"""The model among all that a file of weights holds.

Training code saves a model within others: `module.` before each name (DistributedDataParallel),
`_orig_mod.` (torch.compile), `model.` (Lightning), a dictionary under `state_dict`; with averages
of the weights (EMA), a teacher or the optimizer beside it. The model is found by what every CLIP
has, and wrappers that are known are taken off. Two models are never mixed, nor is one of them
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
from score.folder.weights import clipped

# Modules that stand around others and change nothing; a tower may be in one of its own.
_TRANSPARENT = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = frozenset(
    (*_TRANSPARENT, "state_dict", "model_state_dict", "model_state", "model", "clip", "clip_model")
)
_MOST_ROOTS = 100  # each is looked for among all names
_LISTED = 5  # models that a message names
_AVERAGE = re.compile(r"(^|_)(ema|swa|avg|average|averaged)(_|$)")  # state_dict_ema, ema_model, …


class Names(NamedTuple):
    """By what a layout's model is recognised: tensors that every CLIP has.

    image: the patches' weights; texts: the table of tokens, by whichever name.
    """

    image: str
    texts: tuple[str, ...]


class Found(NamedTuple):
    """A model's tensors, by their names in its layout.

    names: the layout's; None where no model was recognised, and `tensors` are the file's as they
    are. remarks: what was decided.
    """

    tensors: Tensors
    names: Names | None
    remarks: tuple[str, ...] = ()


class Unwrapped:
    """Some of a file's tensors, under other names."""

    def __init__(
        self, tensors: Tensors, names: Mapping[str, str], twice: Mapping[str, str]
    ) -> None:
        """`names`: name → name in `tensors`; `twice`: where some are again, wrapped otherwise."""
        self._tensors = tensors
        self._names = names
        self._twice = twice

    def names(self) -> list[str]:
        """As `Tensors.names`."""
        return list(self._names)

    def shape(self, name: str) -> Shape | None:
        """As `Tensors.shape`. Raises ModelError for a tensor that is there twice, too."""
        if name in self._twice:
            one, other = clipped(self._names[name]), clipped(self._twice[name])
            raise ModelError(f"the weights hold {clipped(name)} twice: as {one} and as {other}")
        return self._tensors.shape(self._names[name]) if name in self._names else None

    def dtype(self, name: str) -> torch.dtype:
        """As `Tensors.dtype`."""
        return self._tensors.dtype(self._names[name])

    def read(self, name: str) -> Tensor:
        """As `Tensors.read`."""
        return self._tensors.read(self._names[name])


class _Model(NamedTuple):
    """A model in a file: where its names begin, its layout's, and the tensors under them.

    names, twice: as `Unwrapped` has them.
    """

    root: str
    layout: Names
    names: Mapping[str, str]
    twice: Mapping[str, str]

    @property
    def averaged(self) -> bool:
        """Whether these are an average of the weights, rather than the weights."""
        return any(map(_AVERAGE.search, self.root.split(".")))

    @property
    def known(self) -> bool:
        """Whether all that it is wrapped in is known."""
        parts = self.root.split(".") if self.root else []
        return all(part in _WRAPPERS or _AVERAGE.search(part) for part in parts)


def find(tensors: Tensors, layouts: Sequence[Names], wanted: str | None = None) -> Found:
    """The one model of these layouts in a file.

    `wanted`: where its names begin (`state_dict.module`), if not where it is usual. An average of
    the weights counts only where the weights are not beside it, or where it is wanted: what was
    trained is what training code itself loads. Raises ModelError where several models could be
    meant, and where what is wanted is not there.
    """
    names = tensors.names()
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
    """Matches a tensor's name behind whatever it is wrapped in."""
    between = rf"\.(?:(?:{'|'.join(_TRANSPARENT)})\.)*"
    return re.compile(r"(?:(?P<root>.*)\.)?" + between.join(map(re.escape, name.split("."))), re.S)


def _within(
    names: Iterable[str], root: str, roots: Iterable[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """What lies under a root, but not under another one in it: as `Unwrapped` wants it."""
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
    """The model that is meant; None where there is none. Raises ModelError."""
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
            f"--weights {clipped(models[0].root)} takes it"
        )
    return models[0] if models else None


def _is_wrapped_within(root: str, wanted: str) -> bool:
    """Whether a model is within what is wanted, in known wrappers alone: `model_ema.module`."""
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
        first = clipped(averages[0].root)
        yield f"not used: averaged weights (EMA); --weights {first} takes them instead"


def _parts(stored: str, root: str) -> list[str]:
    return stored.removeprefix(f"{root}." if root else "").split(".")


def _shown(root: str) -> str:
    return repr(clipped(root)) if root else "'' (not wrapped)"
