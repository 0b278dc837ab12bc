"""`score cluster`: clusters of an index's vectors, with names."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from score.cli.arguments import add_overwrite, add_settings, positive
from score.cli.index_arguments import (
    ROWS_OUTPUT,
    add_index,
    add_page,
    check_model,
    check_outputs,
    plural,
    write_text,
)
from score.console.commands import DONE, Parser
from score.errors import RequestError
from score.folder.model_folder import EMBEDDED
from score.settings import Settings

if TYPE_CHECKING:  # import NumPy, PyArrow and scikit-learn, which `--help` does without
    from collections.abc import Sequence

    from score.index.clusters import Clustering
    from score.index.index import Hit, Index
    from score.type_aliases import Matrix

HELP = "divide an index into clusters, and name them"
REMOTE = ("index",)

_NONE = "none"
_EXAMPLES, _PAGE_EXAMPLES = 3, 12
_NAMES = 3
_MOST_CLUSTERS, _MOST_SIZE = 4096, 100_000


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add_index(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--clusters",
        type=partial(positive, most=_MOST_CLUSTERS),
        default=20,
        metavar="K",
        help="so many, by spherical k-means (20)",
    )
    kind.add_argument(
        "--hdbscan",
        action="store_true",
        help="as many as there are, by density; some rows are in none",
    )
    parser.add_argument(
        "--min-size",
        type=partial(positive, most=_MOST_SIZE),
        default=5,
        metavar="N",
        help="rows that a cluster of --hdbscan has at least (5)",
    )
    parser.add_argument(
        "--names",
        metavar="emoji|imagenet|none|FILE",
        help="what clusters are named by: a file of one text a line; default: emoji for the "
        "embedded model, imagenet for others",
    )
    parser.add_argument(
        "--model", default=EMBEDDED, metavar="DIR", help="model that embedded the table"
    )
    parser.add_argument(
        "--output", metavar=ROWS_OUTPUT, help="each row's cluster, its name, and the distance"
    )
    add_page(parser)
    add_overwrite(parser)
    add_settings(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints the clusters, and writes their rows."""
    from score.index.clusters import hdbscan, k_means
    from score.index.grouped_rows import write_clusters
    from score.index.index import Index, table_of

    check_outputs(options.output, options.html, overwrite=options.overwrite)
    index = Index(options.index)
    vocabulary = _vocabulary(index, options)
    table, _ = table_of(index)
    if options.hdbscan:
        clustering = hdbscan(table, options.min_size)
    else:
        clustering = k_means(table, options.clusters)
    names: list[tuple[str, ...]] = [()] * len(clustering)
    if vocabulary and len(clustering):
        from score.index.naming import names_of

        vectors = _encoded(vocabulary, options.model, settings)
        names = names_of(clustering.centres, vocabulary, vectors, _NAMES)
    if options.output:
        first = [name[0] if name else None for name in names]
        write_clusters(table, clustering, first, Path(options.output))
    _show(index, clustering, names, options)
    return DONE


def _vocabulary(index: Index, options: argparse.Namespace) -> Sequence[str]:
    """The texts that clusters are named by; none where no names are wanted. The model is checked,
    and not loaded. Raises RequestError."""
    if options.names == _NONE:
        return ()
    from score.evaluation.prompts import vocabulary
    from score.folder.model_folder import ModelFolder

    check_model(index, options.model)
    is_embedded = ModelFolder.open(options.model).path.resolve() == EMBEDDED.resolve()
    return vocabulary(options.names or ("emoji" if is_embedded else "imagenet"))


def _encoded(vocabulary: Sequence[str], model: str, settings: Settings) -> Matrix:
    """The texts' vectors [V, D]. Raises RequestError for one that cannot be encoded."""
    import numpy as np

    from score.contract.rows import Row
    from score.core.embedder import Embedder

    embedder = Embedder.load(model, settings)
    vectors = []
    records = embedder.embed(Row(text=text) for text in vocabulary)
    for text, record in zip(vocabulary, records, strict=True):
        if record.error or record.text_features is None:
            raise RequestError(f"the name {text[:80]!r} cannot be encoded: {record.error}")
        vectors.append(record.text_features)
    return np.stack(vectors)


def _show(
    index: Index,
    clustering: Clustering,
    names: Sequence[Sequence[str]],
    options: argparse.Namespace,
) -> None:
    """The table of clusters, and the page."""
    from score.index.grouped_rows import cluster_sections
    from score.index.index import cluster_hits, table_of

    table, _ = table_of(index)
    count = _PAGE_EXAMPLES if options.html else _EXAMPLES
    examples = cluster_hits(table, clustering, count)
    summary = _summary(index, clustering, options)
    if options.html:
        from score.index.contact_sheet import sections_as_html

        sections = [*cluster_sections(examples, clustering.sizes.tolist(), names)]
        page = sections_as_html(
            "Clusters",
            f"{options.index}: {summary}",
            sections,
            Path(options.root),
            "No rows lie closely enough together.",
        )
        write_text(page, options.html)
    for line in _lines(clustering, names, examples):
        print(line)
    print(f"{options.index}: {summary}", file=sys.stderr)


def _summary(index: Index, clustering: Clustering, options: argparse.Namespace) -> str:
    sizes = clustering.sizes
    total = len(clustering.numbers)
    text = f"{plural(len(sizes), 'cluster')} of {plural(total, 'vector')} of {index.column}"
    if options.hdbscan:
        return f"{text}; {plural(total - int(sizes.sum()), 'row')} in none"
    if len(sizes) < options.clusters:
        text += f"; {options.clusters:,} were asked for, and no row is left for the others"
    return text


def _lines(
    clustering: Clustering, names: Sequence[Sequence[str]], examples: Sequence[Sequence[Hit]]
) -> list[str]:
    from score.index.grouped_rows import example
    from score.index.listing import aligned, shown

    lines = [["cluster", "size", "names", "examples"]]
    sizes = clustering.sizes.tolist()
    for number, (size, called, hits) in enumerate(zip(sizes, names, examples, strict=True), 1):
        shown_names = ", ".join(shown(name, 40) for name in called)
        some = ", ".join(filter(None, (example(hit.row) for hit in hits[:_EXAMPLES])))
        lines.append([str(number), f"{size:,}", shown_names, some])
    return aligned(lines) if sizes else ["no cluster was found"]
