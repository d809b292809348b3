# SPDX-License-Identifier: GPL-2.0-or-later
"""The command lines that show again what a report shows."""

from __future__ import annotations

import itertools
import shlex

from replay.report.reportdata import Material

__all__ = ["commands"]

#: Events shown before and after a divergence's operation.
_AROUND = 5


def commands(material: Material) -> list[tuple[str, str]]:
    """Return (what for, command line); words are quoted for a shell."""
    result = material.result
    recording = result.recording
    out = [("the verdict", _line("replay", recording, "--revision", material.revision)),
           ("what the recording holds", _line("info", recording))]
    if result.divergences:
        first = result.divergences[0]
        start = min([first.event, *(begun for _, begun in first.path)])
        out.append(("the events of that operation", _line("show", recording, "--from", max(0, start - _AROUND), "--to",
                                                          first.event + _AROUND + 1)))
        out.append(("all differences, not only the first",
                    _line("replay", recording, "--revision", material.revision, "--keep-going")))
    if material.parting is not None:
        out.append(("where the two revisions differ", _line("regress", recording, *_revisions(material))))
    if material.regression is not None:
        base, patched = ([run.recording for run in runs]
                         for runs in (material.regression.base, material.regression.patched))
        out.append(("base and patched", _line("regress", "--base", *base, "--patched", *patched)))
    if material.given:
        out.append(("this report", _line(*material.given)))
    return out


def _revisions(material: Material) -> list[str]:
    """Return both revisions as the command line named them."""
    given = list(material.given)
    words = [value for option, value in itertools.pairwise(given) if option == "--revision"]
    names = words if len(words) == 2 else list(material.parting.names if material.parting is not None else ())
    return [word for name in names for word in ("--revision", name)]


def _line(*words: object) -> str:
    return shlex.join(["zreplay", *(str(word) for word in words)])
