"""The page at `/` in a browser, before a real server. Skipped where there is no Chromium.

Every test also fails if the browser reports a violation of the content security policy or an
error of the script, or asks any other server for anything.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from starlette.applications import Starlette
from starlette.routing import Mount

from score.core.embedder import Embedder
from score.core.models import Models
from score.folder.model_folder import EMBEDDED
from score.serve import keys, web_page
from score.serve.app import application
from tests.support.asgi import listening
from tests.support.hostile import Authority
from tests.support.images import SAMPLES, in_base64
from tests.support.surfaces import OwnServer

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
IMAGES = [SAMPLES / "images" / name for name in ("apple.png", "house.jpg", "boat.jpg")]
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The URL of a server without keys."""
    own = OwnServer()
    try:
        own.wait()
        yield own.url.removesuffix("/score")
    finally:
        own.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """An empty page, whose requests and errors are looked at when the test is done."""
    context = browser.new_context(viewport={"width": 900, "height": 900}, ignore_https_errors=True)
    context.set_default_timeout(20_000)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    origins = {urlsplit(url)[:2] for url in asked if not url.startswith("blob:")}
    context.close()
    assert len(origins) == 1
    # Chromium notes each answer that is an error.
    assert [line for line in said if not line.startswith("Failed to load resource")] == []


def opened(page: Any, base: str, *images: Path) -> None:
    page.goto(f"{base}/")
    if images:
        page.set_input_files("#files", images)
    playwright.expect(page.locator("#images li")).to_have_count(len(images))


def classified(page: Any, *labels: str) -> None:
    page.fill("#labels", "\n".join(labels))
    page.click("#classify button")


def alert(page: Any, form: str) -> str:
    """What the server refused, as the page shows it."""
    page.wait_for_selector(f"{form} .error")
    return str(page.inner_text(f"{form} [role=alert]"))


def codes(page: Any, form: str) -> dict[str, str]:
    """Name → code."""
    page.wait_for_selector(f"{form} .code", state="attached")
    return dict(
        zip(
            page.locator(f"{form} .code h3").all_text_contents(),
            page.locator(f"{form} .code pre").all_text_contents(),
            strict=True,
        )
    )


def output(name: str, code: str, **environ: str) -> Any:
    """The output of shown code, where the images are."""
    command = ["bash", "-ec", code] if name == "curl" else [sys.executable, "-c", code]
    environment = {**os.environ, **environ}
    folder = SAMPLES / "images"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)  # of curl it is JSON without true, false and null


def test_bars_have_the_numbers_of_the_server(page: Any, base: str) -> None:
    opened(page, base, *IMAGES)
    classified(page, "apple", "house", "boat")
    page.wait_for_selector("#classify .bars")
    body = {
        "image": [in_base64(file.read_bytes()) for file in IMAGES],
        "labels": ["apple", "house", "boat"],
    }
    answer = requests.post(f"{base}/v1/classify", json=body, timeout=60).json()
    tables = page.locator("#classify .bars")
    assert tables.count() == 3
    for index, item in enumerate(answer["data"]):
        table = tables.nth(index)
        assert table.locator("caption").inner_text() == IMAGES[index].name
        assert table.locator("th").all_inner_texts() == [each["label"] for each in item["labels"]]
        shown = [text for text in table.locator("td").all_inner_texts() if text.strip()]
        assert shown == [f"{100 * each['score']:.1f} %" for each in item["labels"]]
        bar, track = (
            table.locator(".bar").first.evaluate(f"(bar) => getComputedStyle(bar{pseudo}).width")
            for pseudo in (', "::before"', "")
        )
        share = float(bar.removesuffix("px")) / float(track.removesuffix("px"))
        assert share == pytest.approx(item["labels"][0]["score"], abs=0.02)


def test_the_heat_map_has_a_cell_for_each_image_and_text(page: Any, base: str) -> None:
    opened(page, base, *IMAGES)
    page.fill("#texts", "a red apple\n\n  a house \n")
    page.click("#compare button")
    page.wait_for_selector("#compare .heat")
    assert page.locator(".heat thead th").all_inner_texts() == ["a red apple", "a house"]
    assert page.locator(".heat tbody th").all_inner_texts() == [file.name for file in IMAGES]
    body = {
        "a": [{"image": in_base64(file.read_bytes())} for file in IMAGES],
        "b": ["a red apple", "a house"],
    }
    answer = requests.post(f"{base}/v1/similarity", json=body, timeout=60).json()
    shown = [float(text) for text in page.locator(".heat tbody td").all_inner_texts()]
    assert len(shown) == 3 * 2
    assert shown == pytest.approx([number for row in answer["data"] for number in row], abs=6e-4)
    assert page.locator(".heat tbody th[scope=row]").count() == 3


