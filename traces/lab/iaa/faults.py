# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan of ``--iaa-faults``: which descriptors go wrong, and how.

One rule a line: words that say which descriptors, a colon, words that say what happens.  ``#`` begins a comment.  The
first rule that a descriptor matches, in the order of the file, is the one that happens to it; every rule counts what
its words match.

    operation=compress nth=100: status=analytics error=unrecoverable_output_overflow
    device=0 queue=1 every=7: late=2ms
    operation=decompress bytes=4d5a after=1s times=3: lost
    operation=compress nth=500: halt=software

Which: ``operation``, ``device``, ``queue``, ``bytes`` (the source begins with), ``after`` and ``before`` (time since
the device was first enabled); then of those that match: ``nth`` (only that one), or ``every``, ``from`` (not before
the n-th), ``times`` (at most).

What: ``status`` and ``error`` (a name of :class:`Status`, :class:`Analytics` in lower case, or a number), ``length``
(of the output: N, +N, -N), ``crc=wrong``, ``page-fault`` (source, destination, aecs), ``lost``, ``late``, ``reorder``
(ends behind the next N of its queue), ``silent`` (no interrupt), ``exhaust`` (nothing of the queue ends for a time),
``halt`` (software, flr, warm, cold), ``reset``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from traces.lab.errors import LabError
from traces.lab.iaa.descriptors import Analytics, Opcode, Status
from traces.lab.iaa.options import nanoseconds
from traces.lab.iaa.registers import QUEUES, HaltReset

__all__ = ["MAX_PREFIX", "IaaFaultPlan", "IaaRule", "Where"]

#: The longest ``bytes`` of a rule.
MAX_PREFIX: Final = 16
_MOST_RULES: Final = 1000
_MOST_TEXT: Final = 1 << 20
_OPERATIONS: Final = {one.name.lower(): int(one) for one in Opcode}
_STATUSES: Final = {one.name.lower(): int(one) for one in Status} | {"analytics": int(Status.ANALYTICS_ERROR)}
_ERRORS: Final = {one.name.lower(): int(one) for one in Analytics}
_HALTS: Final = {one.name.lower(): int(one) for one in HaltReset}
_PLACES: Final = ("source", "destination", "aecs")
_WHICH: Final = ("operation", "device", "queue", "bytes", "after", "before", "nth", "every", "from", "times")
_WHAT: Final = (
    "status",
    "error",
    "length",
    "crc",
    "page-fault",
    "lost",
    "late",
    "reorder",
    "silent",
    "exhaust",
    "halt",
    "reset",
)
_BARE: Final = ("lost", "silent", "reset")


class _Bad(Exception):
    """What is wrong with a rule, without its place."""


@dataclass(frozen=True)
class Where:
    """A descriptor as rules see it; ``since`` is nanoseconds since its device was first enabled."""

    operation: int
    device: int
    queue: int
    since: int
    first: bytes = b""


@dataclass(eq=False)
class IaaRule:
    """One line.  None stands for what it does not say; ``line`` is its number, which the job log names.

    ``length`` is (how, number of bytes): "=" for that length, "+" or "-" for a difference.
    """

    line: int
    operation: int | None = None
    device: int | None = None
    queue: int | None = None
    prefix: bytes = b""
    after: int = 0
    before: int | None = None
    nth: int | None = None
    every: int = 1
    first: int = 1
    times: int | None = None
    status: int | None = None
    error: int | None = None
    length: tuple[str, int] | None = None
    wrong_crc: bool = False
    fault_at: str = ""
    lost: bool = False
    late: int = 0
    reorder: int = 0
    silent: bool = False
    exhaust: int = 0
    halt: int | None = None
    reset: bool = False
    seen: int = field(default=0, compare=False)
    hits: int = field(default=0, compare=False)

    def matches(self, job: Where) -> bool:
        """Look whether the rule is about a descriptor, and count it."""
        if (
            (self.operation is not None and job.operation != self.operation)
            or (self.device is not None and job.device != self.device)
            or (self.queue is not None and job.queue != self.queue)
            or job.since < self.after
            or (self.before is not None and job.since >= self.before)
            or not job.first.startswith(self.prefix)
        ):
            return False
        self.seen += 1
        if self.nth is not None:
            return self.seen == self.nth
        return (
            self.seen >= self.first
            and (self.seen - self.first + 1) % self.every == 0
            and (self.times is None or self.hits < self.times)
        )


