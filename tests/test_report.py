# SPDX-License-Identifier: GPL-2.0-or-later
"""zreplay report: the page says what the result says, whatever that is, and is sound HTML."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from htmlpage import Element, contrast, parse, variables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from regressing import Plan, record

from replay.cli import main
from replay.reference.checks import CHECKS, Divergence
from replay.regress.compare import regress
from replay.report import sections, story
from replay.report.consequences import RESPECTS, STAKES, in_this_case, stake
from replay.report.markup import folded, join, printable, row, table, tag
from replay.report.reportdata import Material
from replay.report.resultfile import load_result
from replay.report.style import COLOURS, CSS
from replay.revdiff.lockstep import RESPECTS as PARTING_RESPECTS
from replay.tools.synthetic import ImaginaryKernel, config
from replay.verdict.result import Result
from replay.verdict.run import replay
from traces import schema
from traces.errors import BadInput
from traces.recording import Recording, RecordingWriter

FIGURES = ("pool-pages", "compressed-sizes", "fragmentation", "batch-sizes", "latency", "writeback-age")
COLUMN = {name: index for index, name in enumerate(schema.column_names())}


def report(tmp: Path, *words: object) -> tuple[int, Element, str]:
    """Make a report; return the exit status, the page as a tree, the page."""
    out = tmp / "report.html"
    status = main(["report", *map(str, words), "-o", str(out)])
    text = out.read_text("utf-8")
    return status, parse(text), text


def synthetic(path: Path, text: str = "phase one", losses: list[dict[str, Any]] | None = None,
              lost_at: bool = False) -> Path:
    """Write a small recording with a marker, and losses where wanted."""
    kernel = ImaginaryKernel()
    texts = [kernel.mark(text)]
    for slot in range(0, 64, 16):
        if lost_at and slot == 32:
            kernel.mark("")
            for name, value in (("event", schema.CODE["lost_events"]), ("ret", 7), ("pid", 0)):
                kernel.rows[-1][COLUMN[name]] = value
        kernel.store(slot, 4)
    with RecordingWriter(path) as writer:
        writer.write_rows(kernel.block(), texts)
        writer.close({**config(), **({"losses": losses} if losses is not None else {})})
    return path


@pytest.fixture(scope="module")
def pages(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Element, str]]:
    """One page of each kind: PASS, FAIL, UNDECIDED, two revisions, two kernels."""
    tmp = tmp_path_factory.mktemp("pages")
    lossy = synthetic(tmp / "lossy", losses=[{"cpu": 0, "lost": 9}], lost_at=True)
    base, patched = (record(tmp / name, plan).path for name, plan in (("base", Plan()), ("patched", Plan(
        longer=40, slow=0.5, release="7.3-patched"))))
    return {
        "PASS": report(tmp, samples["7.3-zstd-smp2"]),
        "FAIL": report(tmp, samples["7.2-lz4-edge"], "--revision", "mainline-6.12"),
        "UNDECIDED": report(tmp, lossy),
        "two revisions": report(tmp, samples["7.2-lz4-edge"], "--revision", "mainline-7.2", "--revision", "v14"),
        "two kernels": report(tmp, base, patched),
    }


KINDS = pytest.mark.parametrize("kind", ["PASS", "FAIL", "UNDECIDED", "two revisions", "two kernels"])


# ---- the page as a page ----------------------------------------------------------------------------------


@KINDS
def test_page_stands_alone(pages: dict[str, tuple[int, Element, str]], kind: str) -> None:
    _, page, text = pages[kind]
    assert len(text) < 5 << 20
    assert not page.all("script")
    assert not [each for each in page.walk() if any(name.startswith("on") for name in each.attributes)]
    for each in page.walk():
        for name in ("src", "href"):
            assert each.attributes.get(name, "#").startswith("#"), each.attributes
    # Neither style sheet nor picture fetches anything.
    assert not re.findall(r"https?://|@import|@font-face|url\((?!#)", text)
    policy = page.all("meta", http_equiv="Content-Security-Policy")
    assert policy[0].attributes["content"].startswith("default-src 'none'")


@KINDS
def test_page_is_sound(pages: dict[str, tuple[int, Element, str]], kind: str) -> None:
    page = pages[kind][1]
    ids = [each.attributes["id"] for each in page.having("id")]
    assert len(set(ids)) == len(ids)
    used = [name for kind in ("aria-labelledby", "aria-describedby") for each in page.having(kind)
            for name in each.attributes[kind].split()]
    used += [each.attributes["href"][1:] for each in page.having("href")]
    used += [name for each in page.walk() for value in each.attributes.values()
             for name in re.findall(r"url\(#([\w-]+)\)", value)]
    assert set(used) <= set(ids)
    levels = [int(each.name[1]) for each in page.walk() if re.fullmatch("h[1-6]", each.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))
    for each in page.all("table"):
        assert len(each.all("caption")) == 1
        heads = each.all("th")
        assert heads
        assert all(head.attributes["scope"] in ("col", "row") for head in heads)
        widths = {len([cell for cell in line.walk() if cell.name in ("th", "td")]) for line in each.all("tr")}
        assert len(widths) == 1, each.all("caption")[0].text
    # What scrolls can be reached and scrolled by keyboard, and says what it is.
    for each in page.all("div"):
        if "scroll" in each.attributes.get("class", "").split():
            assert each.attributes["tabindex"] == "0"
            assert each.attributes["role"] == "group"
            assert each.attributes["aria-label"]


@KINDS
def test_every_picture_tells_its_numbers_or_why_it_is_not_there(pages: dict[str, tuple[int, Element, str]],
                                                                kind: str) -> None:
    page = pages[kind][1]
    drawn = [each.attributes["data-picture"] for each in page.having("data-picture")]
    left_out = {each.attributes["data-left-out"]: each.text for each in page.having("data-left-out")}
    assert sorted([*drawn, *left_out]) == sorted(FIGURES)
    assert all(re.fullmatch(r"Left out: .+\.", why) for why in left_out.values())
    for figure in page.all("figure"):
        captions, drawings = figure.all("figcaption"), figure.all("svg")
        assert len(captions) == len(drawings) == 1
        assert re.search(r"\d", captions[0].text)
        assert drawings[0].attributes["role"] == "img"
        title, said = (figure.all(name)[0] for name in ("title", "desc"))
        assert drawings[0].attributes["aria-labelledby"] == title.attributes["id"]
        assert drawings[0].attributes["aria-describedby"] == said.attributes["id"]
        assert said.text == captions[0].text
        assert len(drawings[0].all("text")) > 3


@KINDS
def test_drawings_have_no_colour_of_their_own(pages: dict[str, tuple[int, Element, str]], kind: str) -> None:
    for drawing in pages[kind][1].all("svg"):
        styles = " ".join(each.attributes.get("style", "") for each in drawing.walk())
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?!\))", re.sub(r"url\(#[\w-]+\)", "", styles))
        assert not [each for each in drawing.walk() for name in ("fill", "stroke") if name in each.attributes]
        # The page chooses the face; sizes are the drawing's.
        assert "font-family" not in styles
        assert all("font-size" in each.attributes["style"] for each in drawing.all("text"))
        names = set(re.findall(r"var\(--([\w-]+)\)", styles))
        assert names
        assert names <= COLOURS.keys()


def test_colours_can_be_told_from_the_ground() -> None:
    for theme in (0, 1):
        for name, colour in COLOURS.items():
            for ground in ("ground", "panel"):
                if name not in ("ground", "panel", "rule"):
                    assert contrast(colour[theme], COLOURS[ground][theme]) >= 4.5, (name, ground, theme)
    assert len({colour.light for colour in COLOURS.values()}) == len(COLOURS)
    light, dark, paper = (variables(part) for part in re.findall(r":root \{([^}]*)\}", CSS))
    assert light == {name: colour.light for name, colour in COLOURS.items()} == paper
    assert dark == {name: colour.dark for name, colour in COLOURS.items()}
    assert set(re.findall(r"var\(--([\w-]+)\)", CSS)) <= COLOURS.keys()
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_order_of_sections(pages: dict[str, tuple[int, Element, str]]) -> None:
    found = {kind: [each.attributes["id"] for each in page.all("h2")] for kind, (_, page, _) in pages.items()}
    assert found["PASS"] == found["FAIL"] == ["checks", "divergence", "reasons", "reproduce", "pictures"]
    assert found["two revisions"] == ["checks", "divergence", "revisions", "reasons", "reproduce", "pictures"]
    assert found["two kernels"] == ["checks", "divergence", "regression", "reasons", "reproduce", "pictures"]


# ---- the numbers -----------------------------------------------------------------------------------------


def said(page: Element) -> dict[str, tuple[int, int, str]]:
    """Return what a page's tables of checks say, and that cells and attributes agree."""
    out = {}
    for line in page.having("data-check"):
        if line.name != "tr":
            continue
        cells = [cell.text for cell in line.children if isinstance(cell, Element)]
        data = line.attributes
        different = int(data["data-different"])
        assert cells[0].startswith(data["data-check"])
        assert cells[1] == f"{int(data['data-compared']):,}"
        # Behind the plus are those that may follow from an earlier one.
        own, _, following = cells[2].replace(",", "").partition(" +")
        assert own == "-" if cells[1] == "0" else int(own) + int(following or 0) == different
        assert cells[3] == ("not compared" if own == "-" else "equal" if not different else
                            "differs" if int(own) else "may follow")
        assert cells[4] == data["data-grade"]
        out[data["data-check"]] = (int(data["data-compared"]), different, f"{cells[4]}|{cells[5]}")
    return out


