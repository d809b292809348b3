# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports in a real browser, where there is one: Chromium without a screen, driven by its command line and by DevTools."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from devtools import Devtools
from htmlpage import contrast, parse
from test_report import synthetic

from replay.cli import main
from replay.report.style import COLOURS

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VERDICTS = pytest.mark.parametrize("verdict", ["PASS", "FAIL", "UNDECIDED"])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the browser; skips where there is none, or where it cannot run."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser to look at a page with: {', '.join(_BROWSERS)}")
    profile = tmp_path_factory.mktemp("profile")
    command = [found, "--headless", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
               "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    if not os.geteuid():
        # Its sandbox refuses to run as root.
        command.append("--no-sandbox")
    try:
        shown = look(command, "data:text/html,<!DOCTYPE html><p>here", "--dump-dom").stdout
    except subprocess.TimeoutExpired:
        shown = ""
    if "here" not in shown:
        pytest.skip(f"{found} does not run here")
    return command


def look(browser: list[str], page: str | Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Have the browser open a page."""
    where = page.as_uri() if isinstance(page, Path) else page
    return subprocess.run([*browser, *options, where], capture_output=True, text=True, timeout=120)


def complaints(stderr: str) -> list[str]:
    """Return what the page's console says: errors, warnings, anything refused."""
    return [line for line in stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def pages(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each verdict."""
    tmp = tmp_path_factory.mktemp("pages")
    lossy = synthetic(tmp / "lossy", "<script>alert(1)</script>", losses=[{"cpu": 0, "lost": 9}], lost_at=True)
    edge = str(samples["7.2-lz4-edge"])
    for verdict, words, status in (("PASS", [edge, "--revision", "mainline-7.2", "--revision", "v14"], 1),
                                   ("FAIL", [edge, "--revision", "v14-meant"], 1), ("UNDECIDED", [str(lossy)], 3)):
        assert main(["report", *words, "-o", str(tmp / f"{verdict}.html")]) == status
    return {verdict: tmp / f"{verdict}.html" for verdict in ("PASS", "FAIL", "UNDECIDED")}


def test_a_page_that_complains_is_noticed(browser: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<!DOCTYPE html><title>x</title><script>nothing.there()</script>")
    assert complaints(look(browser, tmp_path / "bad.html", "--dump-dom").stderr)
    # The policy of a report's page is one that a browser enforces and reports.
    (tmp_path / "policy.html").write_text(
        "<!DOCTYPE html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\"><script>1</script>")
    assert complaints(look(browser, tmp_path / "policy.html", "--dump-dom").stderr)


@VERDICTS
def test_opens_without_a_complaint_and_nothing_had_to_be_mended(browser: list[str], pages: dict[str, Path],
                                                                verdict: str) -> None:
    opened = look(browser, pages[verdict], "--dump-dom")
    assert complaints(opened.stderr) == []
    names = Counter(each.name for each in parse(pages[verdict].read_text()).walk())
    # A browser moves, adds or drops elements where a page is not sound.
    assert Counter(name.lower() for name in re.findall(r"<([a-zA-Z][\w]*)", _elements(opened.stdout))) == names
    assert f'data-verdict="{verdict}"' in opened.stdout


def _elements(dom: str) -> str:
    """Return a page without its style sheet, whose text is not elements."""
    return re.sub(r"(<style>).*?(</style>)", r"\1\2", dom, flags=re.S)


@VERDICTS
def test_both_themes_and_paper(browser: list[str], pages: dict[str, Path], tmp_path: Path, verdict: str) -> None:
    import matplotlib.image

    for theme, scheme in enumerate(("1", "0")):
        shot = tmp_path / f"{theme}.png"
        look(browser, pages[verdict], "--window-size=1100,3000", f"--blink-settings=preferredColorScheme={scheme}",
             f"--screenshot={shot}")
        drawn = (matplotlib.image.imread(shot)[:, :, :3] * 255).round().astype(int)
        words = drawn @ (1 << 16, 1 << 8, 1)
        seen = {f"#{colour:06x}" for colour in np.unique(words).tolist()}
        ground = f"#{words[2, 2]:06x}"
        assert ground == COLOURS["ground"][theme]
        assert {COLOURS[name][theme] for name in ("panel", "ink", "rule")} <= seen
        # The verdict's word is in its colour.
        assert COLOURS[verdict.lower()][theme] in seen
        assert not {COLOURS[name][1 - theme] for name in ("ground", "ink")} & seen
    paper = tmp_path / "page.pdf"
    look(browser, pages[verdict], "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
    assert 20_000 < paper.stat().st_size < 5 << 20


def test_narrow_window_does_not_scroll_sideways(browser: list[str], pages: dict[str, Path], tmp_path: Path) -> None:
    """Tables and drawings scroll in their own boxes: what is right of the window is ground alone."""
    import matplotlib.image

    shot = tmp_path / "narrow.png"
    look(browser, pages["FAIL"], "--window-size=520,2000", f"--screenshot={shot}")
    drawn = matplotlib.image.imread(shot)[:, :, :3]
    assert drawn.shape[1] == 520
    margin = drawn[:, -8:].reshape(-1, 3)
    assert (np.abs(margin - margin[0]).max(axis=1) == 0).all()


# ---- without eyes, without a mouse -----------------------------------------------------------------------


@pytest.fixture
def driven(browser: list[str], tmp_path: Path) -> Iterator[Devtools]:
    """A browser that is driven."""
    command = [word for word in browser if not word.startswith(("--user-data-dir", "--enable-logging"))]
    with Devtools([*command, f"--user-data-dir={tmp_path}/profile", "--window-size=1100,900"]) as running:
        yield running


_LANDMARKS = {"main", "navigation", "region", "banner", "complementary", "contentinfo", "form", "search"}


@VERDICTS
def test_what_a_screen_reader_is_told(driven: Devtools, pages: dict[str, Path], verdict: str) -> None:
    driven.ask("Emulation.setScriptExecutionDisabled", value=True)
    driven.open(pages[verdict].as_uri())
    tree = driven.tree()
    assert tree[0]["role"] == "RootWebArea"
    assert tree[0]["name"].startswith(f"{verdict}: ")
    landmarks = [(each["role"], each["name"]) for each in tree if each["role"] in _LANDMARKS]
    assert len(set(landmarks)) == len(landmarks)
    assert landmarks[:2] == [("main", ""), ("navigation", "Sections")]
    headings = [each for each in tree if each["role"] == "heading"]
    assert all(each["name"].strip() for each in headings)
    # The sign next to the verdict's word is for eyes.
    assert headings[0]["name"].startswith(verdict)
    levels = [int(each["level"]) for each in headings]
    assert levels.count(1) == levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    # Every section is a place to jump to, by its heading, and the contents lead to each.
    sections = [name for role, name in landmarks if role == "region"]
    assert sections == [each["name"] for each in headings if each["level"] == 2]
    assert len([each for each in tree if each["role"] == "link"]) == len(sections)
    images = [each for each in tree if each["role"] in ("image", "img")]
    assert [each["name"] for each in images] == [
        each.all("title")[0].text for each in parse(pages[verdict].read_text()).all("svg")]
    assert all(re.search(r"\d", each["description"]) for each in images)
    tables = [each["name"] for each in tree if each["role"] == "table"]
    assert tables
    assert all(tables)
    rows = [tree[at + 1]["role"] for at, each in enumerate(tree) if each["role"] == "row"]
    assert set(rows) == {"columnheader", "rowheader"}
    assert all(each["name"] for each in tree if each["role"] in ("columnheader", "rowheader", "link"))
    assert all(each["name"] for each in tree if each.get("focusable") and each["role"] != "RootWebArea")


_ACTIVE = """(() => {
    const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
    return [[...document.querySelectorAll("*")].indexOf(at), at.localName, style.outlineStyle,
            parseFloat(style.outlineWidth), box.bottom > 0 && box.top < innerHeight];
})()"""


@VERDICTS
def test_all_of_it_by_keyboard(driven: Devtools, pages: dict[str, Path], verdict: str) -> None:
    driven.open(pages[verdict].as_uri())
    stops = []
    for _ in range(200):
        driven.key("Tab", 9)
        at = driven.value(_ACTIVE)
        if at[1] == "body" or (stops and at[0] <= stops[-1][0]):
            break
        stops.append(at)
    page = parse(pages[verdict].read_text())
    hidden = {id(inner) for each in page.all("details") for inner in each.walk()
              if "open" not in each.attributes and inner.name != "summary"}
    reached = [each.name for each in page.walk() if id(each) not in hidden
               and (each.name in ("a", "summary") or "tabindex" in each.attributes)]
    assert [name for _, name, *_ in stops] == reached
    # Where one is can be seen.
    assert all(style != "none" and width >= 2 and seen for _, _, style, width, seen in stops)
    count = driven.value("document.querySelectorAll('details:not([open])').length")
    driven.value("document.querySelector('details:not([open]) > summary')?.focus()")
    driven.key("Enter", 13, "\r")
    left = driven.value("document.querySelectorAll('details:not([open])').length")
    assert left == max(count - 1, 0)


#: Each text's colour, and what is behind it, without those that nobody sees.
_TEXTS = """[...document.querySelectorAll("body *")].filter(each => [...each.childNodes].some(
    inner => inner.nodeType == 3 && inner.data.trim()) && each.checkVisibility() && !["title", "desc"].includes(each.localName)
).map(each => {
    const clear = colour => colour == "transparent" || colour.endsWith(", 0)");
    let behind = each;
    while (behind && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const style = getComputedStyle(each);
    return [each.namespaceURI.endsWith("svg") ? style.fill : style.color, getComputedStyle(behind).backgroundColor,
            each.textContent.slice(0, 40)];
})"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@VERDICTS
def test_every_text_can_be_told_from_its_ground(driven: Devtools, pages: dict[str, Path], verdict: str,
                                                theme: str) -> None:
    driven.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    driven.open(pages[verdict].as_uri())
    driven.value("for (const each of document.querySelectorAll('details')) each.open = true")
    found = driven.value(_TEXTS)
    assert len(found) > 50
    for colour, behind, text in found:
        one, other = ("#{:02x}{:02x}{:02x}".format(*map(int, re.findall(r"\d+", each)[:3])) for each in (colour, behind))
        assert contrast(one, other) >= 4.5, (text, one, other)
    assert {f"#{int(red):02x}{int(green):02x}{int(blue):02x}" for _, behind, _ in found
            for red, green, blue in [re.findall(r"\d+", behind)[:3]]} == {
        COLOURS[name][theme == "dark"] for name in ("ground", "panel")}