def test_a_search_ranks_the_images(page: Any, base: str) -> None:
    opened(page, base, *IMAGES)
    page.fill("#query", "a boat")
    page.press("#query", "Enter")
    page.wait_for_selector("#search .ranking")
    items = page.locator("#search .ranking li").all_inner_texts()
    assert len(items) == 3
    assert "1. boat.jpg" in items[0]
    scores = [float(item.rpartition("similarity ")[2]) for item in items]
    assert scores == sorted(scores, reverse=True)


def test_the_code_of_a_result_does_the_same(page: Any, base: str) -> None:
    opened(page, base, *IMAGES[:2])
    classified(page, "an apple", 'a "$HOME" `house` \\ it\'s')
    page.fill("#texts", "an apple\na house")
    page.click("#compare button")
    page.fill("#query", "a house")
    page.click("#search button")
    for form in ("#classify", "#compare"):
        shown = codes(page, form)
        assert list(shown) == ["curl", "Python", "openai"]
        answers = [output(name, code) for name, code in shown.items()]
        assert answers[0] == answers[1] == answers[2]
    shown = codes(page, "#search")
    assert len(output("curl", shown["curl"])["data"]) == 3
    assert len(output("Python", shown["Python"])["data"]) == 3
    scores = output("openai", shown["openai"])
    listed = page.locator("#search .ranking li").all_inner_texts()
    best = float(listed[0].rpartition("similarity ")[2])
    assert max(scores) == pytest.approx(best, abs=6e-4)


def test_code_is_copied(page: Any, base: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page, base, IMAGES[0])
    classified(page, "apple", "house")
    page.click("#classify summary")
    page.get_by_role("button", name="Copy the Python code").click()
    playwright.expect(page.locator("#classify .code [role=status]")).to_contain_text("is copied")
    assert page.evaluate("navigator.clipboard.readText()") == codes(page, "#classify")["Python"]


def test_errors_are_shown_in_the_servers_words(page: Any, base: str, tmp_path: Path) -> None:
    (tmp_path / "<b>bad.png").write_bytes(b"no image")
    opened(page, base, IMAGES[0], tmp_path / "<b>bad.png")
    classified(page, "apple", "house")
    said = alert(page, "#classify")
    assert said.startswith("422 bad_rows 1 of 2 rows failed")
    assert "row 1 (<b>bad.png), image: not_an_image: " in said
    page.fill("#query", "x " * 100)
    page.click("#search button")
    said = alert(page, "#search")  # OpenAI's shape of errors has no list of rows
    assert said.startswith("400 ")
    assert "row 1, image: " in said
    assert "row 2, text: " in said
    classified(page, "apple", "apple")
    page.wait_for_function("!document.querySelector('#classify').innerText.includes('bad_rows')")
    assert "400 bad_params param 'labels' has 'apple' twice" in alert(page, "#classify")


def test_a_private_address_is_refused_by_the_server(page: Any, base: str) -> None:
    opened(page, base)
    page.fill("#url", "http://[::1]:9/cat.png")
    page.press("#url", "Enter")
    playwright.expect(page.locator("#images li")).to_contain_text("http://[::1]:9/cat.png")
    classified(page, "apple", "house")
    assert "blocked_host" in alert(page, "#classify")


@pytest.mark.parametrize(
    ("status", "code", "wait"), [(429, "overloaded", "7"), (503, "loading", "1")]
)
def test_a_server_that_refuses_for_now_says_when(
    status: int, code: str, wait: str, page: Any, base: str
) -> None:
    error = {"error": {"code": code, "message": "not now", "rows": []}}
    page.route(
        "**/v1/classify",
        lambda route: route.fulfill(status=status, json=error, headers={"Retry-After": wait}),
    )
    opened(page, base, IMAGES[0])
    classified(page, "apple", "house")
    said = alert(page, "#classify")
    assert f"{status} {code} not now" in said
    assert f"Send it again in {wait} s." in said


