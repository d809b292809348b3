# SPDX-License-Identifier: GPL-2.0-or-later
"""A job is one recording against one revision; what becomes of it is an outcome.  Both travel as plain data."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from model.crypto import InexactLibrary, UnsupportedCompressor, compressor_for
from model.revisions import REVISIONS
from model.zswap import Zswap
from replay.reference.kernelrevision import revision_of_kernel
from replay.reference.predictions import cache_file
from replay.userrev.revision import load_revision
from replay.verdict.result import Result
from replay.verdict.run import others, replay
from traces import jsontext
from traces.errors import BadInput
from traces.files import read_input
from traces.record.exits import FAULT, TRACEBACK, without_bytes
from traces.record.oserrors import next_step
from traces.recording import Recording

__all__ = ["LOCAL", "NOT_DONE", "UNREADABLE", "ReplayJob", "JobOutcome", "attempt", "make_jobs", "not_done", "safely",
           "sources"]

#: what an outcome without a result is called
UNREADABLE: Final = "unreadable"
NOT_DONE: Final = "not done"
#: The address that stands for a Dask cluster of this machine's own.
LOCAL: Final = "local"


@dataclass(frozen=True)
class ReplayJob:
    """One recording, as the user named it, against one revision (None: the one that mirrors its kernel).

    ``options`` are further keyword arguments of :func:`replay.verdict.run.replay`, as JSON knows them (``checks`` as a
    list); ``after`` is the number of the job that compresses the same pages: this one finds its results.
    """

    number: int
    recording: str
    revision: str | None
    options: dict[str, Any] = field(default_factory=dict)
    after: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @property
    def against(self) -> str:
        """The revision for people."""
        return self.revision or "the revision that mirrors its kernel"


@dataclass(frozen=True)
class JobOutcome:
    """What became of job ``number``: a result, or why there is none.

    ``kind`` is ``""``, :data:`UNREADABLE` (bad input) or :data:`NOT_DONE`; ``error`` the sentence for it; ``fault``:
    only a mistake in zreplay explains it.
    """

    number: int
    result: Result | None
    kind: str = ""
    error: str = ""
    fault: bool = False

    @property
    def verdict(self) -> str | None:
        """The verdict, None where there is none."""
        return self.result.verdict if self.result is not None else None

    @property
    def exit_status(self) -> int:
        """The command's exit status for this job alone; what was not done is as undecided as a verdict can be."""
        if self.result is not None:
            return self.result.exit_status
        if self.fault:
            return FAULT
        return 2 if self.kind == UNREADABLE else 3

    def to_json(self) -> str:
        """Return all of it in one line; what JSON does not know goes as its text, as in ``--json``."""
        result = self.result.as_dict() if self.result is not None else None
        return json.dumps({"number": self.number, "result": result, "kind": self.kind, "error": self.error,
                           "fault": self.fault},
                          default=str)

    @classmethod
    def from_json(cls, line: str | bytes) -> JobOutcome:
        """Return what :meth:`to_json` wrote."""
        plain = json.loads(line)
        result = Result.from_dict(plain["result"]) if plain["result"] is not None else None
        return cls(plain["number"], result, plain["kind"], plain["error"], plain["fault"])


def make_jobs(recordings: Sequence[str], revisions: Sequence[str | None],
              loaded: Mapping[str | None, str | type[Zswap] | None] | None = None,
              options: dict[str, Any] | None = None) -> list[ReplayJob]:
    """Return a job for every recording and revision, recording by recording.

    Where the same compressor has to run over the same pages for several jobs, the later ones come ``after`` the first,
    so that it runs once, and for the job for which it would run if they all were done in order.

    :param loaded: what :func:`~replay.userrev.revision.load_revision` gave for each revision, where that was called
    :param options: as in :class:`ReplayJob`
    :raises BadInput: for a revision that cannot be loaded
    """
    loaded = loaded if loaded is not None else {revision: load_revision(revision) for revision in revisions}
    options = options or {}
    jobs: list[ReplayJob] = []
    first: dict[tuple[str, str], int] = {}
    places = Counter(os.path.realpath(recording) for recording in recordings)
    for recording in recordings:
        several = options.get("pages", True) and places[os.path.realpath(recording)] * len(revisions) > 1
        for revision in revisions:
            number = len(jobs)
            key = _pages_to_do(recording, loaded[revision]) if several else None
            jobs.append(ReplayJob(number, recording, revision, options, first.get(key) if key is not None else None))
            if key is not None:
                first.setdefault(key, number)
    return jobs


