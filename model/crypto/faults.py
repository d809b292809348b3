# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault plan: which call fails with which error, read from a small JSON text.

    {"faults": [{"at": "compress", "page": 9, "error": "-EIO", "leave_lengths": true},
                {"at": "descriptor", "every": 100, "error": "EAGAIN", "times": 3}]}

A rule names a site and at most one of: `call` (the Nth time the site is asked, from 1), `page` (the caller's
number of a page), `every` (each Nth time).  Without any of these it always fits.  `times` limits how often it
strikes (default: once for `call`, else no limit).  The first rule that fits strikes.  Nothing is random: the same
plan on the same calls strikes at the same places, and rules that never struck can be listed.

==================  ======================================================================================
site                what fails
==================  ======================================================================================
compress            the algorithm's compress, before it does anything
decompress          its decompress
descriptor          idxd_alloc_desc: mainline returns the error, as posted counts it as a wq without room
submit              idxd_submit_desc
complete            the hardware's completion record of a job
verify              the job that checks a compression (verify_compress)
dma_map             dma_map_sg of a source or destination
bounce_alloc        7.3: the bounce page for a source of several entries
zs_malloc           zsmalloc's allocation of an object
entry_alloc         a zswap entry, allocated alone
entry_alloc_bulk    zswap entries, allocated in bulk; `got` says how many were given (default 0)
xa_store            the insertion of an entry
kmalloc             an allocation of a pool's per-CPU contexts (:mod:`model.revisions.pool_create`)
==================  ======================================================================================

The model of zswap asks the last five; the crypto layer asks the others.  For `complete` the error may also be
`ANALYTICS_ERROR` (a decompression the device gives up, so that the driver falls back to software) or
`NO_COMPLETION` (the device never answers).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .. import errno

__all__ = ["ANALYTICS_ERROR", "ERRORS", "NO_COMPLETION", "SITES", "Fault", "FaultPlan", "Rule"]

SITES: Final = (
    "bounce_alloc",
    "complete",
    "compress",
    "decompress",
    "descriptor",
    "dma_map",
    "entry_alloc",
    "entry_alloc_bulk",
    "kmalloc",
    "submit",
    "verify",
    "xa_store",
    "zs_malloc",
)
#: errno name -> the negative number kernel functions return.
ERRORS: Final[Mapping[str, int]] = {name: getattr(errno, name) for name in errno.__all__}

#: Completion records that are not an errno; no errno has their numbers.
ANALYTICS_ERROR: Final = -10_001
NO_COMPLETION: Final = -10_002
_RECORDS: Final = {"ANALYTICS_ERROR": ANALYTICS_ERROR, "NO_COMPLETION": NO_COMPLETION}

_MAX_TEXT = 1 << 20  # characters of JSON
_MAX_RULES = 10_000
_MAX_NUMBER = 1 << 48  # calls and pages; a swap offset fits
_KEYS = ("at", "call", "page", "every", "error", "leave_lengths", "times", "got")


@dataclass(frozen=True)
class Fault:
    """A fault that strikes: `error` (negative errno, or a completion record's number) and what it leaves alone."""

    site: str
    error: int
    leave_lengths: bool = False
    """The error is returned before any length is written: stale ones stay."""
    got: int = 0
    """entry_alloc_bulk: how many entries the bulk allocation gives."""


@dataclass
class Rule:
    """One entry of the plan, with how often it struck."""

    fault: Fault
    call: int | None = None
    page: int | None = None
    every: int | None = None
    times: int | None = None
    used: int = field(default=0, compare=False)

    def fits(self, call: int, page: int | None, units: int) -> bool:
        """Whether the rule strikes at the site's `call`-th call, which works on `units` pages from `page` on."""
        if self.times is not None and self.used >= self.times:
            return False
        if self.call is not None:
            return call == self.call
        if self.every is not None:
            return call % self.every == 0
        if self.page is not None:
            return page is not None and page <= self.page < page + units
        return True

    def __str__(self) -> str:
        where = [f"{key} {value}" for key in ("call", "page", "every") if (value := getattr(self, key)) is not None]
        return f"{self.fault.site} {' '.join(where) or 'always'}: {_name(self.fault.error)}"


