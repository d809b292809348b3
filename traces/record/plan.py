# SPDX-License-Identifier: GPL-2.0-or-later
"""Which probe gives which event on the running kernel, or why none does and which checks that costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from traces.events import DRIVER_FUNCTIONS, PROTOTYPES, SOFTWARE_FUNCTIONS

from .btf import Btf
from .names import TracefsNames
from .probes import DRIVER_PAGES, FLAG_BITS, OFFSETS, PAGE_SOURCES, PROBES, Probe

__all__ = ["ProbedKernel", "Planned", "as_json", "describe", "page_plan", "plan", "wanted_names"]

_DEFAULT = TracefsNames.of()
_OFFSET = re.compile(r"\{([a-z0-9_.|]+)\}")
#: Tasks that may be in a function at once whose return is probed, where the definition has to say it: the returns of
#: more tasks are missed.
_TASKS = 256
#: Bytes of a page per event field and fields per event: an event holds at most 3 KiB, a field 64 words.
_PIECE = 512


class ProbedKernel(NamedTuple):
    """What a plan is made from.

    ``traceable``: names in available_filter_functions, None where it cannot be read; ``functions``: names of
    text symbols in /proc/kallsyms; ``btf``: parameters and offsets, None where there is no BTF.
    """

    traceable: set[str] | None
    functions: set[str]
    btf: Btf | None


class Planned(NamedTuple):
    """One event of a plan.

    ``lines``: definitions for ``dynamic_events``, best first; empty where the event cannot be probed, with the
    reason in ``why``; ``checks``: ids of the checks lost with it.
    """

    event: str
    vocabulary: str
    function: str
    lines: tuple[str, ...]
    why: str
    checks: tuple[str, ...]


def wanted_names() -> tuple[set[str], set[str]]:
    """Return the names of (functions, structs and enums) that a plan asks BTF for."""
    members = [*OFFSETS, *(name for probe in PROBES for field in probe.fields for names in _OFFSET.findall(field)
                           for name in names.split("|"))]
    return ({name for probe in PROBES for name in probe.functions},
            {"pageflags", *(name.split(".")[0] for name in members)})


def plan(kernel: ProbedKernel, content: bool = False, group: str = _DEFAULT.group,
         compressors: Sequence[str] = ()) -> list[Planned]:
    """Return the plan for all events, in the order of :data:`probes.PROBES`; without those of a driver not in use.

    :param content: also fetch fields that hold user memory
    :param group: of the events
    :param compressors: those in use, by zswap's names: a driver's own functions are hooked where it is one of them
    """
    used = {name for name, driver in DRIVER_FUNCTIONS.items() if any(one.startswith(driver) for one in compressors)}
    ours = (probe._replace(functions=tuple(name for name in probe.functions
                                           if name in used or name not in DRIVER_FUNCTIONS)) for probe in PROBES)
    drivers = [name for name in compressors if name not in PAGE_SOURCES or PAGE_SOURCES[name][0] in DRIVER_PAGES]
    return [_plan_one(probe, kernel, content, group, drivers) for probe in ours if probe.functions]


def _plan_one(probe: Probe, kernel: ProbedKernel, content: bool, group: str, drivers: Sequence[str]) -> Planned:
    """``drivers``: compressors in use that are not software."""
    function = next((name for name in probe.functions if _exists(name, kernel)), None)
    if function is None:
        names = [f"{name}()" for name in probe.functions]
        which = f"{names[0]} is not a function" if len(names) == 1 else f"none of {', '.join(names)} is a function"
        return Planned(probe.event, probe.vocabulary, probe.functions[0], (),
                       f"{which} of its own in this kernel (inlined, renamed or not built)", probe.checks)
    if function in SOFTWARE_FUNCTIONS and drivers:
        return Planned(probe.event, probe.vocabulary, function, (),
                       f"{probe.functions[0]}() is inlined in this kernel, and no function that is known shows the "
                       f"calls of {', '.join(drivers)}", probe.checks)
    parameters = kernel.btf.parameters(function) if kernel.btf is not None else None
    known = parameters if parameters is not None else PROTOTYPES.get(function, "").split()
    fetched = []
    for field in probe.fields:
        if field.endswith("!") and not content:
            continue
        text = _fill(field.rstrip("?!"), known, kernel.btf)
        if text is not None:
            fetched.append(text)
        elif not field.endswith("?"):
            return Planned(probe.event, probe.vocabulary, function, (),
                           f"{function}() has no parameter for the field {field.split('=')[0]} in this kernel, or no "
                           "BTF says where it is",
                           probe.checks)
    return Planned(probe.event, probe.vocabulary, function,
                   _lines(group, probe.event, function, probe.at_return, fetched, kernel), "", probe.checks)


def _exists(function: str, kernel: ProbedKernel) -> bool:
    return function in kernel.functions or (kernel.traceable is not None and function in kernel.traceable)


def _fill(field: str, parameters: list[str], btf: Btf | None) -> str | None:
    """Return a field with registers and offsets put in, None when the parameter or an offset is unknown."""
    missing, of_bits = False, ""

    def argument(match: re.Match[str]) -> str:
        nonlocal missing
        for name in match[1].split("|"):
            if name in parameters:
                return f"$arg{parameters.index(name) + 1}"
        missing = True
        return ""

    def offset(match: re.Match[str]) -> str:
        nonlocal missing, of_bits
        for name in match[1].split("|"):
            structure, member = name.split(".")
            if name == "folio.flags" and not _known_flags(btf):
                continue
            place = btf.bits(structure, member) if btf is not None else None
            if place is not None and place[1]:
                # A bit field: of the aligned word that holds it, 64 bits where 32 do not.
                bit, width = place
                word = 32 if bit % 32 + width <= 32 else 64
                of_bits = f":b{width}@{bit % word}/{word}"
                return str(bit // word * (word // 8))
            found = OFFSETS.get(name) if place is None else place[0] // 8
            if found is not None:
                return str(found)
        missing = True
        return ""

    text = re.sub(r"\$(?!retval)([a-z_|]+)", argument, _OFFSET.sub(offset, field))
    if of_bits:
        text = re.sub(r":[xus]\d+$", of_bits, text)
    return None if missing else text


def _known_flags(btf: Btf | None) -> bool:
    """True unless the kernel's page flags are other bits than the importer takes them for."""
    values = btf.values("pageflags") if btf is not None else {}
    return all(values.get(name, bit) == bit for name, bit in FLAG_BITS.items())