class IaaFaultPlan:
    """All rules of a plan, and how often each was met."""

    def __init__(self, rules: list[IaaRule] | None = None) -> None:
        self.rules = rules or []
        #: How many bytes of a source rules look at.
        self.prefix = max((len(rule.prefix) for rule in self.rules), default=0)

    def decide(self, job: Where) -> IaaRule | None:
        """Return the rule that happens to a descriptor."""
        chosen: IaaRule | None = None
        for rule in self.rules:
            if rule.matches(job) and chosen is None:
                rule.hits += 1
                chosen = rule
        return chosen

    @classmethod
    def read(cls, path: Path, devices: int = 8) -> IaaFaultPlan:
        """Read a plan's file.

        :raises LabError: when it cannot be read, or a line is not a rule
        """
        try:
            with path.open("rb") as file:
                raw = file.read(_MOST_TEXT + 1)
        except OSError as problem:
            raise LabError(f"{path}: cannot be read ({problem.strerror}); name a fault plan") from None
        if len(raw) > _MOST_TEXT:
            raise LabError(f"{path}: longer than {_MOST_TEXT >> 20} MiB; name a fault plan")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise LabError(f"{path}: is not text; name a fault plan") from None
        return cls.parse(text, str(path), devices)

    @classmethod
    def parse(cls, text: str, name: str = "fault plan", devices: int = 8) -> IaaFaultPlan:
        """Read a plan.

        :param name: what messages call it
        :param devices: how many devices there are
        :raises LabError: when a line is not a rule
        """
        rules = []
        for number, line in enumerate(text.split("\n"), 1):
            line = line.partition("#")[0].strip()
            if not line:
                continue
            try:
                rules.append(_rule(number, line, devices))
            except _Bad as problem:
                raise LabError(f"{name}, line {number}: {problem}") from None
            if len(rules) > _MOST_RULES:
                raise LabError(f"{name}: more than {_MOST_RULES:,} rules; remove some")
        return cls(rules)


def _rule(number: int, line: str, devices: int) -> IaaRule:
    which, colon, what = line.partition(":")
    if not colon or not what.strip():
        raise _Bad("does not say what happens; write WORDS: WORDS")
    rule = IaaRule(number)
    for words, side in ((which, _WHICH), (what, _WHAT)):
        given = set()
        for word in words.split():
            name, equals, value = word.partition("=")
            if name not in side:
                where = "left of the colon" if side is _WHICH else "right of the colon"
                raise _Bad(f"'{_shown(name)}' is not a word {where}; write some of {', '.join(side)}")
            if name in given:
                raise _Bad(f"{name} is said twice; leave one out")
            given.add(name)
            if bool(equals) == (name in _BARE):
                raise _Bad(
                    f"{name} takes no value; write {name}" if equals else f"{name} has no value; write {name}=VALUE"
                )
            _WORDS[name](rule, name, value, devices)
    _consistent(rule)
    return rule


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:40])


