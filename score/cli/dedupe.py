"""`score dedupe`: groups of near-duplicates in an index."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from score.cli.arguments import add_overwrite
from score.cli.index_arguments import (
    ROWS_OUTPUT,
    add_index,
    add_page,
    check_outputs,
    plural,
    write_text,
)
from score.console.commands import DONE, Parser
from score.settings import Settings

if TYPE_CHECKING:
    from score.index.duplicates import Groups
    from score.index.lance import LanceTable

HELP = "find near-duplicates in an index"
REMOTE = ("index",)

_GROUPS_SHOWN, _ROWS_SHOWN = 100, 12  # of a page


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    add_index(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.95,
        metavar="COSINE",
        help="rows are joined from this cosine on, above 0 and 1 at most (0.95)",
    )
    parser.add_argument(
        "--output",
        metavar=ROWS_OUTPUT,
        help="the rows of the groups; default: lines of JSON to stdout",
    )
    add_page(parser)
    add_overwrite(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Writes the groups, and prints how many there are."""
    from score.index.duplicates import check_threshold, find_groups
    from score.index.grouped_rows import write_groups
    from score.index.index import Index, table_of

    check_threshold(options.threshold)
    check_outputs(options.output, options.html, overwrite=options.overwrite)
    index = Index(options.index)
    table, trained = table_of(index)
    groups = find_groups(table, options.threshold, trained)
    write_groups(table, groups, Path(options.output) if options.output else sys.stdout)
    summary = (
        f"{plural(len(groups), 'group')} of {plural(len(groups.places), 'row')} among "
        f"{plural(groups.rows, 'vector')} of {index.column}, by cosines of "
        f"{options.threshold:g} or more; {plural(groups.left, 'row')} would remain if one of each "
        "group were kept"
    )
    if options.html:
        _write_page(table, groups, summary, options)
    print(f"{options.index}: {summary}", file=sys.stderr)
    return DONE


def _write_page(
    table: LanceTable, groups: Groups, summary: str, options: argparse.Namespace
) -> None:
    from score.index.contact_sheet import sections_as_html
    from score.index.grouped_rows import group_sections

    if len(groups) > _GROUPS_SHOWN:
        summary += f". The {_GROUPS_SHOWN} largest groups are shown."
    page = sections_as_html(
        "Near-duplicates",
        f"{options.index}: {summary}",
        [*group_sections(table, groups, _GROUPS_SHOWN, _ROWS_SHOWN)],
        Path(options.root),
        "No two rows are that similar.",
    )
    write_text(page, options.html)