@pytest.mark.parametrize(("sample", "revision"), [("7.3-zstd-smp2", None), ("7.2-lz4-edge", "v14-meant")])
def test_numbers_are_those_of_the_json(samples: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       sample: str, revision: str | None) -> None:
    words = [str(samples[sample]), *(["--revision", revision] if revision else [])]
    status = main(["replay", *words, "--json"])
    plain = json.loads(capsys.readouterr().out)
    (tmp_path / "result.json").write_text(json.dumps(plain))
    wanted = {each["id"]: (each["compared"], each["different"], f"{each['grade']}|{each['reason']}")
              for each in plain["checks"]}
    for given_words in (words, [tmp_path / "result.json"]):
        reported, page, _ = report(tmp_path, *given_words)
        assert reported == status
        assert said(page) == wanted
        header = page.all("header")[0]
        assert header.attributes["data-verdict"] == plain["verdict"]
        assert header.attributes["data-events"] == str(plain["events"])
        assert f"{sum(count for count, _, _ in wanted.values()):,} comparisons" in page.text
        for reason in (*plain["reasons"], *plain["notes"]):
            # What was compressed before is reported by the first of them alone.
            if "distinct pages compressed" not in reason:
                assert reason in page.text
        section = page.all("section", aria_labelledby="divergence")[0]
        if plain["divergences"]:
            first = plain["divergences"][0]
            assert section.attributes["data-event"] == str(first["event"])
            assert section.attributes["data-check"] == first["check"]
            assert section.attributes["data-recorded"] == story.shown(first["recorded"])
            assert all(line in section.text for line in first["context"])
            for other in first["path"]:
                assert f"{other[0]}() (since event {other[1]:,})" in section.text
            assert f"zreplay replay {samples[sample]} --revision {revision}" in page.text
        else:
            assert "data-event" not in section.attributes


