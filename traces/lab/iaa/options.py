# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``--iaa`` says: ``devices=2,wqs=2,engines=8,depth=128,mode=async_irq,verify=0,version=1``."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from traces.lab.errors import LabError
from traces.lab.iaa.registers import DESCRIPTORS, ENGINES, QUEUES

__all__ = ["MODES", "IaaOptions", "nanoseconds"]

#: sync_mode of the crypto driver (iaa-crypto.rst).
MODES: Final = ("sync", "async", "async_irq")
#: Name -> lowest, highest, of the options that are whole numbers.
_RANGES: Final = {
    "devices": (1, 8),
    "wqs": (1, QUEUES),
    "engines": (1, ENGINES),
    "depth": (1, DESCRIPTORS),
    "verify": (0, 1),
    "version": (1, 2),
}
_TIMES: Final = ("service", "per_kib", "rebind")
_UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_MOST: Final = 60 * _UNITS["s"]


def nanoseconds(text: str) -> int | None:
    """Read a time with its unit (``250ns``, ``2.5us``, ``10ms``, ``1s``), of a minute at most; None where it is
    none."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s)", text)
    if found is None or len(text) > 20:
        return None
    value = round(float(found[1]) * _UNITS[found[2]])
    return value if value <= _MOST else None


@dataclass(frozen=True)
class IaaOptions:
    """What the guest's devices are, and what its driver is set to.

    ``depth`` is how many descriptors a device's queues hold together, shared evenly; ``wqs`` and ``engines`` are per
    device.  ``mode`` and ``verify`` are the driver's settings, which the guest writes.  A descriptor takes an engine
    ``service`` nanoseconds and ``per_kib`` more for each 1024 bytes of its source; with 0 for both, it is done as
    soon as it is submitted.  Every ``rebind`` nanoseconds while the guest works, a queue is taken away from its driver,
    in turn, and given back as long after that; 0: none is.
    """

    devices: int = 1
    wqs: int = 1
    engines: int = 8
    depth: int = 128
    mode: str = "sync"
    verify: int = 1
    version: int = 1
    service: int = 0
    per_kib: int = 0
    rebind: int = 0

    @property
    def queue_size(self) -> int:
        """Descriptors of each queue."""
        return self.depth // self.wqs

    @classmethod
    def parse(cls, text: str) -> IaaOptions:
        """Read the option's text; what it does not name stays as it is by default.

        :raises LabError: for an unknown word or a value out of range
        """
        given: dict[str, Any] = {}
        names = [one.name for one in fields(cls)]
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = part.partition("=")
            if name not in names:
                raise LabError(f"--iaa: '{name}' is not an option; write some of {', '.join(names)}")
            if name in given:
                raise LabError(f"--iaa: {name} is given twice; leave one out")
            if not equals:
                raise LabError(f"--iaa: {name} has no value; write {name}=VALUE")
            given[name] = cls._value(name, value)
        options = cls(**given)
        if options.wqs > options.depth:
            raise LabError(
                f"--iaa: depth={options.depth} cannot be shared by wqs={options.wqs}; give each queue a descriptor"
            )
        return options

    @staticmethod
    def _value(name: str, value: str) -> int | str:
        if name == "mode":
            if value not in MODES:
                raise LabError(f"--iaa: mode '{value}' does not exist; write {', '.join(MODES[:-1])} or {MODES[-1]}")
            return value
        if name in _TIMES:
            time = 0 if value == "0" else nanoseconds(value)
            if time is None:
                raise LabError(
                    f"--iaa: {name}={value} is not a time of a minute at most; write a number with ns, us, ms or s"
                )
            return time
        low, high = _RANGES[name]
        if not re.fullmatch(r"[0-9]{1,6}", value) or not low <= int(value) <= high:
            raise LabError(f"--iaa: {name}={value} is not a number from {low} to {high}; write one")
        return int(value)

    def text(self) -> str:
        """Return all of it as text that :meth:`parse` reads."""
        return ",".join(
            f"{name}={f'{value}ns' if name in _TIMES and value else value}" for name, value in asdict(self).items()
        )
