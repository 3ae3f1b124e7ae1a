"""The service's page in a real browser: hands, keys, narrow and dark views, before a stand-in."""

import base64
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import browser as pages
from tests.support.browser import EXAMPLES, HOSTILE, TOKEN, Service
from tests.support.odd_pictures import jpeg, photo

pytestmark = pytest.mark.skipif(bool(pages.missing()), reason=pages.missing())

PICTURE = {"name": "game.jpg", "mimeType": "image/jpeg", "buffer": jpeg(photo(64, 40))}
WIDE = {"width": 1280, "height": 900}
TEXT = EXAMPLES[0]["text"]
ENOUGH = 4.5  # contrast of text and its ground, WCAG AA

# In the page: the least contrast of visible text, and which text has it.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
    const x = c[i] / 255;
    return sum + part * (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  }, 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const told = [...document.querySelectorAll("body *")].filter((node) =>
    node.checkVisibility() && !node.closest("#mirror, .visually-hidden") &&
    [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim()));
  const found = told.map((node) => {
    const style = getComputedStyle(node);
    const ink = rgba(node.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return [contrast, node.textContent.slice(0, 40)];
  });
  return found.sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with pages.browser() as started:
        yield started


@pytest.fixture
def service() -> Iterator[Service]:
    with pages.service() as server:
        yield server


@pytest.fixture
def opened(
    chromium: Any, service: Service, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Any]]:
    """Opens the page; afterwards nothing was asked of anybody else and nothing complained."""
    contexts, said, asked = [], [], []

    def open_page(viewport: dict[str, int] = WIDE, scheme: str = "light") -> Any:
        context = chromium.new_context(
            viewport=viewport, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        context.set_default_timeout(5000)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda one: asked.append(one.url))
        page.goto(service.address)
        page.locator("#examples button").wait_for()
        return page

    failures = request.session.testsfailed
    yield open_page
    shown = [page for context in contexts for page in context.pages]
    own = (service.address + "/", "blob:", "data:")
    wrong = [url for url in asked if not url.startswith(own)]
    wrong += [line for line in said if not line.startswith("error: Failed to load resource: ")]
    wrong += [HOSTILE for page in shown if page.evaluate("window.hacked")]
    wrong += said if len(said) != service.refusals else []
    if wrong or request.session.testsfailed > failures:
        for i, page in enumerate(shown):
            name = re.sub(r"\W+", "_", request.node.name)
            page.screenshot(path=pages.artefacts(tmp_path) / f"{name}_{i}.png", full_page=True)
    for context in contexts:
        context.close()
    assert wrong == []


def select(page: Any, chosen: str) -> None:
    """Double-clicks where a word is in the text, as a hand does."""
    box = page.evaluate(
        """(chosen) => {
          const walk = document.createTreeWalker(document.querySelector("#mirror"), 4);
          for (let node = walk.nextNode(); node; node = walk.nextNode()) {
            const at = node.data.indexOf(chosen);
            if (at < 0) continue;
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + chosen.length);
            const {x, y, width, height} = range.getBoundingClientRect();
            return {x: x + width / 2, y: y + height / 2};
          }
        }""",
        chosen,
    )
    page.mouse.dblclick(box["x"], box["y"])


def link(page: Any) -> None:
    with page.expect_response("**/link"):
        page.get_by_role("button", name="Link", exact=False).first.click()
    page.locator("#answer[aria-busy=false] .best").wait_for()


def best(page: Any) -> str:
    return page.locator("#candidates .best h3").inner_text()


def told(page: Any, where: str, words: str) -> None:
    page.locator(where).filter(has_text=words).wait_for()


