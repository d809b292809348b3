# SPDX-License-Identifier: GPL-2.0-or-later
"""Which branches of a revision replays came to: what a verdict saw, and what it did not (:mod:`model.branches`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from replay.verdict.result import Result

__all__ = ["covered", "missing", "only_one", "seen", "sentence", "summed"]


def covered(results: Iterable[Result]) -> dict[str, dict[str, int]]:
    """Return, by revision, how often each of its branches was taken in all results together, 0 included."""
    return summed((result.revision, result.branches) for result in results)


def summed(counts: Iterable[tuple[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """Return the sums of (revision, branch -> times) by revision."""
    out: dict[str, dict[str, int]] = {}
    for revision, branches in counts:
        sums = out.setdefault(revision, dict.fromkeys(branches, 0))
        for name, times in branches.items():
            sums[name] = sums.get(name, 0) + times
    return out


def missing(branches: Mapping[str, int]) -> list[str]:
    """Return the branches that were never taken."""
    return [name for name, times in branches.items() if not times]


def sentence(revision: str, branches: Mapping[str, int]) -> str:
    """Return in one line how much of a revision was seen: ``18 of 68 branches of mainline-7.2 occurred``."""
    return f"{sum(times > 0 for times in branches.values())} of {len(branches)} branches of {revision} occurred"


def only_one(first: Mapping[str, int], second: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Return the branches that both revisions have and only the first side took, and those that only the second did."""
    both = [name for name in first if name in second]
    return ([name for name in both if first[name] and not second[name]],
            [name for name in both if second[name] and not first[name]])


def seen(names: tuple[str, str], branches: tuple[Mapping[str, int], Mapping[str, int]]) -> str:
    """Return in one line how much of two revisions was seen, and which branches that both have only one took."""
    parts = [sentence(name, taken) for name, taken in zip(names, branches, strict=True)]
    for name, only in zip(names, only_one(*branches), strict=True):
        if only:
            parts.append(f"only {name} came to {', '.join(only)}")
    return "; ".join(parts)
