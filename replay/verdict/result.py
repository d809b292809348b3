# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a replay: one verdict, its checks, its divergences, the reasons why it is not PASS."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

from replay.reference.checks import Divergence

__all__ = ["EXIT", "CheckResult", "Result"]

#: verdict -> exit status (kselftest's 4 for SKIP)
EXIT: Final = {"PASS": 0, "FAIL": 1, "UNDECIDED": 3, "SKIP": 4}


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome: ``grade`` is ``exact``, ``modelled`` or ``not captured``, ``reason`` says why.

    Of those ``different`` as many as ``following`` may be consequences of an earlier difference, of whatever check.
    """

    id: str
    compared: int
    different: int
    grade: str
    reason: str
    following: int = 0

    @property
    def independent(self) -> int:
        """Differences that follow from no earlier one."""
        return self.different - self.following

    @property
    def differences(self) -> str:
        """Return them for people: those of their own, and behind a plus those that may follow from another."""
        return f"{self.independent:,}" + (f" +{self.following:,}" if self.following else "")


@dataclass
class Result:
    """What a replay found.

    ``reasons`` says in sentences why the verdict is not PASS; ``explained`` counts events by how they were
    explained; ``seconds`` is wall-clock time by part.
    """

    verdict: str
    recording: str
    revision: str
    mirrors: str
    kernel: str
    compressor: str
    events: int
    checks: list[CheckResult]
    divergences: list[Divergence]
    reasons: list[str] = field(default_factory=list)
    explained: dict[str, int] = field(default_factory=dict)
    unexplained: int = 0
    notes: list[str] = field(default_factory=list)
    #: shipped revisions that predict the first divergence's event and what follows; None: not tried (:func:`others`)
    explained_by: list[str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    #: ``fast`` or ``reference``, and how many events were confirmed by compiled code
    engine: str = "reference"
    compiled: int = 0
    #: branch of the revision -> how often the replay took it (:mod:`model.branches`); what a verdict did not see is 0
    branches: dict[str, int] = field(default_factory=dict)
    #: what was taken from the recording and is not judged, and what no event of it shows
    #: (:mod:`replay.reference.answers`)
    taken: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """The command's exit status."""
        return EXIT[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""
        plain = dataclasses.asdict(self)
        for each in plain["divergences"]:
            # As in a manifest: the key is there where it says something.
            if not each["stamps"]:
                del each["stamps"]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Result:
        """Return the result of which :meth:`as_dict`, or JSON made of that, is given; it reads the same in a report.

        The ``schema`` that ``--json`` puts first may be there.
        """
        plain = {key: value for key, value in plain.items() if key != "schema"}
        divergences = [Divergence(**{**each, "path": tuple((name, start) for name, start in each["path"]),
                                     "context": tuple(each["context"])}) for each in plain["divergences"]]
        return cls(**{**plain, "checks": [CheckResult(**each) for each in plain["checks"]], "divergences": divergences})