def test_a_selected_mention_with_its_picture_is_linked(opened: Any, service: Service) -> None:
    page = opened()
    page.fill("#text", TEXT)
    select(page, "Jordan")
    told(page, "#mention", "Mention: “Jordan”")
    assert page.locator("#mirror mark.chosen").inner_text() == "Jordan"
    page.set_input_files("#picture-file", PICTURE)
    page.locator("#picture img").wait_for()
    link(page)
    (asked,) = service.made("POST", "/link")
    assert asked.body["text"] == TEXT
    assert asked.body["span"] == [0, 6]
    assert asked.body["explain"] is True
    assert asked.body["k"] == 5
    assert len(asked.body["image"]) > 100
    assert best(page) == "Michael Jordan Q41421"
    assert page.locator("#candidates .candidate:not(.nil)").count() == 5
    assert page.locator(".best .probability").inner_text().strip() == "93.1 %"
    assert page.locator("#said").text_content() == "“Jordan” means Michael Jordan, 93.1 %."
    assert page.locator("#lead").inner_text().endswith("names +0.83, votes +0.51, words +0.22.")
    assert page.locator(".best .reasons b").all_inner_texts() == [
        "names",
        "votes",
        "words",
        "years",
    ]
    page.get_by_role("button", name="Remove the picture").click()
    link(page)
    assert service.made("POST", "/link")[1].body["image"] is None


def test_what_data_says_is_text_and_only_pictures_that_are_there_are_asked_for(
    opened: Any, service: Service
) -> None:
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    link(page)
    assert page.locator("[data-id=Q5] h3").inner_text().startswith(HOSTILE)
    assert page.locator("#candidates script, #graph script").count() == 0
    page.locator("#candidates img").evaluate_all("(all) => Promise.all(all.map((i) => i.decode()))")
    pictures = {one.path for one in service.requests if one.path.endswith("/image")}
    assert pictures == {"/entities/Q41421/image", "/entities/Q1/image"}


def test_entities_of_one_name_are_told_apart(opened: Any, service: Service) -> None:
    service.entities["Q1"]["name"] = "Michael Jordan"
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    link(page)
    told(page, "#lead", "What puts Michael Jordan (Q41421) before Michael Jordan (Q1): ")
    assert page.locator("#said").text_content() == "“Jordan” means Michael Jordan (Q41421), 93.1 %."


def test_spans_are_counted_in_code_points(opened: Any, service: Service) -> None:
    page = opened()
    page.fill("#text", "🏀🏀 Jordan 👩‍👧 won 🏆 in Chicago")
    select(page, "Jordan")
    link(page)
    page.click("#annotate")
    found = page.locator("#found button")
    found.nth(1).click()
    told(page, "#mention", "Mention: “Chicago”")
    link(page)
    page.focus("#text")
    page.evaluate("document.activeElement.setSelectionRange(1, 3)")  # halves of characters
    told(page, "#mention", "Mention: “🏀🏀”")
    link(page)
    spans = [one.body["span"] for one in service.made("POST", "/link")]
    text = "🏀🏀 Jordan 👩‍👧 won 🏆 in Chicago"
    assert [text[a:b] for a, b in spans] == ["Jordan", "Chicago", "🏀🏀"]


def test_the_mention_moves_with_edits_before_it_and_goes_with_edits_in_it(opened: Any) -> None:
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    page.locator("#text").press("Control+Home")
    page.keyboard.insert_text("🏀 Young ")
    assert page.locator("mark.chosen").inner_text() == "Jordan"
    page.locator("#text").press("Control+End")
    page.keyboard.insert_text(" Again.")
    assert page.locator("mark.chosen").inner_text() == "Jordan"
    page.locator("#text").press("Control+Home")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.keyboard.insert_text("x")
    told(page, "#mention", "No mention is selected.")


