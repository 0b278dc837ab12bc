"""A package's `README.md`: what the model is, what it may be used for, and proof that it works."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from score import __version__
from score.checkpoints.resolve import ResolvedCheckpoint
from score.checkpoints.source import Source
from score.core.verify import table
from score.model.probes import Finding, Probes

_UNCONFIRMED = (
    "Its weights do not say with which activation they were trained, and nothing in them can "
    "confirm the one that was named: `score evaluate` tells."
)


def write(
    root: Path,
    name: str,
    found: ResolvedCheckpoint,
    findings: Sequence[Finding],
    image: str,
    int8: str | None = None,
) -> None:
    """Writes the card of the package at `root`.

    `image`: one in base64, for the example. `int8`: what it costs, where the package has it.
    """
    probes = Probes.read(root / "model")
    assert probes, "a package has probes"
    parts = [
        f"# {name}",
        found.notice,
        f"Made by clip-endpoints {__version__}. This folder is an MLflow model: it needs nothing "
        "beside it.",
        "## The model\n\n" + _facts(root, found),
        "## Ask it\n\n" + _requests(image),
        "## Limits\n\n" + _limits(found),
        "## Proof\n\n" + _proof(probes, findings),
        *(["## In int8\n\n" + _int8(int8)] if int8 else []),
    ]
    (root / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _facts(root: Path, found: ResolvedCheckpoint) -> str:
    made, entry = found.source.architecture, found.entry
    preprocessor = found.source.preprocessor
    vision, text = made.vision, made.text
    squash = isinstance(preprocessor.resize, tuple)
    facts = {
        "source": found.origin + (f", revision `{found.revision}`" if found.revision else ""),
        "came as": found.source.layout,
        "authors": f"{entry.authors}, {entry.source}" if entry else "see the source",
        "licence": f"{entry.licence.name}: {entry.licence.says}" if entry else "see the source",
        **({"tokenizer, image processor": f"from {found.base.name}"} if found.base else {}),
        "vectors": f"{made.dimension} numbers, not normalised",
        "parameters": f"{made.parameters:,}, stored as {_precisions(found.source)}",
        "images": f"{vision.image}×{vision.image} pixels in patches of {vision.patch}; "
        + ("squashed to a square" if squash else "shortest edge resized, centre cropped")
        + f", {preprocessor.resample.name.lower()}",
        "texts": f"{texts(found)}; up to {text.context} tokens of {text.vocabulary:,}; "
        + ("pooled at the largest id" if made.pools_largest else f"pooled at token {text.end}"),
        "activation": {"gelu": "GELU", "quick_gelu": "QuickGELU"}[vision.tower.activation],
        "languages": entry.languages if entry else "see the source",
        "ImageNet-1k zero-shot top-1": f"{entry.accuracy} % ({entry.figures})"
        if entry and entry.accuracy
        else "not published, as far as the catalog knows",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"| | |\n|---|---|\n{rows}"


def _precisions(written: Source) -> str:
    """What the weights are stored in, with how many parameters of each where they are mixed."""
    counts: Counter[str] = Counter()
    for name, shape in written.architecture.shapes().items():
        counts[str(written.tensors.dtype(name)).removeprefix("torch.")] += math.prod(shape)
    several = [f"{dtype} ({count:,})" for dtype, count in counts.most_common()]
    return ", ".join(several) if len(counts) > 1 else next(iter(counts))


def texts(found: ResolvedCheckpoint) -> str:
    """How texts are cleaned; and how the authors' own are, where the catalog knows otherwise."""
    entry, name = found.entry, found.source.cleaning.name
    said = {
        "openclip": "cleaned as OpenCLIP does (ftfy, html.unescape twice, single spaces)",
        "transformers": "not cleaned, as in transformers",
    }[name]
    if entry and entry.cleaning != name:
        said += f" (its authors' own code does as `--cleaning {entry.cleaning}`)"
    return said


def _requests(image: str) -> str:
    both = {"columns": ["image", "text"], "data": [[image, ""], ["", "a photo of a cat"]]}
    labels = {"columns": ["image"], "data": [[image]]}
    ask = {"input_data": both}
    classify = {"input_data": labels, "params": {"labels": '["a red square", "a cat"]'}}
    command = "curl http://127.0.0.1:5002/invocations -H 'Content-Type: application/json' -d"
    return f"""\
```sh
mlflow models serve -m . --env-manager local -p 5002 &
curl --retry 30 --retry-connrefused --silent http://127.0.0.1:5002/ping
{command} '{json.dumps(ask)}'
{command} '{json.dumps(classify)}'
```

The first answers with vectors, the second with probabilities beside them. An image is an http(s)
URL, base64 or a `data:` URI."""


def _limits(found: ResolvedCheckpoint) -> str:
    entry = found.entry
    limits = entry.limits if entry else ("Not in the catalog: see what its authors say.",)
    if found.source.original is None and entry is None:
        limits = (*limits, _UNCONFIRMED)
    return "\n".join(f"- {limit}" for limit in limits)


def _proof(probes: Probes, findings: Sequence[Finding]) -> str:
    return f"""\
`model/probes.json` holds what the reference implementation ({probes.reference}) computes for the
texts and images below. Loading the model recomputes some of it, and refuses to serve if it
differs; `score verify .` recomputes all of it on the machine at hand. When this package was made:

```
{table(findings)}
```"""


def _int8(agreement: str) -> str:
    return f"""\
`model/int8` holds the towers in int8, calibrated and measured on images given with
`score package --int8` (`agreement.json`): {agreement}.
Up to 128 of the images were calibrated on, too. "In part" leaves the perceptrons' second layers
in fp32.

Nothing uses them unless asked to: `SCORE_PRECISION=int8`, or in Python
`mlflow.pyfunc.load_model(".", model_config={{"precision": "int8"}})`.
They need OpenVINO."""
