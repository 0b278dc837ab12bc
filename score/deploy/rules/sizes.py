"""Machine sizes: those of `score/deploy/skus.yml`, and others with valid names.

A size that is not in the table is accepted if its name follows Azure's convention: a family, a
number of vCPUs, features, an accelerator of that family, and a version of that family. So
`Standard_D4as_v5` is accepted, and `Standard_DS2_v9` is refused with the nearest name of the table.
Retired series are refused.

Sources, all of github.com/MicrosoftDocs/azure-compute-docs, articles/virtual-machines:
vm-naming-conventions.md for the parts of a name, and the pages of the series in sizes/ for the
versions and accelerators that there are; sizes/lifecycle/retirements-and-capacity-restrictions.md
(of 2026-09-24) and the pages in sizes/lifecycle/retirement for what is retired; of the series that
those no longer mention, H and HB, learn.microsoft.com/azure/virtual-machines/h-series-retirement
and hb-series-retirement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from score.deploy.rules.documents import Document
from score.deploy.rules.parts import models, parts
from score.deploy.skus import Sku, lookup, skus
from score.deploy.values import at, mapping
from score.errors import AzureError
from score.wording.suggestions import suggestion

# Family → its versions. Names of version 1 have no version number.
_VERSIONS = {
    "A": {1, 2},
    "B": {1, 2},
    "D": {1, 2, 3, 4, 5, 6, 7},
    "DS": {1, 2},
    "DC": {1, 2, 3, 5, 6},
    "E": {3, 4, 5, 6, 7},
    "EC": {5, 6},
    "F": {1, 2, 6, 7},
    "FX": {1, 2},
    "G": {1},
    "GS": {1},
    "H": {1},
    "HB": {1, 2, 3, 4, 5},
    "HC": {1},
    "HX": {1},
    "L": {1, 2, 3, 4, 5},
    "M": {1, 2, 3, 4},
    "NC": {1, 2, 3, 4, 5, 6},
    "NCC": {5},
    "ND": {1, 2, 4, 5, 6},
    "NG": {1},
    "NM": {1},
    "NP": {1},
    "NV": {1, 3, 4, 5},
}
# Family and version → accelerators in the names of its sizes.
_ACCELERATORS = {
    ("DC", 5): {"CC"},
    ("EC", 5): {"CC"},
    ("NC", 3): {"T4"},
    ("NC", 4): {"A100"},
    ("NC", 5): {"H100"},
    ("NC", 6): {"RTXPRO6000BSE"},
    ("NCC", 5): {"H100"},
    ("ND", 4): {"A100"},
    ("ND", 5): {"H100", "H200", "MI300X"},
    ("ND", 6): {"GB200", "GB300"},
    ("NV", 5): {"A10", "V710"},
    ("NG", 1): {"V620"},
    ("NM", 1): {"MA35D"},
}
# Family, version and accelerator → date of retirement of the series.
_RETIRED = {
    ("A", 1, ""): "2024-08-31",
    ("DC", 2, ""): "2026-06-30",
    ("DC", 5, "CC"): "2026-09-01",
    ("EC", 5, "CC"): "2026-09-01",
    ("H", 1, ""): "2022-08-31",
    ("HB", 1, ""): "2024-08-31",
    ("NC", 1, ""): "2023-08-31",
    ("NC", 2, ""): "2023-08-31",
    ("NC", 3, ""): "2025-09-30",
    ("ND", 1, ""): "2023-08-31",
    ("NV", 1, ""): "2023-09-06",
    ("NV", 3, ""): "2026-09-30",
    ("NV", 4, ""): "2026-09-30",
}
# Those whose sizes all carry one.
_ALWAYS = {("NC", 4), ("NC", 5), ("NC", 6), ("NCC", 5), ("ND", 5), ("ND", 6), ("NV", 5)}
_ALWAYS |= {("NG", 1), ("NM", 1)}
_PLAIN = ("A", "D")  # whose first version has no features
_CUDA = ("NC", "NCC", "ND", "NV")
_AMD = re.compile(r"MI300X|V710|V620|^standard_nv\d+as_v4$", re.IGNORECASE)
_VCPUS = {
    *(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 24, 28, 30, 32, 36, 40, 44),
    *(48, 52, 60, 64, 72, 80, 96, 104, 112, 120, 128, 144, 160, 176, 192, 208, 224, 256, 288, 320),
    *(368, 372, 416, 420, 624, 832, 896, 1792),
}
_NAME = re.compile(
    r"(?:standard|basic)_(?P<family>[a-z]+?)(?P<vcpus>\d+)(?:-(?P<fewer>\d+))?(?P<features>[a-z]*)"
    r"(?P<rest>(?:_[a-z0-9]+)*?)(?:_v(?P<version>\d+))?",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"_(?:NDR|XL|PROMO)(?=_|$)")  # suffixes that are no accelerator
# The convention defines some of the letters, series use others: e (TDX), f (ND96isrf_H100_v5), h, n
# (network), o (local disks) and r (RDMA).
_FEATURES = re.compile(r"[abcdefhilmnoprst]*", re.IGNORECASE)
# reference-yaml-job-spark: serverless Spark's own list.
_SPARK = tuple(f"standard_e{cores}s_v3" for cores in (4, 8, 16, 32, 64))
_MACHINES = {
    "managedOnlineDeployment": "instance_type",
    "amlCompute": "size",
    "computeInstance": "size",
}


def problems(document: Document) -> Iterator[str]:
    """Unknown and retired sizes."""
    field = _MACHINES.get(document.kind)
    if field and field in document.content:
        name = str(document.content[field])
        yield from _size(field, name)
        sku = _listed_size(name)
        if document.kind == "managedOnlineDeployment" and sku and not sku.online:
            yield f"{field}: managed online endpoints do not have {name}"
    for where, part in parts(document):
        spark = document.kind.startswith("spark") or part.get("type") == "spark"
        size = at(part, "resources.instance_type")
        if (
            spark
            and size is not None
            and str(size).lower() not in _SPARK
            and "${{" not in str(size)
        ):
            known = ", ".join(_SPARK)
            yield f"{where}resources.instance_type: must be one of {known}, not {size!r}"
        elif not spark and str(size).lower().startswith("standard_"):
            yield from _size(f"{where}resources.instance_type", str(size))
    for where, model in models(document):
        yield from _listed(where, mapping(model.get("tags")), mapping(model.get("properties")))


def has_gpus(name: str) -> bool:
    """Whether a size has GPUs that CUDA runs on."""
    sku = _listed_size(name)
    if sku:
        return sku.gpus > 0
    match = _NAME.fullmatch(name)
    return match is not None and match["family"].upper() in _CUDA and not _AMD.search(name)


def _listed_size(name: str) -> Sku | None:
    return next((sku for known, sku in skus().items() if known.lower() == name.lower()), None)


def _size(where: str, name: str) -> Iterator[str]:
    sku = _listed_size(name)
    series = _series(name)
    if sku and sku.status == "retired":
        yield f"{where}: Azure retired {name} on {sku.retires}"
    elif series in _RETIRED and not sku:
        yield f"{where}: Azure retired {name} on {_RETIRED[series]}"
    elif not sku and series is None:
        yield f"{where}: Azure has no size {name!r}{suggestion(name, skus(), 'Standard_')}"


def _series(name: str) -> tuple[str, int, str] | None:
    """Family, version and accelerator of a valid name; None for others."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    family, version = match["family"].upper(), int(match["version"] or 1)
    if version not in _VERSIONS.get(family, ()) or not _FEATURES.fullmatch(match["features"]):
        return None
    if family != "M" and int(match["vcpus"]) not in _VCPUS:
        return None
    if match["features"] and not match["version"] and family in _PLAIN:
        return None
    accelerator = _BESIDE.sub("", match["rest"].upper()).lstrip("_")
    if accelerator and accelerator not in _ACCELERATORS.get((family, version), ()):
        return None
    if not accelerator and (family, version) in _ALWAYS:
        return None
    return family, version, accelerator


def _listed(where: str, tags: object, properties: object) -> Iterator[str]:
    """The sizes that a model's tags and properties list."""
    lists = {
        f"{where}tags.inference_compute_allow_list": at(tags, "inference_compute_allow_list"),
        f"{where}properties.inference-recommended-sku": at(properties, "inference-recommended-sku"),
    }
    for field, text in lists.items():
        for name in re.findall(r"[\w.-]+", str(text or "")):
            if not _series(name):
                try:
                    lookup(name)
                except AzureError as error:
                    yield f"{field}: {error}"
    spec = at(properties, "inference-min-sku-spec")
    if spec is not None and not re.fullmatch(r"\d+(\|\d+){3}", str(spec)):
        yield (
            f"{where}properties.inference-min-sku-spec: {spec!r} is not "
            "vCPUs|GPUs|GiB of memory|GiB of disk"
        )
