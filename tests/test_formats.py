# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays for other programs and for mails: KTAP, JUnit XML, JSON, 72 columns; each checked against a golden file, a schema,
and, where a kernel's source is at hand, kunit's own parser.

``ZREPLAY_KUNIT_PARSER`` names tools/testing/kunit/kunit_parser.py of a kernel's source; without it the source is looked for
in /usr/src/linux*, where Debian's linux-source packages go.  ``ZREPLAY_JUNIT_XSD`` names further JUnit schemas (paths, with
colons between).  ``ZREPLAY_WRITE_GOLDEN`` writes the golden files anew.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import main
from replay.cli.replay_ import divergence_lines
from replay.formats import mail
from replay.formats.junit import junit_xml
from replay.formats.ktap import Ktap
from replay.formats.mail import WIDTH, MailFormat, asked
from replay.formats.subtests import SubtestNames, judge
from replay.many.jobs import NOT_DONE, UNREADABLE, JobOutcome, ReplayJob
from replay.reference.checks import CHECKS, Divergence
from replay.verdict.result import CheckResult, Result
from traces.recording import Recording

GOLDEN = ROOT / "tests" / "golden"
#: name -> arguments of replay, exit status
CASES = {
    "pass": (["7.2-lz4-edge"], 0),
    "fail": (["7.3-lz4-4k", "--revision", "v14", "--no-pages"], 1),
    "undecided": (["lossy", "--no-pages"], 3),
    "many": (["lossy", "7.0-lz4-64k", "none", "7.0-lz4-64k", "--revision", "mainline-7.0", "--revision", "v14",
              "--no-pages", "--check", "effect.order", "--check", "store.result"], 2),
}
FORMS = {"ktap": ["--ktap"], "json": ["--json"], "mail": ["--mail"]}