@pytest.mark.parametrize("answer", ["<h1>Bad gateway</h1>", "", "[]", '{"error": "x"}'])
def test_an_answer_of_something_else_is_told(answer: str, page: Any, base: str) -> None:
    page.route("**/v1/classify", lambda route: route.fulfill(status=502, body=answer))
    opened(page, base, IMAGES[0])
    classified(page, "apple", "house")
    assert "the answer is not this server's: 502" in alert(page, "#classify")


def test_a_server_that_is_gone_is_told(page: Any, base: str) -> None:
    opened(page, base, IMAGES[0])
    page.route("**/v1/classify", lambda route: route.abort())
    classified(page, "apple", "house")
    assert "the server cannot be reached" in alert(page, "#classify")


def test_labels_stay_text(page: Any, base: str) -> None:
    opened(page, base, IMAGES[0])
    classified(page, HOSTILE, "house")
    page.wait_for_selector("#classify .bars")
    assert HOSTILE in page.locator("#classify .bars th").all_inner_texts()
    page.fill("#texts", HOSTILE)
    page.click("#compare button")
    page.wait_for_selector("#compare .heat")
    assert page.locator(".heat thead th").all_inner_texts() == [HOSTILE]
    page.fill("#url", HOSTILE)
    page.press("#url", "Enter")
    playwright.expect(page.locator("#images li")).to_have_count(2)
    page.click("#compare button")
    assert HOSTILE in alert(page, "#compare")
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "clip-endpoints"


OUTLINE = """() => {
  const focused = document.activeElement;
  return getComputedStyle(focused.closest(".drop") ?? focused).outlineStyle;
}"""