def test_divergence_is_a_story(pages: dict[str, tuple[int, Element, str]]) -> None:
    _, page, _ = pages["FAIL"]
    section = page.all("section", aria_labelledby="divergence")[0]
    assert [each.text for each in section.all("h3")] == [
        "What the kernel did", "What the revision says", "What that means", "How far the replay got",
        "Events around it"]
    assert stake(section.attributes["data-check"])[1] in section.text
    assert len(section.all("span", class_="here")) == 1
    assert section.all("span", class_="here")[0].text.startswith("->")
    assert page.all("h1")[0].text.startswith("\u2717 FAILKernel 7.2.13 (lz4) does not do what mainline-6.12 says")


def test_undecided_page_says_why_and_where_events_were_lost(pages: dict[str, tuple[int, Element, str]]) -> None:
    status, page, _ = pages["UNDECIDED"]
    assert status == 3
    assert "UNDECIDED" in page.all("h1")[0].text
    assert "events were lost before event" in page.all("h1")[0].text
    pool = next(each for each in page.all("figure") if each.attributes["data-picture"] == "pool-pages")
    assert "CPU 0 lost 7 events" in pool.text
    assert "CPU 0 lost 2 events at unknown times" in pool.text
    assert {"lost, time known", "lost, time unknown", "prediction ends"} <= {each.text for each in pool.all("text")}
    # A recording without losses has no row of them.
    passed = next(each for each in pages["PASS"][1].all("figure") if each.attributes["data-picture"] == "pool-pages")
    assert "no event is known to be lost" in passed.text
    assert not any(each.text.startswith("lost") for each in passed.all("text"))


