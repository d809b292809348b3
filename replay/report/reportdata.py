# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything a report shows, gathered from what judges and measures; and what a picture is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model.revisions import REVISIONS
from model.zswap import Zswap
from replay.regress.compare import Regression, regress
from replay.report.drawing import Drawing
from replay.report.modelpool import Course, course
from replay.report.recordingdata import Recorded, look
from replay.report.resultfile import without_bytes
from replay.revdiff import lockstep
from replay.revdiff.lockstep import Parting
from replay.verdict.result import Result
from replay.verdict.run import others, replay
from replay.verdict.setup import kernel_release
from traces.errors import BadInput
from traces.recording import Recording

__all__ = ["Material", "MissingPicture", "Named", "Picture", "gather", "sides"]

Progress = Callable[[str, int, int], None]
#: a revision as the user names it, and what :func:`replay.userrev.revision.load_revision` made of that
Named = tuple[str, str | type[Zswap]]


@dataclass(frozen=True)
class Picture:
    """A picture: ``name`` (unique; of files too), ``title``, ``caption`` (states the numbers), how it is drawn, and
    its numbers as a table."""

    name: str
    title: str
    caption: str
    drawing: Drawing
    head: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class MissingPicture:
    """A picture without data, and why."""

    name: str
    title: str
    why: str


@dataclass
class Material:
    """What a report is made of.

    ``recording``: what the result is of, None where it is not available: ``absent`` says why; ``course``: None
    likewise, ``uncharted`` says why; ``parting``: of two revisions; ``regression``: of two and more recordings;
    ``notes``: what a reader must know of how these came about; ``given``: the words of the command line after
    ``zreplay``.
    """

    result: Result
    recording: Recording | None = None
    absent: str = ""
    recorded: Recorded | None = None
    course: Course | None = None
    uncharted: str = ""
    parting: Parting | None = None
    regression: Regression | None = None
    notes: list[str] = field(default_factory=list)
    given: tuple[str, ...] = ()
    #: the revision as ``--revision`` takes it
    revision: str = ""


def gather(result: Result | None, recording: Recording | None, absent: str, revisions: Sequence[Named],
           base: Sequence[Recording], patched: Sequence[Recording], progress: Progress | None = None, *,
           data: bool = False) -> Material:
    """Replay what is not replayed yet, and gather everything.

    :param result: of an earlier replay; None: ``recording`` is replayed here
    :param recording: what the report is about, None where it is not available
    :param absent: why it is not
    :param revisions: none, the one to check it against, or that and one more to see where the two differ
    :param data: with first bytes of objects that differ, which may be a page's own
    :param base: recordings whose times are shown next to ``patched``; none of both for no such comparison
    :raises BadInput: for what the replay, the measures or the second revision cannot be made of
    """
    chosen = revisions[0][1] if revisions else None
    if result is None:
        assert recording is not None
        result = replay(recording, chosen, data=data, progress=progress)
        if result.verdict == "FAIL":
            result.explained_by = others(recording, result)
    if not data:
        result = without_bytes(result)
    out = Material(result, recording, absent, revision=revisions[0][0] if revisions else result.revision)
    kind = chosen if chosen is not None else result.revision
    if recording is not None:
        out.recorded = look(recording, progress)
        if isinstance(kind, str) and kind not in REVISIONS:
            out.uncharted = f"revision {kind} is not a shipped one; name its file with --revision FILE.py:{kind}"
        elif not result.events:
            out.uncharted = "no event was replayed" + (f", as {result.reasons[0]}" if result.reasons else "")
        else:
            out.course = course(recording, kind, [(each.number, each.event) for each in out.recorded.snapshots],
                                result.events, progress)
    if len(revisions) == 2:
        if recording is None:
            raise BadInput(result.recording, "", f"{absent}, which a second revision needs", "give the recording")
        out.parting = _part(recording, revisions, progress)
    if base:
        out.regression = regress(base, patched, progress=progress)
    return out


def _part(recording: Recording, revisions: Sequence[Named], progress: Progress | None) -> Parting:
    pairs = [(kind.__name__, kind) if isinstance(kind, type) else (kind, REVISIONS[kind])
             for _, kind in revisions]
    total = len(recording)
    return lockstep.run_both(recording, pairs[0], pairs[1],
                progress=None if progress is None else lambda event: progress("running both", event, total))


def sides(recordings: Sequence[Recording],
          patched: Sequence[Recording]) -> tuple[list[Recording], list[Recording], str]:
    """Return the runs of base and patched, and how they were distinguished.

    :param recordings: as named, the report's own first
    :param patched: those that were named as such; where none was, it is those of another kernel or compressor than the
        first, or, where there is none of those either, all but the first
    """
    if patched:
        return list(recordings), list(patched), ""
    if len(recordings) < 2:
        return [], [], ""
    mine = _kind(recordings[0])
    base = [each for each in recordings if _kind(each) == mine]
    other = [each for each in recordings if _kind(each) != mine]
    if other:
        return base, other, (f"recordings of {' with '.join(mine)} are taken as the base's, the others as the "
                             f"patched kernel's")
    return base[:1], base[1:], ("all recordings name one kernel and compressor: the first is taken as the base's, the "
                                "others as the patched kernel's")


def _kind(recording: Recording) -> tuple[str, str]:
    kernel = recording.manifest["kernel"]
    return (str(kernel.get("release") or kernel_release(recording) or "an unnamed kernel"),
            str(recording.manifest["config"].get("compressor") or "an unnamed compressor"))
