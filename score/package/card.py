"""A package's `README.md` (model card): the model, its limits, and the results of its probes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from score import __version__
from score.checkpoints.resolve import ResolvedCheckpoint
from score.checkpoints.source import Source
from score.core.verify import table
from score.folder.architecture import Architecture
from score.folder.families import Activation
from score.model.probes import Finding, Probes

_UNCONFIRMED = (
    "The weights do not record with which activation (GELU or QuickGELU) they were trained, so the "
    "one above could not be checked. A wrong one shows as low accuracy in `score evaluate`."
)


def write(
    root: Path,
    name: str,
    checkpoint: ResolvedCheckpoint,
    findings: Sequence[Finding],
    image: str,
    int8: str | None = None,
) -> None:
    """Writes the card of the package at `root`.

    `findings`: the results of its probes. `image`: in base64, for the example requests. `int8`: the
    agreement of its int8 towers with fp32, if it has them.
    """
    probes = Probes.read(root / "model")
    assert probes, "a package has probes"
    parts = [
        f"# {name}",
        checkpoint.notice,
        f"Made by clip-endpoints {__version__}. This folder is a complete MLflow model.",
        "## The model\n\n" + _facts(root, checkpoint),
        "## Example requests\n\n" + _requests(image),
        "## Limits\n\n" + _limits(checkpoint),
        "## Comparison with the reference\n\n" + _proof(probes, findings),
        *(["## int8\n\n" + _int8(int8)] if int8 else []),
    ]
    (root / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


_ACTIVATIONS: Mapping[Activation, str] = {
    "gelu": "GELU",
    "gelu_pytorch_tanh": "GELU, approximated by tanh",
    "quick_gelu": "QuickGELU",
}


def _facts(root: Path, checkpoint: ResolvedCheckpoint) -> str:
    architecture, entry = checkpoint.source.architecture, checkpoint.entry
    preprocessor = checkpoint.source.preprocessor
    vision, text, base = architecture.vision, architecture.text, checkpoint.base
    revision = f", revision `{checkpoint.revision}`" if checkpoint.revision else ""
    squash = isinstance(preprocessor.resize, tuple)
    facts = {
        "source": checkpoint.origin + revision,
        "layout": checkpoint.source.layout,
        "authors": f"{entry.authors}, {entry.source}" if entry else "see the source",
        "licence": f"{entry.licence.name}: {entry.licence.says}" if entry else "see the source",
        **({"tokenizer, image processor": f"from {base.name}"} if base else {}),
        "vectors": f"{architecture.dimension} numbers, not normalised",
        "parameters": f"{architecture.parameters:,}, stored as {_precisions(checkpoint.source)}",
        "images": f"{vision.image}×{vision.image} pixels in patches of {vision.patch}; "
        + ("squashed to a square" if squash else "shortest edge resized, centre cropped")
        + f", {preprocessor.resample.name.lower()}",
        "texts": f"{texts(checkpoint)}; up to {text.context} tokens of {text.vocabulary:,}; "
        + _pooling(architecture),
        "activation": _ACTIVATIONS[vision.tower.activation],
        "probabilities of labels": "each label's by itself, a sigmoid of the scaled cosine and a "
        "bias; they do not sum to one, so `confidence` may leave out all labels, and good values "
        "of it are lower than with softmax"
        if architecture.has_bias
        else "a softmax over the labels",
        "languages": entry.languages if entry else "see the source",
        "ImageNet-1k zero-shot top-1": f"{entry.accuracy} % ({entry.figures})"
        if entry and entry.accuracy
        else "not published, as far as the catalog knows",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    return f"| | |\n|---|---|\n{rows}"


def _pooling(architecture: Architecture) -> str:
    if architecture.text.pads:
        return f"always padded to {architecture.text.context}, pooled at the last"
    if architecture.text.pooling == "first":
        return "pooled at the first"
    if architecture.pools_largest:
        return "pooled at the largest id"
    return f"pooled at token {architecture.text.end}"


def _precisions(written: Source) -> str:
    """The weights' precision; the number of parameters in each where it is mixed."""
    counts: Counter[str] = Counter()
    for name, shape in written.architecture.shapes().items():
        counts[str(written.tensors.dtype(name)).removeprefix("torch.")] += math.prod(shape)
    listed = [f"{dtype} ({count:,})" for dtype, count in counts.most_common()]
    return ", ".join(listed) if len(counts) > 1 else next(iter(counts))


def texts(checkpoint: ResolvedCheckpoint) -> str:
    """How texts are cleaned, and how the authors' code does it where that differs."""
    entry, name = checkpoint.entry, checkpoint.source.cleaning.name
    cleaning = {
        "openclip": "cleaned as OpenCLIP does (ftfy, html.unescape twice, single spaces)",
        "canonicalize": "cleaned as OpenCLIP does for SigLIP (ftfy, html.unescape twice, "
        "lower-cased, without punctuation, single spaces)",
        "siglip": "lower-cased, without punctuation, as SigLIP's tokenizer does",
        "transformers": "lower-cased, as SigLIP 2's tokenizer does"
        if checkpoint.source.architecture.kind == "siglip"
        else "not cleaned, as in transformers",
    }[name]
    if entry and entry.cleaning != name:
        cleaning += f" (its authors' own code cleans as `--cleaning {entry.cleaning}`)"
    return cleaning


def _requests(image: str) -> str:
    both = {"columns": ["image", "text"], "data": [[image, ""], ["", "a photo of a cat"]]}
    labels = {"columns": ["image"], "data": [[image]]}
    embed = {"input_data": both}
    classify = {"input_data": labels, "params": {"labels": '["a red square", "a cat"]'}}
    command = "curl http://127.0.0.1:5002/invocations -H 'Content-Type: application/json' -d"
    return f"""\
```sh
mlflow models serve -m . --env-manager local -p 5002 &
curl --retry 30 --retry-connrefused --silent http://127.0.0.1:5002/ping
{command} '{json.dumps(embed)}'
{command} '{json.dumps(classify)}'
```

The answer to the first has vectors; that to the second has the labels' probabilities, too. An image
is an http(s) URL, base64 or a `data:` URI."""


def _limits(checkpoint: ResolvedCheckpoint) -> str:
    entry = checkpoint.entry
    limits = entry.limits if entry else ("Not in the catalog: see its authors' documentation.",)
    if checkpoint.source.original is None and entry is None:
        limits = (*limits, _UNCONFIRMED)
    return "\n".join(f"- {limit}" for limit in limits)


def _proof(probes: Probes, findings: Sequence[Finding]) -> str:
    return f"""\
`model/probes.json` holds the outputs of the reference implementation ({probes.reference}) for the
texts and images below. Loading the model recomputes some of them, and fails if they differ;
`score verify .` recomputes all of them on your machine. When this package was made:

```
{table(findings)}
```"""


def _int8(agreement: str) -> str:
    return f"""\
`model/int8` holds the towers in int8, calibrated and compared with fp32 on the images given to
`score package --int8` (`agreement.json`): {agreement}.
Up to 128 of these images were also the calibration set. "In part": the second layers of the
perceptrons (MLPs) stay in fp32.

They are used only with `SCORE_PRECISION=int8`, or in Python
`mlflow.pyfunc.load_model(".", model_config={{"precision": "int8"}})`, and need OpenVINO."""