def test_two_revisions(pages: dict[str, tuple[int, Element, str]], samples: dict[str, Path],
                       capsys: pytest.CaptureFixture[str]) -> None:
    status, page, _ = pages["two revisions"]
    words = [str(samples["7.2-lz4-edge"]), "--revision", "mainline-7.2", "--revision", "v14"]
    assert main(["regress", *words, "--json"]) == status == 1
    plain = json.loads(capsys.readouterr().out)
    section = page.all("section", aria_labelledby="revisions")[0]
    rows = section.having("data-respect")
    assert [(each.attributes["data-respect"], int(each.attributes["data-operations"]),
             int(each.attributes["data-event"])) for each in rows] == [
        (cause["respect"], cause["operations"], cause["event"]) for cause in plain["causes"]]
    assert all(cause["sentence"] in each.text for cause, each in zip(plain["causes"], rows, strict=True))
    assert section.attributes["data-operations"] == str(plain["operations"])
    # One sentence for each kind of broken invariant, and how often.
    assert plain["problems"]["v14"][0]["sentence"] in section.text
    assert "v14 breaks an invariant 10 times" in page.all("header")[0].text
    assert "10 times" in section.text
    assert f"zreplay regress {' '.join(words)}" in page.text


def test_two_kernels(pages: dict[str, tuple[int, Element, str]], tmp_path: Path) -> None:
    status, page, _ = pages["two kernels"]
    made = [record(tmp_path / name, plan) for name, plan in (("base", Plan()), ("patched", Plan(
        longer=40, slow=0.5, release="7.3-patched")))]
    wanted = regress([made[0]], [made[1]])
    assert wanted.verdict == "worse"
    assert status == 1
    section = page.all("section", aria_labelledby="regression")[0]
    assert section.attributes["data-verdict"] == wanted.verdict
    assert {each.attributes["data-measure"] for each in section.having("data-measure")} == {
        check.id for verdict in ("worse", "better") for check in wanted.of(verdict)}
    figure = next(each for each in page.all("figure") if each.attributes["data-picture"] == "latency")
    times = [check for check in wanted.checks if check.id.startswith("time.") and check.base and check.patched]
    cells = [[cell.text for cell in line.children if isinstance(cell, Element)] for line in figure.all("tr")[1:]]
    assert [line[0] for line in cells] == [check.measure.doc for check in times]
    assert [line[-1] for line in cells] == [check.verdict for check in times]
    assert [line[5] for line in cells] == [f"{check.change:+.1%}" for check in times]
    assert "taken as the base" in page.text