class FaultPlan:
    """The rules of one run; it counts calls and strikes, so a run needs a fresh one (:meth:`fresh`)."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = list(rules)
        self.calls: dict[str, int] = {}

    @classmethod
    def from_json(cls, text: str) -> FaultPlan:
        """Read a plan; ValueError with one sentence that names the rule and the field."""
        if len(text) > _MAX_TEXT:
            raise ValueError(f"the fault plan has {len(text)} characters: {_MAX_TEXT} are allowed")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the fault plan is not JSON: {error}") from None
        return cls.from_data(data)

    @classmethod
    def from_data(cls, data: object) -> FaultPlan:
        """The same of parsed JSON: a list of rules, or an object with that list as `faults`."""
        if isinstance(data, dict):
            extra = sorted(set(data) - {"faults"})
            if extra:
                raise ValueError(f"the fault plan has an unknown field {extra[0]!r}: it has only faults")
            data = data.get("faults")
        if not isinstance(data, list):
            raise ValueError("the fault plan is not a list of rules, nor an object with one as faults")
        if len(data) > _MAX_RULES:
            raise ValueError(f"the fault plan has {len(data)} rules: {_MAX_RULES} are allowed")
        return cls(_rule(number, item) for number, item in enumerate(data, 1))

    def to_data(self) -> dict[str, list[dict[str, Any]]]:
        """The plan as JSON values; `from_data` reads them back."""
        rules = []
        for rule in self.rules:
            item: dict[str, Any] = {"at": rule.fault.site, "error": _name(rule.fault.error)}
            if rule.fault.leave_lengths:
                item["leave_lengths"] = True
            if rule.fault.got:
                item["got"] = rule.fault.got
            item |= {k: v for k in ("call", "page", "every", "times") if (v := getattr(rule, k)) is not None}
            rules.append(item)
        return {"faults": rules}

    def fresh(self) -> FaultPlan:
        """The same plan with every counter at 0."""
        return FaultPlan.from_data(self.to_data())

    def hit(self, site: str, *, page: int | None = None, units: int = 1) -> Fault | None:
        """Count one call of `site`, which works on `units` pages from `page` on; the fault that strikes, if any.

        ValueError for a site that is not in `SITES`: a misspelt one would never strike.
        """
        if site not in SITES:
            raise ValueError(f"no fault site is called {site!r}: known are {', '.join(SITES)}")
        call = self.calls[site] = self.calls.get(site, 0) + 1
        for rule in self.rules:
            if rule.fault.site == site and rule.fits(call, page, units):
                rule.used += 1
                return rule.fault
        return None

    def unused(self) -> list[str]:
        """One line per rule that never struck, with how often its site was asked."""
        return [
            f"{rule} (never struck: the site was asked {self.calls.get(rule.fault.site, 0)} times)"
            for rule in self.rules
            if not rule.used
        ]


def _name(error: int) -> str:
    names = {number: name for name, number in _RECORDS.items()}
    names |= {number: f"-{name}" for name, number in ERRORS.items()}
    return names.get(error, str(error))


def _rule(number: int, item: object) -> Rule:
    where = f"rule {number} of the fault plan"
    if not isinstance(item, dict):
        raise ValueError(f"{where} is not an object")
    extra = sorted(str(key) for key in item if key not in _KEYS)
    if extra:
        raise ValueError(f"{where} has an unknown field {extra[0][:40]!r}: known are {', '.join(_KEYS)}")
    site = item.get("at")
    if site not in SITES:
        raise ValueError(f"{where}: at is {_short(site)}, which is not one of {', '.join(SITES)}")
    chosen = [key for key in ("call", "page", "every") if item.get(key) is not None]
    if len(chosen) > 1:
        raise ValueError(f"{where} has both {chosen[0]} and {chosen[1]}: one of them")
    leave = item.get("leave_lengths", False)
    if not isinstance(leave, bool):
        raise ValueError(f"{where}: leave_lengths is {_short(leave)}, neither true nor false")
    if leave and site not in ("compress", "decompress"):
        raise ValueError(f"{where}: leave_lengths is for compress and decompress, not for {site}")
    if "got" in item and site != "entry_alloc_bulk":
        raise ValueError(f"{where}: got is for entry_alloc_bulk, not for {site}")
    call = _count(item, "call", where, 1)
    times = _count(item, "times", where, 1)
    if times is None and call is not None:
        times = 1
    fault = Fault(site, _error(item.get("error"), site, where), leave, _count(item, "got", where, 0) or 0)
    return Rule(fault, call, _count(item, "page", where, 0), _count(item, "every", where, 1), times)


def _error(value: object, site: str, where: str) -> int:
    if isinstance(value, str):
        if value in _RECORDS:
            if site != "complete":
                raise ValueError(f"{where}: error {value} is for complete, not for {site}")
            return _RECORDS[value]
        known = ERRORS.get(value.removeprefix("-"))
        if known is not None:
            return known
    raise ValueError(f"{where}: error is {_short(value)}, which is not one of -{', -'.join(sorted(ERRORS))}")


def _count(item: Mapping[str, object], key: str, where: str, least: int) -> int | None:
    value = item.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_NUMBER:
        raise ValueError(f"{where}: {key} is {_short(value)}, no whole number from {least} to {_MAX_NUMBER}")
    return value


def _short(value: object) -> str:
    # repr() of a huge int raises, of a huge string floods the sentence.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 64:
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
