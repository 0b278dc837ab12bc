"""docs/reference/catalog.md: the checkpoints known by name, from score/checkpoints/data."""

from __future__ import annotations

from collections.abc import Iterator

from docs.generator.markdown import page
from score.checkpoints.catalog import CATALOG, Entry


def catalog_page() -> str:
    """A table of all checkpoints, then the traps and limits that some of them share."""
    return page(
        "score/checkpoints/data/catalog.toml",
        "Checkpoints known by name",
        "`score package NAME` downloads and packages one of these; `score catalog NAME` prints all "
        "that is known of it, `score catalog --json` of all of them. Top-1 is zero-shot on "
        "ImageNet-1k in percent, as its source published it.",
        "\n".join([_HEAD, *(_row(name, entry) for name, entry in CATALOG.items())]),
        "## Traps",
        "What other programs, or a hasty conversion, get wrong.",
        "\n".join(_shared("traps")),
        "## Limits",
        "\n".join(_shared("limits")),
        "## Sources of the figures",
        "\n".join(_sources()),
    )


_HEAD = """\
| name | Hub | licence | architecture | pixels | tokens | numbers | parameters | top-1 |
|---|---|---|---|---|---|---|---|---|"""


def _row(name: str, entry: Entry) -> str:
    architecture = entry.architecture
    cells = (
        f"`{name}`",
        f"`{entry.hub}`",
        entry.licence.name,
        entry.architecture_name,
        architecture.vision.image,
        architecture.text.context,
        architecture.dimension,
        f"{entry.parameters:,}",
        "" if entry.accuracy is None else f"{entry.accuracy:.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _shared(kind: str) -> Iterator[str]:
    """Each sentence of a kind, and the names of the entries that it is said of."""
    said: dict[str, list[str]] = {}
    for name, entry in CATALOG.items():
        for sentence in getattr(entry, kind):
            said.setdefault(sentence, []).append(name)
    for sentence, names in said.items():
        yield f"- {sentence} ({', '.join(f'`{name}`' for name in names)})"


def _sources() -> Iterator[str]:
    """Each source of figures, and the entries whose figures it holds."""
    held: dict[str, list[str]] = {}
    for name, entry in CATALOG.items():
        if entry.accuracy is not None:
            held.setdefault(entry.figures, []).append(name)
    for source, names in held.items():
        address = "https://" + source.replace(", ", "/blob/main/")  # a file of a repository
        yield f"- <{address}>: {', '.join(f'`{name}`' for name in names)}"