def focus_by_tab(page: Any, selector: str) -> None:
    """Presses Tab until an element has the focus, which must be visible."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            assert page.evaluate(OUTLINE) == "solid"
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def test_the_keyboard_alone_will_do(page: Any, base: str) -> None:
    page.goto(f"{base}/")
    focus_by_tab(page, "#files")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(IMAGES[:2])
    playwright.expect(page.locator("#images li")).to_have_count(2)
    focus_by_tab(page, "#images button")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#images li")).to_have_count(1)
    playwright.expect(page.locator("#images-status")).to_have_text("1 image removed.")
    focus_by_tab(page, "#labels")
    page.keyboard.type("house")
    page.keyboard.press("Enter")
    page.keyboard.type("boat")
    focus_by_tab(page, "#classify button")
    page.keyboard.press("Space")
    page.wait_for_selector("#classify .bars")
    focus_by_tab(page, "#classify summary")
    page.keyboard.press("Enter")
    focus_by_tab(page, "#classify pre")


def test_without_images_nothing_is_sent(page: Any, base: str) -> None:
    opened(page, base)
    classified(page, "apple", "house")
    playwright.expect(page.locator("#images-status")).to_have_text("Add an image first.")
    assert page.evaluate("document.activeElement.id") == "files"
    assert page.locator("#classify .results").inner_text() == ""


DROP = """([kind, value]) => {
  const transfer = new DataTransfer();
  if (kind === "file") transfer.items.add(new File([value], "drop.png", { type: "image/png" }));
  else transfer.setData(kind, value);
  const drop = { bubbles: true, cancelable: true, dataTransfer: transfer };
  document.querySelector("h1").dispatchEvent(new DragEvent("drop", drop));
  const paste = { bubbles: true, cancelable: true, clipboardData: transfer };
  document.body.dispatchEvent(new ClipboardEvent("paste", paste));
}"""


def test_images_and_links_are_dropped_and_pasted(page: Any, base: str) -> None:
    opened(page, base)
    page.evaluate(DROP, ["file", "x"])
    playwright.expect(page.locator("#images li")).to_have_count(2)
    page.evaluate(DROP, ["text/uri-list", "# a comment\r\nhttps://example.org/cat.jpg"])
    playwright.expect(page.locator("#images li")).to_have_count(4)
    page.evaluate(DROP, ["text/plain", "no link"])
    page.click("#clear")
    playwright.expect(page.locator("#images li")).to_have_count(0)


def test_only_the_last_answer_is_shown(page: Any, base: str) -> None:
    held: list[Any] = []
    opened(page, base, IMAGES[0])
    page.route("**/v1/classify", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/v1/classify"):
        classified(page, "one", "two")
    classified(page, "three", "four")
    page.wait_for_selector("#classify .bars")
    labels = [{"label": "one", "score": 1}]
    late = {"data": [{"index": 0, "labels": labels}], "model": "late"}
    with suppress(playwright.Error):  # the page has given the request up
        held[0].fulfill(json=late)
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")
    assert set(page.locator("#classify .bars th").all_inner_texts()) == {"three", "four"}
    assert page.locator("#classify .error").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_need_not_scroll_sideways(scheme: str, page: Any, base: str) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": 360, "height": 740})
    opened(page, base, *IMAGES)
    classified(page, "apple", "a" * 200)
    page.fill("#texts", "\n".join(f"text {number}" for number in range(12)))
    page.click("#compare button")
    page.wait_for_selector("#compare .heat")
    page.wait_for_selector("#classify .bars")
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 360
    assert page.evaluate("document.getAnimations().length") == 0


def test_a_server_with_keys_is_asked_with_the_key(page: Any, tmp_path: Path) -> None:
    key = keys.new(file := tmp_path / "keys.json", "web")
    slow = keys.new(file, "slow", per_minute=1)
    own = OwnServer(SCORE_API_KEYS_FILE=str(file))
    try:
        own.wait()
        base = own.url.removesuffix("/score")
        opened(page, base, IMAGES[0])
        classified(page, "apple", "house")
        assert "401 unauthorized this server asks for a key" in alert(page, "#classify")
        page.fill("#key", "ключ")
        page.click("#classify button")
        page.get_by_text("the key has a character that no key has").wait_for()
        page.fill("#key", f" {key} ")
        page.click("#classify button")
        page.wait_for_selector("#classify .bars")
        shown = codes(page, "#classify")
        assert key not in "".join(shown.values())
        page.reload()
        assert page.input_value("#key").strip() == key
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        answers = [output(name, shown[name], KEY=key) for name in ("curl", "Python")]
        assert answers[0] == answers[1]
        opened(page, base, IMAGES[0])
        page.evaluate("document.querySelector('#access').open = true")
        page.fill("#key", slow)
        for _ in range(3):  # a busy machine may take a minute for one, after which one more passes
            classified(page, "apple", "house")
            page.wait_for_selector("#classify .bars, #classify .error")
            if page.locator("#classify .error").count():
                break
        assert "429 rate_limited" in alert(page, "#classify")
        assert "Send it again in " in alert(page, "#classify")
    finally:
        own.stop()


def test_a_server_of_one_model_offers_no_choice(page: Any, base: str) -> None:
    opened(page, base)
    playwright.expect(page.locator("#model option")).to_have_count(1)
    assert page.locator("#models").is_hidden()


def test_a_server_of_several_models_offers_a_choice(page: Any) -> None:
    own = OwnServer(f"first={EMBEDDED}", [f"<b>&second={EMBEDDED}"])
    try:
        own.wait()
        opened(page, own.url.removesuffix("/score"), IMAGES[0])
        page.get_by_label("Model").select_option("<b>&second")
        classified(page, "apple", "house")
        page.get_by_text("Results of <b>&second are below.").wait_for()
        shown = codes(page, "#classify")
        assert output("curl", shown["curl"]) == output("Python", shown["Python"])
    finally:
        own.stop()


def test_another_tab_has_no_key(page: Any, base: str) -> None:
    opened(page, base)
    page.click("#access summary")
    page.fill("#key", "secret")
    other = page.context.new_page()
    other.goto(f"{base}/")
    assert other.input_value("#key") == ""


def test_a_proxy_may_add_a_prefix(page: Any, embedder: Embedder) -> None:
    models = Models.of({embedder.name: embedder})
    app = Starlette(routes=[Mount("/some/prefix", application(models, web_page.routes()))])
    with listening(app) as (host, port):
        base = f"http://{host}:{port}/some/prefix"
        opened(page, base, IMAGES[0])
        classified(page, "apple", "house")
        page.wait_for_selector("#classify .bars")
        assert f"'{base}/v1/classify'" in codes(page, "#classify")["curl"]


def test_over_tls(page: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    file = str(authority.certificate())
    own = OwnServer(arguments=["--tls-cert", file, "--tls-key", file], trusts=authority.file)
    try:
        own.wait()
        opened(page, own.url.removesuffix("/score"), IMAGES[0])
        classified(page, "apple", "house")
        page.wait_for_selector("#classify .bars")
    finally:
        own.stop()
