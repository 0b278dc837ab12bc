"""`score status`: how far a job is that writes into a folder, and its report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from score.console.commands import DONE, TOO_MANY_ERRORS, Parser, say
from score.errors import RequestError
from score.settings import Settings

HELP = "tell how far a job of `score embed --output FOLDER` is"


def add(parser: Parser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("folder", help="the job's folder, while it is running or later")
    parser.add_argument("--json", action="store_true", help="as JSON, with all hosts")
    parser.add_argument(
        "--check",
        action="store_true",
        help="read all files, and tell which are damaged: exit with 1 where some are",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="also write report.html and report.json into the folder, as a job does at its end",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="folder below which image cells name files, for the report's thumbnails",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Prints the job's status; returns the exit code."""
    from score.job_folder.inspection import damaged_files
    from score.job_folder.status import Status

    if options.root and not options.report:
        raise RequestError("--root is for --report")
    if options.root and not Path(options.root).is_dir():
        raise RequestError(f"--root: no such folder: {options.root}")
    folder = Path(options.folder)
    status = Status.of(folder)
    damaged = list(damaged_files(folder)) if options.check else []
    if options.json:
        told = {"damaged": damaged} if options.check else {}
        print(json.dumps({**status.json(), **told}, indent=1))
    else:
        print(status)
        for file in damaged:
            print(f"{file} is damaged or missing: the job's command again makes it anew")
    if options.report:
        from score.job_report.writing import write_report

        root = Path(options.root) if options.root else None
        say(f"the report is {write_report(folder, root)}")
    return TOO_MANY_ERRORS if damaged else DONE
