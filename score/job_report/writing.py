"""Writes a job's report into its folder: `report.json`, and `report.html` for people."""

from __future__ import annotations

import json
from pathlib import Path

from score.job_folder.folder import REPORTS
from score.job_report.page import as_html
from score.job_report.report import MOST_FILES, Report
from score.storage import atomic


def write_report(folder: Path, root: Path | None = None, most_files: int = MOST_FILES) -> Path:
    """Writes both files, in place of older ones, and returns the page's path.

    As `Report.of`. Raises RequestError, OSError.
    """
    report = Report.of(folder, root, most_files)
    record, page = (folder / name for name in REPORTS)
    text = json.dumps(report.json(), indent=1, allow_nan=False)
    with atomic.files([record, page]) as (record_part, page_part):
        record_part.write_text(text + "\n", encoding="utf-8")
        page_part.write_text(as_html(report), encoding="utf-8", errors="replace")
    return page