def test_recordings_of_one_kernel_and_named_ones(tmp_path: Path) -> None:
    first, second = (record(tmp_path / name).path for name in ("a", "b"))
    _, page, _ = report(tmp_path, first, second)
    assert "the first is taken as the base's" in page.text
    assert report(tmp_path, first, "--patched", second)[1].text.count("the first is taken as the base's") == 0


def test_same_result_gives_the_same_page(samples: dict[str, Path], tmp_path: Path) -> None:
    words = [samples["7.2-lz4-edge"]]
    assert report(tmp_path, *words)[2] == report(tmp_path, *words)[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["6.12-zstd-4k", "6.18-zstd-4k", "7.0-lz4-64k", "7.2-lz4-edge", "7.2-zstd-4k",
                                  "7.3-lz4-4k", "7.3-lz4-limits", "7.3-zstd-64k", "7.3-zstd-smp2"])
def test_every_sample(samples: dict[str, Path], tmp_path: Path, name: str) -> None:
    assert samples.keys() >= {name}
    status, page, text = report(tmp_path, samples[name])
    assert status == 0
    assert len(text) < 5 << 20
    assert said(page)
    assert len(page.all("figure")) >= 3


# ---- what is not to be trusted ---------------------------------------------------------------------------

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>&amp;\"'$\\frac{1}{2}$ --> ]]> \u202e\x1b[31m\x00\x07\u4e2d"


def shape(page: Element) -> list[str]:
    """Return what a page is made of, without any text or value."""
    return [f"{each.name} {sorted(name for name in each.attributes if name != 'open')}" for each in page.walk()]


def test_text_of_a_marker_and_a_path_stay_text(tmp_path: Path) -> None:
    hostile = HOSTILE.replace("\x00", "").replace("/", "_")
    made = {}
    for name, text in (("plain", "phase one"), (f"<script>{hostile}".replace("\x1b", ""), HOSTILE.replace("\x00", ""))):
        (tmp_path / "in").mkdir(exist_ok=True)
        status, page, written = report(tmp_path, synthetic(tmp_path / "in" / name, text))
        assert status == 0
        made[text] = page
        assert "\x1b" not in written
        assert "\u202e" not in written
    one, other = made.values()
    assert not other.all("script")
    assert not other.all("img")
    outside = [[each for each in shape(page) if not each.startswith(("use", "path", "g ", "defs", "text"))]
               for page in (one, other)]
    assert outside[0] == outside[1]
    assert "<script>" in other.all("dd")[0].text


