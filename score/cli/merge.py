"""`score merge`: the results of a job over shards → one report and one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from score.cli.arguments import add_overwrite
from score.console.commands import DONE, TOO_MANY_ERRORS, Parser
from score.settings import Settings

HELP = "check that a job over shards has a result for every row, and merge the results"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("shards", metavar="SHARDS", help="the folder that `score split` wrote")
    parser.add_argument("results", metavar="RESULTS", help="the folder that the job wrote")
    parser.add_argument("--output", metavar="FILE.parquet", help="all rows in one table, in order")
    parser.add_argument("--report", metavar="FILE.json", help="numbers of rows, as JSON")
    add_overwrite(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints the report."""
    from score.jobs import merge
    from score.storage.outputs import check_files

    table = Path(options.output) if options.output else None
    report = Path(options.report) if options.report else None
    if table:
        merge.check_table(table)
    shards, results = Path(options.shards), Path(options.results)
    inputs = merge.inputs_of(shards, results)
    check_files(filter(None, [table, report]), overwrite=options.overwrite, inputs=inputs)
    outcome = merge.merge(shards, results, table)
    if report:
        merge.write(outcome, report)
    print(outcome)
    return DONE if outcome.complete else TOO_MANY_ERRORS