def _number(name: str, value: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
        raise _Bad(f"{name}={_shown(value)} is not a number from {low} to {high:,}; write one")
    return int(value)


def _time(name: str, value: str) -> int:
    found = nanoseconds(value)
    if found is None:
        raise _Bad(f"{name}={_shown(value)} is not a time of a minute at most; write a number with ns, us, ms or s")
    return found


def _named(name: str, value: str, names: dict[str, int], numbers: bool) -> int:
    if value in names:
        return names[value]
    if numbers and re.fullmatch(r"0[xX][0-9a-fA-F]{1,2}|[0-9]{1,3}", value) and int(value, 0) <= 255:
        return int(value, 0)
    more = ", or a number up to 0xff" if numbers else ""
    raise _Bad(f"{name}={_shown(value)} does not exist; write one of {', '.join(names)}{more}")


def _operation(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.operation = _named(name, value, _OPERATIONS, False)


def _device(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.device = _number(name, value, 0, devices - 1)


def _queue(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.queue = _number(name, value, 0, QUEUES - 1)


def _bytes(rule: IaaRule, name: str, value: str, devices: int) -> None:
    if not re.fullmatch(rf"(?:[0-9a-fA-F]{{2}}){{1,{MAX_PREFIX}}}", value):
        raise _Bad(f"bytes={_shown(value)} is not 1 to {MAX_PREFIX} bytes in hexadecimal; write two digits for each")
    rule.prefix = bytes.fromhex(value)


def _after(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.after = _time(name, value)


def _before(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.before = _time(name, value)


_COUNT: Final = 999_999_999


def _nth(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.nth = _number(name, value, 1, _COUNT)


def _every(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.every = _number(name, value, 1, _COUNT)


def _from(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.first = _number(name, value, 1, _COUNT)


def _times(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.times = _number(name, value, 1, _COUNT)


def _status(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.status = _named(name, value, _STATUSES, True)
    if not rule.status:
        raise _Bad("status=0 is what a record has before it is written; write lost")
    if rule.status == Status.SUCCESS:
        raise _Bad("status=success is what happens anyway; write another")


def _error(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.error = _named(name, value, _ERRORS, True)


def _length(rule: IaaRule, name: str, value: str, devices: int) -> None:
    sign, digits = (value[:1], value[1:]) if value[:1] in ("+", "-") and value else ("=", value)
    rule.length = sign, _number(name, digits, 0, 0xFFFFFFF)


def _crc(rule: IaaRule, name: str, value: str, devices: int) -> None:
    if value != "wrong":
        raise _Bad(f"crc={_shown(value)} does not exist; write crc=wrong")
    rule.wrong_crc = True


def _page_fault(rule: IaaRule, name: str, value: str, devices: int) -> None:
    if value not in _PLACES:
        raise _Bad(f"page-fault={_shown(value)} does not exist; write one of {', '.join(_PLACES)}")
    rule.fault_at = value


def _lost(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.lost = True


def _late(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.late = _time(name, value)


def _reorder(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.reorder = _number(name, value, 1, 1000)


def _silent(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.silent = True


def _exhaust(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.exhaust = _time(name, value)


def _halt(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.halt = _named(name, value, _HALTS, False)


def _reset(rule: IaaRule, name: str, value: str, devices: int) -> None:
    rule.reset = True


_WORDS: Final = {
    "operation": _operation,
    "device": _device,
    "queue": _queue,
    "bytes": _bytes,
    "after": _after,
    "before": _before,
    "nth": _nth,
    "every": _every,
    "from": _from,
    "times": _times,
    "status": _status,
    "error": _error,
    "length": _length,
    "crc": _crc,
    "page-fault": _page_fault,
    "lost": _lost,
    "late": _late,
    "reorder": _reorder,
    "silent": _silent,
    "exhaust": _exhaust,
    "halt": _halt,
    "reset": _reset,
}


def _consistent(rule: IaaRule) -> None:
    """Refuse what could never happen, or contradicts itself."""
    if rule.nth is not None and (rule.every != 1 or rule.first != 1 or rule.times is not None):
        raise _Bad("nth names one descriptor; leave every, from and times out")
    if rule.before is not None and rule.before <= rule.after:
        raise _Bad("before is not later than after; write a later time")
    if rule.error is not None and rule.status is None:
        rule.status = int(Status.ANALYTICS_ERROR)
    if rule.status is not None and rule.fault_at:
        raise _Bad("page-fault has its own status; leave status and error out")
    if rule.length is not None and (rule.status is not None or rule.fault_at):
        raise _Bad("length is of a job that succeeds; leave status, error and page-fault out")
    if rule.lost and (rule.late or rule.reorder or rule.silent):
        raise _Bad("lost never ends; leave late, reorder and silent out")
    if rule.halt is not None and rule.reset:
        raise _Bad("halt and reset exclude each other; leave one out")