def _pages_to_do(path: str, revision: str | type[Zswap] | None) -> tuple[str, str] | None:
    """Return the recording and the compressor that a job has to run over its pages, None where it runs none.

    Looks at nothing but the manifest.  The replay checks that: its faults do not matter here.
    """
    file = Path(path) / "manifest.json"
    try:
        data = read_input(file, jsontext.MOST_BYTES)
        if len(data) > jsontext.MOST_BYTES:
            return None
        manifest = jsontext.parse(data)
        if not manifest["pages"]["with_bytes"]:
            return None
        if revision is None:
            revision = revision_of_kernel(manifest["kernel"])
        kind = revision if isinstance(revision, type) else REVISIONS[str(revision)]
        compressor = compressor_for(manifest["config"]["compressor"], kind.kernel_line)
        kept = cache_file(Path(path), manifest, compressor)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UnsupportedCompressor,
            InexactLibrary):
        return None
    return None if kept is not None and kept.is_file() else (os.path.realpath(path), compressor.ident)


def attempt(job: ReplayJob, loaded: str | type[Zswap] | None = None, *, at: str | None = None,
            progress: Callable[[str, int, int], None] | None = None) -> JobOutcome:
    """Replay a job's recording, here and now; bad input is an outcome, any other exception is raised.

    :param loaded: its revision, where it is loaded already
    :param at: where the recording is opened, if not where the job says
    :param progress: called with (what, done, total)
    """
    options = dict(job.options)
    if options.get("checks") is not None:
        options["checks"] = set(options["checks"])
    try:
        recording = Recording(at or job.recording)
        revision = loaded if loaded is not None else load_revision(job.revision)
        result = replay(recording, revision, progress=progress, **options)
        if result.verdict == "FAIL":
            result.explained_by = others(recording, result, pages=bool(options.get("pages", True)))
    except BadInput as problem:
        sentence = str(problem)
        return JobOutcome(job.number, None, UNREADABLE, sentence.replace(at, job.recording) if at else sentence)
    if at:
        result.recording = str(Path(job.recording))
    return JobOutcome(job.number, result)


def safely(job: ReplayJob, loaded: str | type[Zswap] | None = None, *, at: str | None = None,
           progress: Callable[[str, int, int], None] | None = None) -> JobOutcome:
    """Do the same, but let no exception end the other jobs: a sentence is the outcome."""
    try:
        return attempt(job, loaded, at=at, progress=progress)
    except MemoryError:
        return not_done(job, "ran out of memory", "run fewer at the same time, or give it more")
    except Exception as problem:
        if os.environ.get(TRACEBACK):
            print(f"zreplay: {job.recording} against {job.against}:", file=sys.stderr)
            sys.stderr.write(without_bytes(traceback.format_exc()))
        if isinstance(problem, OSError) and problem.errno:
            return not_done(job, f"met '{problem.strerror}' at {problem.filename or 'a file'}",
                            next_step(problem.errno, "mend that, try again"))
        return replace(not_done(job, f"raised {type(problem).__name__} ({without_bytes(str(problem))})",
                                "this is a fault of zreplay itself: report it where you have zreplay from, with what "
                                f"{TRACEBACK}=1 prints"),
                       fault=True)


def not_done(job: ReplayJob, what: str, todo: str) -> JobOutcome:
    """Return the outcome of a job that came to no end."""
    sentence = BadInput(job.recording, "", f"its replay against {job.against} {what}", todo)
    return JobOutcome(job.number, None, NOT_DONE, str(sentence))


@functools.cache
def sources() -> str:
    """Return a digest of the project's own Python files: equal ones replay equally."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in ("model", "replay", "traces"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()
