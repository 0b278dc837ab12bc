"""The reference pages: file → text."""

from __future__ import annotations

from pathlib import Path

from docs.generator.api_page import api_page
from docs.generator.catalog_page import catalog_page
from docs.generator.cli_page import cli_page
from docs.generator.errors_page import errors_page
from docs.generator.settings_page import settings_page

FOLDER = Path(__file__).resolve().parent.parent / "reference"


def pages() -> dict[Path, str]:
    """Every page's file and its text."""
    return {
        FOLDER / "settings.md": settings_page(),
        FOLDER / "cli.md": cli_page(),
        FOLDER / "errors.md": errors_page(),
        FOLDER / "api.md": api_page(),
        FOLDER / "catalog.md": catalog_page(),
    }
