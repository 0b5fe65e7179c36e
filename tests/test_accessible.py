"""The site for everybody: axe-core's rules, and the keyboard alone. Narrow screens and enlarged text: test_site."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import ALL

# Everything unfolded. Most elements of a page are words of code in a dozen colors, and each costs axe as much as a
# paragraph: of each kind the first is left, the others become plain text.
UNFOLD = """() => {
  document.querySelectorAll("details").forEach((fold) => { fold.hidden = false; fold.open = true; });
  // Looked at first and changed then: asked in between, the browser would lay the page out again for every word.
  const seen = new Set();
  const again = [...document.querySelectorAll("pre span")].filter((word) => {
    if (word.childElementCount) return false;
    const kind = word.className + getComputedStyle(word.closest("pre")).backgroundColor;
    return seen.size === seen.add(kind).size;
  });
  again.forEach((word) => word.replaceWith(word.textContent));
}"""
# What a fold opens fades in: half seen, its colors would be paler than they are.
STILL = "*, *::before, *::after { animation: none !important; transition: none !important; }"
# What KaTeX draws is hidden from readers aloud, and has the color of the text around it.
WHERE = {"exclude": [[".katex"]]}
OPTIONS = {"resultTypes": ["violations"], "iframes": False, "preload": False}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}


def violations(tab, options):
    """What axe-core finds on the open page, a sentence for each element."""
    found = Axe().run(tab, context=WHERE, options=OPTIONS | options).response["violations"]
    return [
        f"{rule['id']}: {(node['any'] + node['all'] + node['none'])[0]['message']} {node['html'][:200]}"
        for rule in found
        for node in rule["nodes"]
    ]


# The landing page, the questions, and a chapter that has everything and is short: `make prove` looks at all others.
IN_SHORT = {"light": ("book/index", "book/axes"), "dark": ("book/inventory",)}


def looks():
    """(mode, page) for every page."""
    for mode, short in IN_SHORT.items():
        for page in ALL:
            yield pytest.param(mode, page, marks=[pytest.mark.exhaustive] * (page not in short))


@pytest.mark.parametrize(("mode", "page"), [*looks()])
def test_axe_finds_nothing(browser, site, mode, page):
    """In the dark, colors alone: all else is the same in both modes."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=mode)
    tab = context.new_page()
    tab.goto((site / f"{page}.html").as_uri())
    tab.add_style_tag(content=STILL)
    tab.evaluate(UNFOLD)
    found = violations(tab, CONTRAST if mode == "dark" else {})
    context.close()
    assert found == []


def test_axe_would_find_it(browser, site):
    """Three faults, put into a page, are found: gray on white, a picture without words, a button without a name."""
    tab = browser.new_page(color_scheme="light")
    tab.goto((site / "genindex.html").as_uri())
    tab.evaluate(
        """() => {
          const add = (name, properties) => {
            const element = Object.assign(document.createElement(name), properties);
            document.querySelector("article").append(element);
            return element;
          };
          add("p", { textContent: "pale" }).style.color = "#bbb";
          add("img", { src: "data:," });
          add("button", {});
        }"""
    )
    found = {sentence.split(":")[0] for sentence in violations(tab, {})}
    tab.close()
    assert found == {"color-contrast", "image-alt", "button-name"}


# -- The keyboard ----------------------------------------------------------------------------------------------------

# What has the focus, whether a line around it says so, and whether it is on the screen.
FOCUSED = """() => {
  const element = document.activeElement;
  if (element === document.body) return null;
  const place = element.getBoundingClientRect();
  return {
    what: element.outerHTML.slice(0, 120),
    ring: getComputedStyle(element).outlineStyle !== "none" && parseFloat(getComputedStyle(element).outlineWidth) >= 2,
    seen: place.width > 0 && place.height > 0 && place.bottom > 0 && place.top < window.innerHeight,
  };
}"""
REACHABLE = """() => [...document.querySelectorAll("a[href], button, input, summary, textarea, select, [tabindex='0']")]
  .filter((e) => e.tabIndex >= 0 && !e.disabled && e.checkVisibility({ visibilityProperty: true })).length"""


@pytest.mark.parametrize(("page", "width"), [("book/puzzle", 1280), ("book/puzzle", 390)])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, site, page, width):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.goto((site / f"{page}.html").as_uri())
    tab.evaluate("document.fonts.ready")
    expected = tab.evaluate(REACHABLE)
    stops, faults = [], []
    for _ in range(2 * expected):
        tab.keyboard.press("Tab")
        stop = tab.evaluate(FOCUSED)
        if stop is None:
            break
        if not stop["seen"]:
            # The way past the list of pages slides in.
            tab.wait_for_timeout(400)
            stop = tab.evaluate(FOCUSED)
        stops.append(stop["what"])
        faults += [stop] if not (stop["ring"] and stop["seen"]) else []
    tab.close()
    assert faults == []
    # Of a group of radio buttons Tab reaches one; the arrows lead to the others.
    assert len(stops) > 0.7 * expected, (len(stops), expected)
    assert "skip" in stops[0].lower(), "the first stop is the way past the list of pages"


def test_the_list_of_pages_opens_and_closes_by_keyboard_on_a_phone(browser, site):
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto((site / "book" / "puzzle.html").as_uri())
    pages = tab.locator("nav.bd-docs-nav, .bd-sidebar-primary").first
    opener = tab.locator("button.primary-toggle:visible").first
    opener.focus()
    tab.keyboard.press("Enter")
    link = tab.locator(".bd-sidebar-primary a", has_text="Why e?").first
    link.wait_for(state="visible")
    assert tab.evaluate("document.activeElement.closest('dialog, .bd-sidebar-primary') !== null"), "focus stays behind"
    tab.keyboard.press("Escape")
    link.wait_for(state="hidden")
    assert pages.count() == 1
    tab.close()
