# SPDX-License-Identifier: GPL-2.0-or-later
"""JUnit XML: what Jenkins, GitLab and most CI systems show as test results.

No single standard exists.  What is written is common to the schemas in use: attributes and order are those of the Ant
JUnit report task, which is the strictest.  A pair of recording and revision is a test suite, its checks are test cases.
"""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from replay.formats.subtests import Case, SubtestNames, Suite, judge
from replay.many.jobs import JobOutcome, ReplayJob
from replay.reference.checks import Divergence

__all__ = ["junit_xml"]

#: A report travels: it does not name the machine it was made on.
_HOST: Final = "localhost"
_PROPERTIES: Final = ("verdict", "revision", "mirrors", "kernel", "compressor", "events", "unexplained")


def junit_xml(pairs: Sequence[tuple[ReplayJob, JobOutcome]], lines: Callable[[Divergence], Iterator[str]],
              now: datetime.datetime) -> str:
    """Return a document of all pairs.

    :param lines: the lines of a divergence in full, for people
    :param now: when the replays were done
    """
    root = ET.Element("testsuites")
    names = SubtestNames()
    for number, (job, outcome) in enumerate(pairs):
        _suite(root, number, judge(job, outcome, names), lines, now)
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data.decode() + "\n"


def _suite(root: ET.Element, number: int, suite: Suite, lines: Callable[[Divergence], Iterator[str]],
           now: datetime.datetime) -> None:
    # A suite without checks is reported as one case of its own.
    cases = suite.cases or (Case("replay", suite.status, suite.text),)
    result = suite.result
    seconds = sum(result.seconds.values()) if result is not None else 0.0
    name = _xml(suite.name)
    of = ET.SubElement(root, "testsuite", {
        "id": str(number), "package": "zreplay", "name": name,
        "tests": str(len(cases)), "failures": str(sum(case.status == "fail" for case in cases)),
        "errors": str(sum(case.status == "error" for case in cases)),
        "skipped": str(sum(case.status == "skip" for case in cases)),
        "time": f"{seconds:.3f}", "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S"), "hostname": _HOST})
    properties = ET.SubElement(of, "properties")
    for key in _PROPERTIES if result is not None else ():
        ET.SubElement(properties, "property", {"name": key, "value": _xml(str(getattr(result, key)))})
    for case in cases:
        # How long one check takes is not measured.
        made = ET.SubElement(of, "testcase", {"classname": name, "name": _xml(case.name), "time": "0"})
        if case.status == "skip":
            ET.SubElement(made, "skipped", {"message": _xml(case.text)})
        elif case.status == "fail":
            failure = ET.SubElement(made, "failure", {"type": "divergence", "message": _xml(_message(case))})
            failure.text = _xml("\n".join(line for each in case.divergences[:1] for line in lines(each)))
        elif case.status == "error":
            error = ET.SubElement(made, "error", {"type": "no result", "message": _xml(case.text)})
            error.text = _xml(case.text)
    said = [*result.reasons, *(f"note: {note}" for note in result.notes)] if result is not None else []
    ET.SubElement(of, "system-out").text = _xml("\n".join(said))
    ET.SubElement(of, "system-err").text = "" if result is not None else _xml(suite.text)


def _message(case: Case) -> str:
    if not case.divergences:
        return case.text
    first = case.divergences[0]
    return f"{case.text}; first at event {first.event} ({first.name}): {first.what}"


def _xml(text: str) -> str:
    """Return text without the characters that XML 1.0 does not have, not even escaped."""
    return "".join(c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" else "?"
                   for c in text)
