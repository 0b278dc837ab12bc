"""A job's report in a browser. Skipped where there is no Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.job_report.test_report import embed, folder, table

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]
__all__ = ["embed", "folder", "table"]  # fixtures


def looked_at(page: Any, report: Path, said: list[str]) -> dict[str, Any]:
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: said.append(request.url))
    page.goto(report.as_uri())
    measured: dict[str, Any] = page.evaluate(
        "() => ({wide: document.documentElement.scrollWidth, ink: getComputedStyle(document.body)"
        ".color, text: document.body.innerText, shown: [...document.images]"
        ".every(image => image.naturalWidth > 0), images: document.images.length})"
    )
    return measured


def test_a_report_fits_a_phone_and_follows_dark_mode(folder: Path) -> None:
    report = folder / "report.html"
    inks = set()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width in (360, 1000):
                said: list[str] = []
                page = browser.new_page(
                    viewport={"width": width, "height": 800}, color_scheme=scheme
                )
                seen = looked_at(page, report, said)
                page.close()
                assert seen["wide"] == width
                assert seen["images"] >= 2
                assert seen["shown"]
                inks.add(seen["ink"])
                others = [line for line in said if not line.startswith("data:image/jpeg")]
                assert others == [report.as_uri()]  # no script, no violation of the policy
        browser.close()
    assert len(inks) == 2
