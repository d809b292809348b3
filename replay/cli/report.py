# SPDX-License-Identifier: GPL-2.0-or-later
"""``zreplay report``: a result as one HTML file to read, mail or print."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from model.revisions import REVISIONS
from replay.cli.revisions import parting_status
from replay.cli.terminal import steps
from replay.formats.subtests import one_line
from replay.report.resultfile import fits, load_result
from replay.report.story import parting_sentence, regression_sentence
from replay.tools.requirements import need
from replay.userrev.revision import load_revision
from replay.verdict.result import Result
from replay.verdict.setup import kernel_release
from traces.errors import BadInput
from traces.recording import Recording
from traces.suggestion import meant

__all__ = ["add_parser"]

#: The worst one is the command's: FAIL (1), UNDECIDED (3), SKIP (4), PASS (0).
_WORSE = (0, 4, 3, 1)


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report", help="a result as an HTML page: checks, first divergence, pictures",
        description="Write what a replay found as one HTML file that needs no network and no scripts. With two "
                    "revisions it also shows where they differ on the recording, with two or more recordings the times "
                    "of base and patched side by side. Exit status: that of replay and regress: 0 PASS, 1 FAIL (or two "
                    "revisions part, or the patched kernel is worse), 2 unreadable, 3 UNDECIDED.")
    parser.add_argument("recording", metavar="RESULT|REC", help="a file that 'zreplay replay --json' wrote, or a "
                        "recording, which is replayed")
    parser.add_argument("more", metavar="REC", nargs="*", help="further recordings, for times side by side")
    parser.add_argument("--patched", nargs="+", metavar="REC", default=[], help="recordings of the patched kernel; by "
                        "default those of another kernel or compressor than the first")
    parser.add_argument("--revision", action="append", metavar="R", default=[], help="a shipped name or FILE.py:CLASS; "
                        "given twice: replay against the first, and show where the second differs from it")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the HTML file to write")
    parser.add_argument("--data", action="store_true", help="with first bytes of objects written, too: they may be a "
                        "page's own")
    parser.add_argument("--figures", metavar="DIR", help="write the pictures as SVG and PNG too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Gather, draw, write."""
    output = _output(arguments.output)
    need("matplotlib", "report", "report")
    names: list[str] = arguments.revision
    if len(names) > 2:
        raise BadInput("--revision", "", f"{len(names)} are given", "give one, or two to see where they differ")
    revisions = [(name, _loaded(name)) for name in names]
    result, recording, absent = _subject(arguments.recording, revisions[0] if revisions else None)
    more, patched = ([Recording(path) for path in paths] for paths in (arguments.more, arguments.patched))
    # Drawing takes a second to load, which no other verb should wait for.
    from replay.report.page import page
    from replay.report.pictures import pictures, write_figures, write_file
    from replay.report.reportdata import gather, sides

    if recording is None and (more or patched):
        raise BadInput(arguments.recording, "", f"{absent}, so it has no times to show next to others'",
                       "name the recording itself")
    base, against, how = sides([*([recording] if recording is not None else []), *more], patched)
    with steps() as progress:
        material = gather(result, recording, absent, revisions, base, against, progress, data=arguments.data)
    material.notes += [note for note in (how, absent and f"Pictures are left out: {absent}") if note]
    material.given = _given(arguments)
    made = pictures(material)
    content = page(material, made).encode()
    files = write_figures(Path(arguments.figures), made) if arguments.figures else []
    write_file(output, content)
    drawn = sum(hasattr(each, "drawing") for each in made)
    # A result is somebody else's file: a terminal would obey what its texts hold.
    print(f"{material.result.verdict}  {one_line(f'{material.result.recording} against {material.result.revision}')}")
    if material.parting is not None:
        print(parting_sentence(material.parting))
    if material.regression is not None:
        print(regression_sentence(material.regression))
    print(f"{output}: {len(content):,} bytes, {drawn} pictures, {len(made) - drawn} left out: no data for them"
          + (f"; {len(files)} files in {arguments.figures}" if files else ""))
    found = [material.result.exit_status]
    found += [parting_status(material.parting)] if material.parting is not None else []
    found += [material.regression.exit_status] if material.regression is not None else []
    return max(found, key=_WORSE.index)


def _output(text: str) -> Path:
    """Return where to write.

    :raises BadInput: before any work, when that cannot be
    """
    # What a link leads to is replaced, not the link; and nothing but a file: root could, /dev/null.
    path = Path(os.path.realpath(text)) if os.path.islink(text) else Path(text)
    # os.path: a Path asks loudly about names that are too long, and directories that are closed.
    if (os.path.exists(path) and not os.path.isfile(path)) or not os.path.isdir(path.absolute().parent):
        raise BadInput(path, "", "cannot be written: it is not a file, or its directory is not there",
                       "name a file in a directory that is there")
    return path


def _loaded(name: str) -> Any:
    found = load_revision(name)
    if isinstance(found, str) and found not in REVISIONS:
        raise BadInput("--revision", "", f"there is no revision '{name}'{meant(name, REVISIONS)}",
                       f"choose one of {', '.join(REVISIONS)} or FILE.py:CLASS")
    return found


def _subject(text: str, revision: tuple[str, Any] | None) -> tuple[Result | None, Recording | None, str]:
    """Return the result, the recording, or both, and why there is no recording.

    :raises BadInput: for what is neither, or a revision that is not the result's
    """
    path = Path(text)
    if os.path.isdir(path):
        return None, Recording(path), ""
    if not os.path.exists(path):
        raise BadInput(path, "", "does not exist", "name a recording, or a file that 'zreplay replay --json' wrote")
    result = load_result(path)
    named = getattr(revision[1], "__name__", revision[0]) if revision is not None else result.revision
    if named != result.revision:
        raise BadInput(path, "", f"is a result against {result.revision}, not {named}",
                       "leave --revision out, or replay the recording")
    try:
        recording = Recording(result.recording)
    except BadInput:
        return result, None, f"its recording, {result.recording}, is not here to be read"
    other = fits(result, recording, kernel_release(recording))
    return result, (None if other else recording), other


def _given(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the words of this command."""
    words = ["report", arguments.recording, *arguments.more]
    words += [word for name in arguments.revision for word in ("--revision", name)]
    words += ["--patched", *arguments.patched] if arguments.patched else []
    words += ["--data"] if arguments.data else []
    words += ["--figures", arguments.figures] if arguments.figures else []
    return (*words, "-o", arguments.output)