@pytest.fixture(scope="module")
def place(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with copies of samples, and one that has lost events."""
    path = tmp_path_factory.mktemp("formats")
    for name in ("7.2-lz4-edge", "7.3-lz4-4k", "7.0-lz4-64k"):
        shutil.copytree(samples[name], path / name, ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(samples["7.0-lz4-64k"], path / "lossy", ignore=shutil.ignore_patterns("cache"))
    manifest = json.loads((path / "lossy" / "manifest.json").read_text())
    manifest["losses"] = [{"cpu": 0, "lost": 3}]
    (path / "lossy" / "manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture(scope="module")
def printed(place: Path) -> dict[tuple[str, str], str]:
    """What each case prints in each form, with times set to 0; each case also as JUnit XML."""
    found = {}
    before = Path.cwd()
    os.chdir(place)
    try:
        for case, (words, expected) in CASES.items():
            for form, option in FORMS.items():
                for cache in place.glob("*/cache"):
                    shutil.rmtree(cache)
                out = io.StringIO()
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sys, "stdout", out)
                    patch.setattr(sys, "stderr", io.StringIO())
                    status = main(["replay", *words, *option, "--junit", "out.xml"])
                assert status == expected, (case, form)
                found[case, form] = timeless(out.getvalue(), form)
            found[case, "xml"] = timeless((place / "out.xml").read_text(), "xml")
    finally:
        os.chdir(before)
    return found


def timeless(text: str, form: str) -> str:
    """Set times to 0; JSON is laid out for people, as it is they who look at a golden file that changed."""
    if form == "xml":
        text = re.sub(r' time="[\d.]+"', ' time="0"', text)
        return re.sub(r' timestamp="[^"]+"', ' timestamp="2000-01-01T00:00:00"', text)
    if form == "json":
        objects = [json.loads(line) for line in text.splitlines()]
        for each in objects:
            each |= {"seconds": dict.fromkeys(each["seconds"], 0)} if "seconds" in each else {}
        return "".join(json.dumps(each, indent=1) + "\n" for each in objects)
    return text


def golden(name: str, text: str) -> None:
    """Compare text with a golden file, or write the file where that was asked for."""
    path = GOLDEN / name
    if os.environ.get("ZREPLAY_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"{name} differs: see tests/golden/README.md"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", [*FORMS, "xml"])
def test_each_form_is_as_the_golden_file_has_it(case: str, form: str, printed: dict[tuple[str, str], str]) -> None:
    golden(f"{case}.{form}", printed[case, form])


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a golden text, which are several lines each."""
    return [json.loads(part + "\n}") for part in text.split("\n}\n") if part]


@pytest.mark.parametrize("form", FORMS)
def test_processes_tell_the_same_in_the_same_order(form: str, printed: dict[tuple[str, str], str], place: Path,
                                                   monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    words, status = CASES["many"]
    assert main(["replay", *words, *FORMS[form], "-j", "2"]) == status
    assert timeless(capsys.readouterr().out, form) == printed["many", form]


# ---- JSON ------------------------------------------------------------------------------------------------


def test_json_is_what_its_schema_says(printed: dict[tuple[str, str], str]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the dev dependency jsonschema is not installed")
    schema = json.loads((ROOT / "docs" / "schema" / "result-1.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    seen = set()
    for case in CASES:
        for each in objects(printed[case, "json"]):
            validator.validate(each)
            which = "none" if each["verdict"] is None else "result"
            seen.add(each["verdict"])
            # Nothing is printed that the schema does not have.
            assert each.keys() == schema["$defs"][which]["properties"].keys()
            for divergence in each.get("divergences", ()):
                assert divergence.keys() == schema["$defs"]["divergence"]["properties"].keys()
            for check in each.get("checks", ()):
                assert check.keys() == schema["$defs"]["check"]["properties"].keys()
    assert seen == {"PASS", "FAIL", "UNDECIDED", None}
    good = objects(printed["fail", "json"])[0]
    for broken in ({**good, "schema": "result-2"}, {**good, "verdict": "OK"}, {**good, "events": -1},
                   {**good, "checks": [{}]}, {key: held for key, held in good.items() if key != "mirrors"},
                   {"schema": "result-1", "verdict": None}):
        assert not validator.is_valid(broken)


def test_a_result_can_be_made_of_its_json_again(printed: dict[tuple[str, str], str]) -> None:
    plain = objects(printed["fail", "json"])[0]
    assert Result.from_dict(plain).as_dict() == Result.from_dict({**plain, "schema": "result-1"}).as_dict()
    assert Result.from_dict(plain).divergences[0].event == 521


# ---- KTAP ------------------------------------------------------------------------------------------------


def kunit_parser() -> Path:
    """Return where kunit's parser is, or skip."""
    named = os.environ.get("ZREPLAY_KUNIT_PARSER")
    places = [Path(named)] if named else sorted(Path("/usr/src").glob("linux*/tools/testing/kunit/kunit_parser.py"))
    for path in places:
        if path.is_file():
            return path
    if named:
        pytest.fail(f"ZREPLAY_KUNIT_PARSER names {named}, which is not a file")
    pytest.skip("no kernel source at hand: set ZREPLAY_KUNIT_PARSER to its tools/testing/kunit/kunit_parser.py")


#: Run kunit's parser on standard input; print its tree of tests as JSON.
PARSE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import kunit_parser, kunit_printer
def tree(test):
    return {"name": test.name, "status": test.status.name, "why": test.skip_reason, "errors": test.counts.errors,
            "subtests": [tree(each) for each in test.subtests]}
print(json.dumps(tree(kunit_parser.parse_run_tests(sys.stdin, kunit_printer.null_printer))))
"""


def parsed(text: str) -> dict[str, Any]:
    """What kunit's parser makes of KTAP."""
    done = subprocess.run([sys.executable, "-c", PARSE, str(kunit_parser().parent)], input=text, text=True,
                          capture_output=True, check=True)
    tree: dict[str, Any] = json.loads(done.stdout)
    return tree


def test_kunit_s_parser_reads_what_was_found(printed: dict[tuple[str, str], str]) -> None:
    status = {"pass": "SUCCESS", "fail": "FAILURE", "skip": "SKIPPED", "error": "FAILURE"}
    overall = {"pass": "SUCCESS", "fail": "FAILURE", "undecided": "SKIPPED", "many": "FAILURE"}
    for case, (words, _) in CASES.items():
        tree = parsed(printed[case, "ktap"])
        assert (tree["status"], tree["errors"]) == (overall[case], 0), case
        pairs = {}
        revisions = words.count("--revision") or 1
        names = SubtestNames()
        for number, each in enumerate(objects(printed[case, "json"])):
            error = each.get("error", "")
            job = ReplayJob(number, each["recording"], each["revision"])
            outcome = JobOutcome(number, None if error else Result.from_dict(each), UNREADABLE if error else "", error)
            suite = judge(job, outcome, names)
            pairs[suite.name] = suite
        assert [test["name"] for test in tree["subtests"]] == list(pairs)
        assert len(pairs) == revisions * (4 if case == "many" else 1)
        for test in tree["subtests"]:
            suite = pairs[test["name"]]
            assert test["status"] == status[suite.status], test["name"]
            assert [(sub["name"], sub["status"]) for sub in test["subtests"]] == [
                (check.name, status[check.status]) for check in suite.cases]
            assert all(sub["why"] for sub in test["subtests"] if sub["status"] == "SKIPPED")


def test_docs_show_what_kunit_s_parser_prints(place: Path) -> None:
    """The page shows kunit.py's own words; what it printed is compared without its time stamps."""
    tool = kunit_parser().with_name("kunit.py")
    page = (ROOT / "docs" / "verbs" / "replay.md").read_text()
    shown = re.search(r"^\$ zreplay replay (\S+) ([^\n]*) --ktap \| \S*kunit\.py parse$\n(.*?)^```", page, re.M | re.S)
    assert shown is not None
    ktap = subprocess.run([sys.executable, "-c", "import sys; from replay.cli import main; sys.exit(main())", "replay",
                           shown[1], *shlex.split(shown[2]), "--ktap"], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).stdout
    done = subprocess.run([sys.executable, tool, "parse"], input=ktap, text=True, capture_output=True, check=False,
                          cwd=place)
    said = [re.sub(r"^\[\d\d:\d\d:\d\d\] ", "", line) for line in done.stdout.splitlines()]
    at = 0
    for line in (line for line in shown[3].splitlines() if line != "..."):
        assert line in said[at:], line
        at = said.index(line, at) + 1
    assert done.returncode == 1


def test_ktap_has_one_level_of_nesting_and_keeps_its_plans(printed: dict[tuple[str, str], str]) -> None:
    for case in CASES:
        lines = printed[case, "ktap"].splitlines()
        assert lines[0] == "KTAP version 1"
        for indent in ("", "  "):
            planned = [int(line.split("..")[1]) for line in lines if re.match(rf"{indent}1\.\.\d+$", line)]
            numbers = [int(found[1]) for line in lines if (found := re.match(rf"{indent}(?:not )?ok (\d+) \S", line))]
            assert numbers == [number for plan in planned for number in range(1, plan + 1)], case
        assert not [line for line in lines if not re.match(r"(?:  )?(?:KTAP version 1|1\.\.\d+|#|(?:not )?ok \d+ )", line)]


# ---- whatever is found -----------------------------------------------------------------------------------


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
LINES = st.text(st.sampled_from("ok not1.#\n\r\t\x00\x1b<&>\"'\ud800\ufffeé- SKIPKTAPversion"), max_size=30)
DIVERGENCE = st.builds(Divergence, check=st.sampled_from([*CHECKS, "counter.x"]), event=st.integers(0, 9), name=LINES,
                       recorded=LINES, predicted=st.integers(-1, 1 << 64), what=LINES, ts=st.integers(0, 1 << 40),
                       pid=st.integers(0, 9), cpu=st.integers(0, 3), context=st.tuples(LINES))
CHECK = st.builds(CheckResult, id=st.sampled_from([*CHECKS, "counter.x"]), compared=st.integers(0, 2),
                  different=st.integers(0, 2), grade=st.sampled_from(["exact", "modelled", "not captured"]), reason=LINES)
RESULT = st.builds(
    Result, verdict=st.sampled_from(["PASS", "FAIL", "UNDECIDED", "SKIP"]), recording=LINES, revision=LINES, mirrors=LINES,
    kernel=LINES, compressor=LINES, events=st.integers(0, 9),
    checks=st.lists(CHECK, max_size=4, unique_by=lambda check: check.id), divergences=st.lists(DIVERGENCE, max_size=3),
    reasons=st.lists(LINES, max_size=2), notes=st.lists(LINES, max_size=2), explained=st.just({}),
    seconds=st.fixed_dictionaries({"compress": st.floats(0, 9), "replay": st.floats(0, 9)}))
PAIRS = st.lists(st.tuples(LINES, st.none() | LINES, RESULT | st.tuples(st.sampled_from([UNREADABLE, NOT_DONE]), LINES)),
                 min_size=1, max_size=3)


def outcomes(pairs: list[Any]) -> list[tuple[ReplayJob, JobOutcome]]:
    return [(ReplayJob(number, name, revision), JobOutcome(number, what) if isinstance(what, Result) else
             JobOutcome(number, None, *what)) for number, (name, revision, what) in enumerate(pairs)]


def lines_of(form: Any, pairs: list[tuple[ReplayJob, JobOutcome]]) -> list[str]:
    jobs = [job for job, _ in pairs]
    return [*form.head(jobs), *(line for job, outcome in pairs for line in form.one(job, outcome)),
            *form.foot(jobs, {outcome.number: outcome for _, outcome in pairs})]


@settings(deadline=None, max_examples=150)
@given(PAIRS)
def test_names_and_texts_of_others_break_no_form(made: list[Any]) -> None:
    pairs = outcomes(made)
    ktap = lines_of(Ktap(divergence_lines), pairs)
    assert ktap[1] == f"1..{len(pairs)}"
    assert not [line for line in ktap if "\n" in line or "\r" in line]
    outer = [line for line in ktap if re.match(r"(?:not )?ok ", line)]
    names = [re.match(r"(?:not )?ok (\d+) ([^#]*?)(?: # .*)?$", line) for line in outer]
    assert [int(name[1]) for name in names] == list(range(1, len(pairs) + 1))
    assert len({name[2] for name in names}) == len(pairs)
    inner = [line for line in ktap if line.startswith("  ")]
    assert all(re.match(r"  (?:KTAP version 1$|1\.\.\d+$|# |(?:not )?ok \d+ [a-zA-Z0-9_.]+ # )", line) for line in inner)
    for (_, outcome), line in zip(pairs, outer, strict=True):
        result = outcome.result
        assert line.startswith("not ok ") == (result is None or result.verdict == "FAIL")
        assert (" # SKIP " in line) == (result is not None and result.verdict in ("UNDECIDED", "SKIP"))
    text = junit_xml(pairs, divergence_lines, datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
    validate(text)
    mail = lines_of(MailFormat(), pairs)
    assert not [line for line in mail if len(line) > WIDTH or not line.isascii() or (line and not line.isprintable())]
    for form in (ktap, [text]):
        "\n".join(form).encode()


def test_kunit_s_parser_reads_whatever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any names and texts: it finds the tests that were meant, with their statuses, and no error in the form."""
    monkeypatch.syspath_prepend(str(kunit_parser().parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    parser, printer = (importlib.import_module(name) for name in ("kunit_parser", "kunit_printer"))
    status = {"pass": "SUCCESS", "fail": "FAILURE", "skip": "SKIPPED", "error": "FAILURE"}

    @settings(deadline=None, max_examples=150)
    @given(PAIRS)
    def each(made: list[Any]) -> None:
        pairs = outcomes(made)
        tree = parser.parse_run_tests(lines_of(Ktap(divergence_lines), pairs), printer.null_printer)
        names = SubtestNames()
        suites = [judge(job, outcome, names) for job, outcome in pairs]
        assert tree.counts.errors == 0
        assert [(test.name, test.status.name, [(sub.name, sub.status.name) for sub in test.subtests])
                for test in tree.subtests] == [
            (suite.name, status[suite.status], [(case.name, status[case.status]) for case in suite.cases])
            for suite in suites]
        if any(suite.status in ("fail", "error") for suite in suites):
            assert tree.status.name == "FAILURE"
        elif all(suite.status == "skip" for suite in suites):
            assert tree.status.name == "SKIPPED"

    each()


@settings(deadline=None, max_examples=50)
@given(RESULT)
def test_what_is_not_decided_has_nothing_that_passes(result: Result) -> None:
    suite = judge(ReplayJob(0, "a", None), JobOutcome(0, result), SubtestNames())
    statuses = [case.status for case in suite.cases]
    if result.verdict in ("UNDECIDED", "SKIP"):
        assert set(statuses) <= {"skip"}
        assert suite.status == "skip"
    elif result.verdict == "FAIL":
        assert suite.status == "fail"
        assert {each.check for each in result.divergences} <= {
            case.name for case, status in zip(suite.cases, statuses, strict=True)}
    for case in suite.cases:
        check = next((check for check in result.checks if check.id == case.name), None)
        if check is not None and result.verdict in ("PASS", "FAIL"):
            assert case.status == ("fail" if check.different else "pass" if check.compared else "skip")


# ---- JUnit XML -------------------------------------------------------------------------------------------


@functools.cache
def schemas() -> tuple[tuple[str, Any], ...]:
    """The project's own schema, and further ones where they are named."""
    etree = pytest.importorskip("lxml.etree", reason="the dev dependency lxml is not installed")
    further = os.environ.get("ZREPLAY_JUNIT_XSD", "")
    return tuple((path.name, etree.XMLSchema(etree.parse(str(path))))
                 for path in (GOLDEN / "junit.xsd", *map(Path, filter(None, further.split(":")))))


def validate(text: str) -> Any:
    """Check a document against the schemas; return it."""
    etree = pytest.importorskip("lxml.etree", reason="the dev dependency lxml is not installed")
    document = etree.fromstring(text.encode())
    for name, schema in schemas():
        assert schema.validate(document), f"{name}: {schema.error_log}"
    return document


def test_junit_is_what_schemas_want_and_adds_up(printed: dict[tuple[str, str], str]) -> None:
    for case in CASES:
        document = validate(printed[case, "xml"])
        found = objects(printed[case, "json"])
        suites = document.findall("testsuite")
        assert len(suites) == len(found)
        for number, (suite, each) in enumerate(zip(suites, found, strict=True)):
            assert suite.get("id") == str(number)
            for tag, attribute in (("testcase", "tests"), ("testcase/failure", "failures"), ("testcase/error", "errors"),
                                   ("testcase/skipped", "skipped")):
                assert len(suite.findall(tag)) == int(suite.get(attribute)), (case, tag)
            if each["verdict"] is None:
                assert [error.get("message") for error in suite.findall("testcase/error")] == [each["error"]]
                continue
            assert [one.get("name") for one in suite.findall("testcase")] == [check["id"] for check in each["checks"]]
            assert (int(suite.get("failures")) > 0) == (each["verdict"] == "FAIL")
            if each["verdict"] == "UNDECIDED":
                assert suite.get("skipped") == suite.get("tests")
                assert "CPU 0 lost 3 events" in suite.findtext("system-out")


def test_a_broken_document_is_told() -> None:
    with pytest.raises(AssertionError):
        validate("<testsuites><testsuite name='x'/></testsuites>")


def test_files_that_cannot_be_written_are_told_before(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in ((["--junit", str(place / "none" / "x.xml")], "cannot be written"),
                            (["--junit", str(place)], "cannot be written"),
                            (["--junit", str(place / "a"), "--table", str(place / "a")], "name the same file")):
        assert main(["replay", str(place / "lossy"), "--no-pages", *words]) == 2
        out = capsys.readouterr()
        assert not out.out
        assert sentence in out.err
        assert out.err.count("\n") == 1


# ---- mail ------------------------------------------------------------------------------------------------


def test_a_line_of_a_mail_is_cut_where_it_would_be_wrapped() -> None:
    assert mail._line("kernel", "x" * 62) == "kernel    " + "x" * 62
    assert mail._line("kernel", "x" * 63) == "kernel    " + "x" * 59 + "..."
    assert mail._line("kernel", "x" * 63, "short") == "kernel    short"


def test_a_mail_has_five_lines_of_72_columns_for_each(printed: dict[tuple[str, str], str]) -> None:
    for case, (_, status) in CASES.items():
        text = printed[case, "mail"]
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 72
        *pairs, table = re.split(r"\n\n", text)
        assert table.startswith(" =====")
        assert len(pairs) == (8 if case == "many" else 1)
        for pair in pairs:
            first, *_, last = lines = pair.splitlines()
            assert len(lines) == 5
            assert first.startswith("zreplay   ")
            assert last.startswith("again     zreplay replay ")
        if status in (0, 1, 3):
            verdict = {0: "PASS", 1: "FAIL", 3: "UNDECIDED"}[status]
            assert pairs[0].startswith(f"zreplay   {verdict}: ")
    kernel = printed["pass", "mail"].splitlines()[1]
    assert kernel == "kernel    7.2.13 against mainline-7.2, lz4, folios of 4/64 KiB"


def test_what_a_mail_says_to_do_again_is_what_was_done(printed: dict[tuple[str, str], str], place: Path,
                                                       monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    for case in ("pass", "fail", "undecided"):
        words = shlex.split(printed[case, "mail"].splitlines()[4].removeprefix("again"))
        assert words[0] == "zreplay"
        assert main([*words[1:], "--mail"]) == CASES[case][1]
        text = capsys.readouterr().out
        # Pages may be compressed already this time; no line of a mail shows it.
        assert text == printed[case, "mail"]


def test_operations_are_counted_as_recorded(samples: dict[str, Path]) -> None:
    for name in ("7.2-lz4-edge", "7.3-zstd-64k"):
        recording = Recording(samples[name])
        frame = recording.frame(["event", "order"])
        facts = asked(recording)
        assert facts.counts == {key: int((frame.event == event).sum()) for key, event in (
            ("stores", "zswap_store"), ("loads", "zswap_load"), ("invalidates", "zswap_invalidate"))
            if (frame.event == event).any()}
        assert facts.orders == frame[frame.event == "zswap_store"].order.value_counts().to_dict()


# ---- b4 --------------------------------------------------------------------------------------------------


def test_b4_gets_what_the_golden_file_has(place: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    """b4's protocol: an array of objects of text, with the statuses pass, warn and fail (its docs/maintainer/review.rst)."""
    (place / "series.toml").write_text('[[series]]\nname = "batching"\nsubject = "batching"\nbase = ["7.3-lz4-4k"]\n'
                                       'patched = ["7.2-lz4-edge"]\nurl = "https://example.org/results"\n')
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(
        b"Subject: [PATCH v14 00/26] zswap compression batching\nMessage-Id: <a@example.org>\n\nHello\n")))
    status = main(["regress", "--b4", "--config", "series.toml"])
    answer = json.loads(capsys.readouterr().out)
    assert status == {"pass": 0, "fail": 1, "warn": 3}[answer[0]["status"]]
    assert all(set(each) == {"tool", "status", "summary", "url", "details"} for each in answer)
    golden("b4.json", json.dumps(answer, indent=1) + "\n")