def _hostile(plain: Any) -> Any:
    """Return plain data with every text that a result's makers do not choose made hostile."""
    if isinstance(plain, dict):
        return {key: value if key in ("verdict", "id", "grade") else _hostile(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_hostile(value) for value in plain]
    return HOSTILE if isinstance(plain, str) else plain


@pytest.fixture(scope="module")
def failed(samples: dict[str, Path]) -> dict[str, Any]:
    """A result of a replay that differs, as JSON has it."""
    result = replay(Recording(samples["7.3-zstd-64k"]), "mainline-6.12", keep_going=True, pages=False)
    plain = json.loads(json.dumps(result.as_dict(), default=str))
    plain["divergences"] = plain["divergences"][:3]
    plain["explained_by"] = []
    assert isinstance(plain, dict)
    return plain


def test_a_hostile_result_is_shown_as_it_is(failed: dict[str, Any], tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    # Of the same kind, but for the recording, which is not there in either.
    made = []
    for name, plain in (("plain", {**failed, "recording": "gone"}), ("hostile", _hostile(failed))):
        (tmp_path / name).write_text(json.dumps(plain))
        status, page, text = report(tmp_path, tmp_path / name)
        assert status == 1
        made.append((page, text))
    assert not made[1][0].all("script")
    assert not made[1][0].all("img")
    assert "<script>" in made[1][0].text
    # Event lines of the plain one have an arrow; nothing else differs.
    assert [each for each in shape(made[0][0]) if not each.startswith("span ['class']")] == [
        each for each in shape(made[1][0]) if not each.startswith("span ['class']")]
    assert all(c.isprintable() or c == "\n" for c in made[1][1])
    # Nor does the terminal obey it.
    out = capsys.readouterr().out
    assert "<script>" in out
    assert all(c.isprintable() or c == "\n" for c in out)
    commands = [each.text for each in made[1][0].all("code") if each.text.startswith("zreplay replay")]
    assert shlex.split(commands[0])[2] == printable(HOSTILE)


def test_a_result_without_its_recording(failed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({**failed, "recording": str(tmp_path / "gone.zr")}))
    _, page, _ = report(tmp_path, tmp_path / "result.json")
    assert not page.all("figure")
    reasons = {each.text for each in page.having("data-left-out")}
    assert any("is not here to be read" in reason for reason in reasons)
    assert said(page)
    with pytest.raises(BadInput, match="not here to be read"):
        _run(tmp_path, tmp_path / "result.json", "--revision", "mainline-6.12", "--revision", "v14")


def test_a_result_of_another_recording(failed: dict[str, Any], samples: dict[str, Path], tmp_path: Path) -> None:
    for other, why in (("6.12-zstd-4k", "is of kernel 6.12"), ("7.3-zstd-smp2", "the result has")):
        (tmp_path / "result.json").write_text(json.dumps({**failed, "recording": str(samples[other])}))
        _, page, _ = report(tmp_path, tmp_path / "result.json")
        assert not page.all("figure")
        assert why in page.text


def _run(tmp: Path, *words: object) -> None:
    """Run the verb; let bad input through."""
    from replay.cli.main import parser

    arguments = parser().parse_args(["report", *map(str, words), "-o", str(tmp / "out.html")])
    arguments.run(arguments)


@pytest.mark.parametrize(("content", "why"), [
    (b"", "holds no result"), (b"{", "is not JSON"), (b"\xff\xfe", "is not JSON"), (b"[]", "holds no result"),
    (b"3", "holds no result"), (b"{}", "is not the result of a replay"), (b"[" * 100_000, "is not JSON"),
    (b'{"schema": "result-9"}', "says 'result-9', and this zreplay reads result-1"),
    (b'{"verdict": null, "recording": "x", "revision": null, "error": "it broke"}', "gave no result"),
])
def test_what_is_no_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes,
                                      why: str) -> None:
    (tmp_path / "in.json").write_bytes(content)
    assert main(["report", str(tmp_path / "in.json"), "-o", str(tmp_path / "out.html")]) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == ["in.json"]


def test_two_results_are_refused_and_one_laid_out_anew_is_not(failed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "two").write_text(f"{json.dumps(failed)}\n{json.dumps(failed)}\n")
    with pytest.raises(BadInput, match="holds 2 results"):
        load_result(tmp_path / "two")
    (tmp_path / "one").write_text(json.dumps(failed, indent=2))
    assert load_result(tmp_path / "one") == Result.from_dict(failed)
    # What Unicode calls the end of a line is a letter of a JSON string.
    failed = {**failed, "notes": ["a\u2028b\x85c"]}
    (tmp_path / "one").write_text(json.dumps(failed, ensure_ascii=False))
    assert load_result(tmp_path / "one").notes == failed["notes"]


@pytest.mark.parametrize(("words", "why"), [
    (["nowhere", "-o", "{tmp}/out.html"], "does not exist"),
    (["n" * 300, "-o", "{tmp}/out.html"], "does not exist"),
    (["{sample}", "-o", "{tmp}/" + "n" * 300 + "/out.html"], "cannot be written"),
    (["{sample}", "n" * 300, "-o", "{tmp}/out.html"], "File name too long"),
    (["{sample}", "-o", "{tmp}/no/out.html"], "cannot be written"),
    (["{sample}", "-o", "{tmp}"], "cannot be written"),
    (["{sample}", "--revision", "v99", "-o", "{tmp}/out.html"], "there is no revision 'v99'"),
    (["{sample}", "--revision", "v8", "--revision", "v12", "--revision", "v14", "-o", "{tmp}/out.html"], "3 are given"),
    (["{sample}", "{tmp}", "-o", "{tmp}/out.html"], "not a recording"),
    (["{sample}", "--figures", "{tmp}/file/x", "-o", "{tmp}/out.html"], "cannot be made"),
])
def test_wrong_use(samples: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str],
                   why: str) -> None:
    (tmp_path / "file").touch()
    filled = [word.format(tmp=tmp_path, sample=samples["7.2-lz4-edge"]) for word in words]
    assert main(["report", *filled]) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == ["file"]