def test_found_mentions_are_marked_and_a_click_in_the_text_chooses_one(
    opened: Any, service: Service
) -> None:
    page = opened()
    page.fill("#text", TEXT)
    page.get_by_role("button", name="Find mentions").click()
    told(page, "#answer-title", "“Jordan” means")
    assert page.locator("mark.found").all_inner_texts() == ["Jordan", "Chicago"]
    mark = page.locator("mark.found").nth(1).bounding_box()
    page.mouse.click(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    told(page, "#answer-title", "“Chicago” means")
    pressed = page.locator("#found [aria-pressed=true]")
    assert pressed.inner_text().startswith("Chicago")
    assert best(page) == "Chicago Q7"
    assert service.made("POST", "/link") == []


def test_none_of_them_is_an_answer(opened: Any) -> None:
    page = opened()
    page.fill("#text", "Nobody came.")
    select(page, "Nobody")
    link(page)
    assert best(page) == "None of them"
    assert "This knowledge base has no such entity." in page.locator(".best").inner_text()
    assert page.locator(".best .probability").inner_text().strip() == "95.0 %"
    assert page.locator("#candidates > li").nth(1).locator("h3").inner_text().startswith("Michael")
    assert page.locator("#said").text_content() == "“Nobody” means none of them, 95.0 %."


def test_the_slider_changes_the_drawn_widths(opened: Any) -> None:
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    page.set_input_files("#picture-file", PICTURE)
    link(page)
    layer, width = page.locator("#layer"), []
    line = page.locator('[data-edge="tt Q41421"] .line')
    layer.focus()
    for key, name in (("Home", "from frozen features"), ("End", "after layer 2 of 2")):
        page.keyboard.press(key)
        told(page, "#layer-name", name)
        width.append(line.evaluate("(line) => parseFloat(getComputedStyle(line).strokeWidth)"))
    assert width == pytest.approx([3.1, 9.3])
    page.keyboard.press("Home")
    below = page.locator('[data-edge="vt Q41421"] .line')
    assert "below" in str(below.get_attribute("class"))
    assert page.locator('[data-edge="tv Q810"]').count() == 0
    assert page.locator('[data-edge="evidence Q810"]').count() == 1
    page.locator('[data-edge="tt Q41421"]').hover()
    words = "Michael Jordan, text to text: 0.31 · layers 0–2: 0.31 → 0.55 → 0.93"
    told(page, "#readout", words)


def test_a_model_without_a_graph_shows_its_evidence_alone(opened: Any, service: Service) -> None:
    service.graph = False
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    link(page)
    kinds = page.locator(".edge").evaluate_all(
        "(all) => all.map((e) => e.dataset.edge.split(' ')[0])"
    )
    assert kinds == ["evidence"] * 5
    assert not page.locator("#layers").is_visible()
    told(page, "#why-told", "it decides by evidence alone")


def test_a_model_without_evidence_shows_its_graph_alone(opened: Any, service: Service) -> None:
    service.evidence = False
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    link(page)
    assert page.locator(".edge").count() == 5 * 2 + 2 * 2  # two of five have a picture
    assert page.locator(".reasons").count() == 0
    assert not page.locator("#lead").is_visible()


def test_by_keyboard_alone(opened: Any, service: Service) -> None:
    page = opened()

    def tab_to(target: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("(t) => document.activeElement.matches(t)", target):
                return
        raise AssertionError(f"the tabulator key never comes to {target}")

    tab_to("#text")
    page.keyboard.insert_text("We saw Jordan")
    page.keyboard.press("Control+Shift+ArrowLeft")
    page.keyboard.press("Control+Enter")
    told(page, "#answer-title", "“Jordan” means")
    tab_to(".candidate:nth-child(2) summary")
    page.keyboard.press("Enter")
    page.locator(".candidate:nth-child(2) details[open]").wait_for()
    tab_to("#layer")
    page.keyboard.press("ArrowLeft")
    told(page, "#layer-name", "from frozen features")
    tab_to(".edge")
    first = page.locator("#readout").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.locator("#readout").inner_text() != first
    tab_to("#base summary")
    page.keyboard.press("Enter")
    tab_to("#search-name")
    page.keyboard.insert_text("river")
    page.keyboard.press("Enter")
    told(page, "#search-told", "1 entity")
    tab_to("#hits button + button")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Really remove"
    tab_to("#token")
    told(page, "#hits button + button", "Remove")
    page.keyboard.insert_text(TOKEN)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    told(page, "#edit-told", "Jordan River (Q99) is removed.")
    assert page.evaluate("document.activeElement.id") == "edit-told"
    assert "Q99" not in service.entities


def test_an_entity_is_added_linked_to_changed_and_removed(opened: Any, service: Service) -> None:
    page = opened()
    page.fill("#text", "Ada Quill wrote this.")
    page.locator("#text").evaluate("(text) => { text.focus(); text.setSelectionRange(0, 9); }")
    told(page, "#mention", "“Ada Quill”")
    page.click("#base summary")
    page.fill("#token", "not it")
    page.fill("#id", "mine/1")
    page.fill("#name", "Ada Quill")
    page.fill("#aliases", "A. Quill\n\nQuill, Ada\n")
    page.fill("#description", "writer of 🏀 reports")
    page.set_input_files("#portrait-file", PICTURE)
    service.refusals += 1
    page.get_by_role("button", name="Add", exact=True).click()
    told(page, "#edit-error", "the token is wrong")
    page.fill("#token", TOKEN)
    page.get_by_role("button", name="Add", exact=True).click()
    told(page, "#edit-told", "Ada Quill (mine/1) is added.")
    told(page, "#base-size", "7 entities")
    (sent,) = service.made("POST", "/entities")[-1].body["entities"]
    assert sent["aliases"] == ["A. Quill", "Quill, Ada"]
    page.get_by_role("button", name="Link again").click()
    told(page, "#answer-title", "“Ada Quill” means")
    assert best(page) == "Ada Quill mine/1"

    service.entities["mine/1"]["popularity"] = 7.0
    page.fill("#search-name", "quill")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Change Ada Quill").click()
    told(page, "#edit-title", "Change Ada Quill")
    page.locator("#portrait img").wait_for()
    page.fill("#name", "Ada B. Quill")
    page.get_by_role("button", name="Replace").click()
    told(page, "#edit-told", "Ada B. Quill (mine/1) is replaced.")
    (put,) = [one for one in service.requests if one.method == "PUT"]
    assert put.path == "/entities/mine%2F1"
    assert put.body["popularity"] == 7.0
    assert put.body["image"] == sent["image"]
    assert put.token == TOKEN

    page.get_by_role("button", name="Remove Ada Quill").click()
    page.get_by_role("button", name="Really remove Ada Quill").click()
    told(page, "#edit-told", "is removed.")
    assert "mine/1" not in service.entities
    assert page.locator("#hits li").count() == 0
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_a_knowledge_base_that_is_only_read_says_how_to_change_that(
    opened: Any, service: Service
) -> None:
    service.writable = False
    page = opened()
    page.click("#base summary")
    told(page, "#read-only", "--token-file")
    assert not page.locator("#edit").is_visible()
    page.fill("#search-name", "river")
    page.keyboard.press("Enter")
    told(page, "#search-told", "1 entity")
    assert page.locator("#hits button").count() == 0


def test_what_goes_wrong_is_one_clear_line(opened: Any, service: Service) -> None:
    page = opened()
    for press, words in (("#link", "no text yet"), ("#annotate", "no text yet")):
        page.click(press)
        told(page, "#asked-error", words)
    page.fill("#text", "Some words.")
    page.click("#link")
    told(page, "#asked-error", "No mention is selected")
    assert page.evaluate("document.activeElement.id") == "text"
    page.click("#annotate")
    told(page, "#asked-error", "No mention was found")
    select(page, "words")
    answers: tuple[tuple[int, dict, dict, str], ...] = (
        (400, {}, {"error": "the span ends after the text"}, "the span ends after the text"),
        (429, {"Retry-After": "3"}, {"error": "busy"}, "The service is busy. Try again in 3 s."),
        (503, {}, {"error": "it stops"}, "The service failed (503): it stops"),
    )
    for status, headers, answer, words in answers:
        service.errors["/link"] = [(status, headers, answer)]
        service.refusals += 1
        page.click("#link")
        told(page, "#asked-error", words)
    link(page)
    assert page.locator("#asked-error").inner_text() == ""
    page.set_input_files("#picture-file", {**PICTURE, "name": "a.txt", "mimeType": "text/plain"})
    told(page, "#picture [role=alert]", "a.txt is not a picture.")


def test_a_service_that_is_gone_is_told(opened: Any, service: Service) -> None:
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    page.route("**/link", lambda route: route.abort("connectionrefused"))
    service.refusals += 1
    page.click("#link")
    told(page, "#asked-error", "The service does not answer.")


def test_a_picture_may_be_dropped_or_pasted(opened: Any, service: Service) -> None:
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    for kind, target in (("drop", "#picture"), ("drop", "#answer"), ("paste", "#text")):
        page.evaluate(
            """([kind, target, bytes]) => {
              const files = new DataTransfer();
              files.items.add(new File([new Uint8Array(bytes)], "p.jpg", {type: "image/jpeg"}));
              const options = {bubbles: true, cancelable: true};
              const event = kind === "drop"
                ? new DragEvent(kind, {...options, dataTransfer: files})
                : new ClipboardEvent(kind, {...options, clipboardData: files});
              document.querySelector(target).dispatchEvent(event);
            }""",
            [kind, target, list(PICTURE["buffer"])],
        )
        page.locator("#picture img").wait_for()
        link(page)
        page.get_by_role("button", name="Remove the picture").click()
    assert all(one.body["image"] for one in service.made("POST", "/link"))


def test_a_heavy_picture_is_made_smaller(opened: Any, service: Service) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1800, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG", compress_level=0)
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    heavy = {"name": "noise.png", "mimeType": "image/png", "buffer": out.getvalue()}
    page.set_input_files("#picture-file", heavy)
    link(page)
    sent = base64.b64decode(service.made("POST", "/link")[0].body["image"])
    assert len(sent) < 3e6 < len(out.getvalue())
    assert Image.open(io.BytesIO(sent)).size == (1600, 800)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_view_is_too_wide_or_too_pale(opened: Any, width: int, scheme: str) -> None:
    page = opened({"width": width, "height": 740}, scheme)
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    page.set_input_files("#picture-file", PICTURE)
    page.click("#annotate")
    told(page, "#answer-title", "“Jordan” means")
    page.click("#link")
    page.locator("#answer[aria-busy=false]").wait_for()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.fill("#search-name", "jordan")
    page.keyboard.press("Enter")
    page.locator("#hits li").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    contrast, where = page.evaluate(CONTRAST)
    assert contrast >= ENOUGH, where
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 24, 27)" if scheme == "dark" else "rgb(252, 251, 248)"
    )


def test_the_marks_lie_under_their_words_in_a_long_text(opened: Any) -> None:
    page = opened({"width": 360, "height": 740})
    page.fill("#text", f"{TEXT} " * 30 + "\n\n" + "x" * 90 + " hindmost\n")
    text, mirror = (
        page.locator(name).evaluate(
            "(e) => [e.clientWidth, e.clientHeight, e.scrollHeight, getComputedStyle(e).font]"
        )
        for name in ("#text", "#mirror")
    )
    assert text == mirror
    assert text[1] == text[2]
    page.locator(".paper").evaluate("(paper) => { paper.scrollTop = paper.scrollHeight; }")
    select(page, "hindmost")
    told(page, "#mention", "Mention: “hindmost”")


def test_everything_has_a_name_for_a_screen_reader(opened: Any) -> None:
    page = opened()
    page.get_by_role("button", name=EXAMPLES[0]["title"]).click()
    link(page)
    page.click("#base summary")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, select, button, .edge")]
          .filter((one) => one.checkVisibility() && !one.labels?.length &&
            !one.getAttribute("aria-label") && !one.textContent.trim())
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    levels = page.locator("h1, h2, h3").evaluate_all(
        "(all) => all.filter((h) => h.checkVisibility()).map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