def _lines(group: str, event: str, function: str, at_return: bool, fields: list[str],
           kernel: ProbedKernel) -> tuple[str, ...]:
    """Return the definitions to try: fprobe where ftrace reaches the function, then kprobe."""
    end = (" " + " ".join(fields)) if fields else ""
    lines = []
    if kernel.traceable is not None and function in kernel.traceable:
        # Up to 6.13 a return probe that names no number has room for two tasks a CPU (fprobe_init_rethook()) and misses
        # the returns of others that are in the function; later kernels have room for all, and take no number.
        if at_return:
            lines.append(f"f{_TASKS}:{group}/{event} {function}%return{end}")
        lines.append(f"f:{group}/{event} {function}{'%return' if at_return else ''}{end}")
    lines.append(f"{f'r{_TASKS}' if at_return else 'p'}:{group}/{event} {function}{end}")
    return tuple(lines)


def page_plan(kernel: ProbedKernel, compressors: list[str],
              group: str = _DEFAULT.page_group) -> tuple[list[Planned], list[str]]:
    """Return the events that carry page contents, two halves per page, and sentences on what has none.

    :param compressors: those in use, by zswap's names
    :param group: of the events
    """
    planned: list[Planned] = []
    notes = []
    for name in compressors:
        function, source = PAGE_SOURCES.get(name, ("", ""))
        if not function:
            notes.append(f"pages handed to {name} are not recorded: the function that takes them is not known")
        elif not _exists(function, kernel):
            notes.append(f"pages handed to {name} are not recorded: there is no {function}() in this kernel")
        else:
            for half in (0, 1):
                fields = [f"src={source}:x64"]
                fields += [f"c{piece}=+{2048 * half + _PIECE * piece}({source}):x64[64]" for piece in range(4)]
                # Several compressors: the event's name says which, its last digit the half.
                event = f"pg{len(planned) // 2}_{half}"
                planned.append(Planned(event, "", function,
                                       _lines(group, event, function, False, fields, kernel), "", ()))
    return planned, notes


def describe(planned: list[Planned], btf: bool) -> str:
    """Return a plan for people: one line per event, then what is missing."""
    lines = [] if btf else ["No BTF: argument positions and offsets are assumed to be those of Linux 7.2."]
    for row in planned:
        if row.lines:
            # The number of tasks a return probe has room for does not help a reader.
            lines.append(f"{row.vocabulary:40} {row.lines[0].replace(f'f{_TASKS}:', 'f:', 1)}")
    missing = [row for row in planned if not row.lines]
    for row in missing:
        cost = "costs " + ", ".join(row.checks) if row.checks else "costs no check"
        lines.append(f"{row.vocabulary:40} not available: {row.why}; {cost}")
    lines.append(f"{len(planned) - len(missing)} of {len(planned)} events available")
    return "\n".join(lines)


def as_json(planned: list[Planned], used: dict[str, str]) -> list[dict[str, Any]]:
    """Return a plan as capture.json keeps it; ``used`` is the definition that the kernel took, by event."""
    return [{"event": row.event, "vocabulary": row.vocabulary, "function": row.function,
             "probe": used.get(row.event), "why_not": row.why, "checks": list(row.checks)} for row in planned]