def test_revision_has_to_be_the_result_s(failed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(failed))
    with pytest.raises(BadInput, match=r"is a result against mainline-6\.12, not v14"):
        _run(tmp_path, tmp_path / "result.json", "--revision", "v14")


def test_a_revision_of_one_s_own(samples: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from model.revisions.mainline_7 import Mainline73\n\n\nclass Same(Mainline73):\n    pass\n")
    named = f"{file}:Same"
    status, page, _ = report(tmp_path, samples["7.3-zstd-smp2"], "--revision", named)
    assert status == 0
    assert f"zreplay replay {samples['7.3-zstd-smp2']} --revision {named}" in page.text
    capsys.readouterr()
    main(["replay", str(samples["7.3-zstd-smp2"]), "--revision", named, "--json"])
    (tmp_path / "result.json").write_text(capsys.readouterr().out)
    _, page, _ = report(tmp_path, tmp_path / "result.json")
    assert "name its file with --revision FILE.py:Same" in page.text
    _, page, _ = report(tmp_path, tmp_path / "result.json", "--revision", named)
    assert "name its file" not in page.text


# ---- the parts -------------------------------------------------------------------------------------------

ANY = st.text(st.characters(codec=None), max_size=40)


@given(ANY, ANY)
def test_what_is_text_comes_back_as_text(one: str, other: str) -> None:
    made = tag("html", tag("p", one, tag("b", other), title=other), tag("code", join([one, other], "\n")))
    page = parse(f"<!DOCTYPE html>\n{made}")
    wanted = [printable(text).replace("\r", "\\r") for text in (one, other)]
    assert page.all("p")[0].text == "".join(wanted)
    assert page.all("b")[0].text == page.all("p")[0].attributes["title"] == wanted[1]
    assert page.all("code")[0].text == "\n".join(wanted)
    made.encode("utf-8")


def _mutants(plain: Any) -> st.SearchStrategy[Any]:
    """Return results with one part taken out or put in another's place."""
    junk = st.one_of(st.none(), st.booleans(), st.integers(-1, 1 << 70), st.floats(), ANY, st.just([]), st.just({}),
                     st.just([[]]), st.just([{}]), st.just({"x": HOSTILE}))
    places: list[tuple[Any, ...]] = []

    def walk(part: Any, path: tuple[Any, ...]) -> None:
        if path:
            places.append(path)
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, value in list(items)[:12]:
            walk(value, (*path, key))

    walk(plain, ())

    def change(place: tuple[Any, ...], value: Any, drop: bool) -> Any:
        made = copy.deepcopy(plain)
        part = made
        for key in place[:-1]:
            part = part[key]
        if drop:
            del part[place[-1]]
        else:
            part[place[-1]] = value
        return made

    return st.builds(change, st.sampled_from(places), junk, st.booleans())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_result_is_refused_or_shown(failed: dict[str, Any], tmp_path: Path, data: st.DataObject) -> None:
    small = {**failed, "checks": failed["checks"][:3], "divergences": failed["divergences"][:2]}
    (tmp_path / "result.json").write_text(json.dumps(data.draw(_mutants(small))))
    try:
        result = load_result(tmp_path / "result.json")
    except BadInput:
        return
    material = Material(result, absent="it is not there")
    for make in (sections.verdict, sections.checks, sections.divergence, sections.reasons, sections.reproduce):
        parse(f"<!DOCTYPE html>\n{tag('html', make(material))}")


def test_every_check_and_respect_has_its_words() -> None:
    assert STAKES.keys() == CHECKS.keys()
    assert RESPECTS.keys() == PARTING_RESPECTS.keys()
    for check in (*CHECKS, "counter.zswap.stored_pages", "counter.vmstat.zswpin", "counter.memcg.zswap",
                  "counter.meminfo.Zswap", "counter.mthp.64kB.zswpout", "counter.zsmalloc.class3.obj_used"):
        word, sentence = stake(check)
        assert word
        assert sentence.endswith(".")
        assert "does not describe" not in sentence
    assert "does not describe" in stake("new.check")[1]


@pytest.mark.parametrize(("check", "recorded", "predicted", "words"), [
    ("acomp.batch", 0, -22, "Here it is success."), ("acomp.batch", -22, 0, "Here it is an error."),
    ("acomp.batch", -5, -22, ""), ("store.result", 1, 0, "Here it is a wrong 1."),
    ("counter.zswap.stored_pages", 7, 10, "Here it is off by -3."), ("zsmalloc.pages", 12, 10, "Here it is off by +2."),
    ("zsmalloc.pages", "12", 10, ""), ("effect.order", "a", "b", ""), ("counter.x.y", True, 0, ""),
])
def test_which_case_it_is(check: str, recorded: Any, predicted: Any, words: str) -> None:
    assert in_this_case(check, recorded, predicted) == words


@pytest.mark.parametrize(("verdict", "reasons", "words"), [
    ("PASS", [], "Kernel 7.9 (lz4) did what R says: 5 comparisons by 1 check over 9 events, none different."),
    ("FAIL", [], "Kernel 7.9 (lz4) does not do what R says: 5 comparisons by 1 check over 9 events."),
    ("UNDECIDED", ["events were lost"], "Whether kernel 7.9 (lz4) does what R says is not known: events were lost."),
    ("SKIP", ["no zswap"], "Nothing was checked of kernel 7.9 (lz4): no zswap."),
])
def test_verdict_in_one_sentence(verdict: str, reasons: list[str], words: str) -> None:
    from replay.verdict.result import CheckResult

    result = Result(verdict=verdict, recording="x", revision="R", mirrors="", kernel="7.9", compressor="lz4", events=9,
                    checks=[CheckResult("store.length", 5, 0, "exact", ""), CheckResult("store.raw", 0, 0, "exact", "")],
                    divergences=[], reasons=reasons)
    assert story.verdict_sentence(result) == words


@pytest.mark.parametrize(("check", "words"), [("invariant.load", "breaks an invariant: at event 3, w"),
                                               ("store.raw", "does not do what R says: at event 3, w")])
def test_a_broken_invariant_may_be_the_revision_s_too(check: str, words: str) -> None:
    result = Result(verdict="FAIL", recording="x", revision="R", mirrors="", kernel="7.9", compressor="lz4", events=9, checks=[],
                    divergences=[Divergence(check, 3, "e", 1, 2, "w", 0, 0, 0)], reasons=[])
    assert story.verdict_sentence(result) == f"Kernel 7.9 (lz4) {words}: recorded 1, predicted 2 ({check})."


def test_long_tables_are_printed_when_unfolded() -> None:
    rows = [row((number, "x")) for number in range(41)]
    made = table("T", ("a", "b"), rows)
    brief, long = (parse(f"<!DOCTYPE html>\n{tag('html', folded('S', made, count))}").all("details")[0]
                   for count in (40, 41))
    assert brief.attributes == {"class": "brief"}
    assert "printed when unfolded" in long.text
    assert "details.brief::details-content" in CSS
