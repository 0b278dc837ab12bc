"""References to container images: their form, and the names of Azure ML's own.

Only a registry knows whether an image exists. But the names of Azure ML's images at Microsoft's
registry follow a few patterns: a name that matches none of them is refused. Sources: the list of
supported images in github.com/Azure/AzureML-Containers (older ones remain available); learn.
microsoft.com/azure/machine-learning/concept-prebuilt-docker-images-inference; the images that
github.com/Azure/azureml-assets and azureml-examples name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
# https://github.com/distribution/reference: [HOST[:PORT]/]PATH[:TAG][@DIGEST]
_IMAGE = re.compile(
    rf"(?:(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|localhost(?::\d+)?|[A-Za-z0-9-]+:\d+)/)?"
    rf"{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
_OURS = "mcr.microsoft.com/azureml/"
_UBUNTU = r"ubuntu(?:16|18|20|22|24)\.04"
_NAMES = re.compile(
    rf"(?:openmpi(?:3\.1\.2|4\.1\.0|5\.0)|intelmpi[\d.]+)(?:-cuda[\d.]+)?(?:-cudnn\d+)?-{_UBUNTU}"
    rf"|minimal-(?:py3\d+(?:-cuda[\d.]+)?|{_UBUNTU}-py3\d+-(?:cpu|gpu|cuda[\d.]+(?:-gpu)?))-inference"
    rf"|(?:mlflow|pytorch|tensorflow|sklearn|xgboost|onnxruntime|lightgbm)-.+-inference"
    r"|base|base-gpu|(?:curated|promptflow|automl|amlarc|inference|o16n)[\w./-]*"
)


def problems(where: str, image: object) -> Iterator[str]:
    """What is wrong with a reference to an image."""
    text = str(image)
    if "${" in text or "$" in text:  # a build argument
        return
    if not isinstance(image, str) or not _IMAGE.fullmatch(text):
        yield f"{where}: {image!r} is no reference to an image"
        return
    name = text.removeprefix(_OURS).partition("@")[0].partition(":")[0]
    if text.startswith(_OURS) and not _NAMES.fullmatch(name):
        yield f"{where}: Azure ML has no image {name!r} at Microsoft's registry"
