# SPDX-License-Identifier: GPL-2.0-or-later
"""The side files of a run: kernel configuration, boot log, counter snapshots, symbols, probe definitions."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pandas as pd

from traces import jsontext
from traces.errors import BadInput
from traces.importers.filetype import TRUTH_HEAD
from traces.importers.inputfile import read_all, read_json
from traces.importers.probemap import vocabulary_name
from traces.importers.source import RunFacts
from traces.machine import check_machine, machine_of

__all__ = ["add_config", "add_counters", "add_dmesg", "add_probes", "add_ring_stats", "add_symbols",
           "counter_label", "missing_counters", "read_truth"]

_CONFIG_KEYS: Final = ("CONFIG_ZSMALLOC_CHAIN_SIZE", "CONFIG_ZSMALLOC_STAT", "CONFIG_NUMA", "CONFIG_PAGE_SHIFT",
                       "CONFIG_NR_CPUS", "CONFIG_CC_VERSION_TEXT", "CONFIG_PREEMPT_RT", "CONFIG_MEMCG")
#: A packed file may have this many lines, and one more for each of its bytes.
_FREE_LINES: Final = 1 << 20
_TRUTH_COLUMNS: Final = ["phase", "page", "kind", "sha1", "swap_type", "swap_offset"]
_TRUTH_HEAD: Final = ",".join(_TRUTH_COLUMNS).encode() + b"\n"


def add_config(facts: RunFacts, path: Path) -> None:
    """Take release and options from a kernel configuration file."""
    text = read_all(path, 16 << 20).decode("utf-8", "replace")
    release = re.search(r"^# Linux/\S+ (\S+) Kernel Configuration", text, re.M)
    if release:
        facts.kernel["version"] = release[1]
    options = {key: value.strip('"') for key, value in re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.M)
               if key in _CONFIG_KEYS}
    facts.kernel["options"] = options
    if options.get("CONFIG_PAGE_SHIFT", "12") != "12":
        raise BadInput(path, "", f"pages of 2^{options['CONFIG_PAGE_SHIFT']} bytes are not modelled",
                       "record on a kernel with 4 KiB pages")
    # The head names the directory under arch/, so x86 is 32 or 64 bits.
    head = re.search(r"^# Linux/(\S+) \S+ Kernel Configuration", text, re.M)
    arch = head[1] if head else ""
    check_machine(path, "", "i386" if re.search(r"^CONFIG_X86_32=y$", text, re.M) else "" if arch == "x86" else arch)
    if "CONFIG_ZSMALLOC_CHAIN_SIZE" in options:
        chain_size = options["CONFIG_ZSMALLOC_CHAIN_SIZE"]
        # The range of the option in mm/Kconfig.
        if not re.fullmatch(r"[0-9]{1,2}", chain_size) or not 4 <= int(chain_size) <= 16:
            raise BadInput(path, "CONFIG_ZSMALLOC_CHAIN_SIZE", f"'{chain_size[:20]}' is not a number from 4 to 16",
                           "copy the kernel's configuration again")
        facts.config["chain_size"] = int(chain_size)


def add_dmesg(facts: RunFacts, path: Path) -> None:
    """Take the release (uname -r), the banner and the number of CPUs from a boot log."""
    text = read_all(path, 64 << 20)[:1 << 16].decode("utf-8", "replace")
    banner = re.search(r"Linux version (\S+) (.*)", text)
    if banner:
        facts.kernel["release"] = banner[1]
        facts.kernel["banner"] = banner[0]
        check_machine(path, "", machine_of(banner[1]) or machine_of(banner[2]))
    cpu = re.search(r"CPU0: (.{1,100}?) \(family", text)
    if cpu:
        facts.kernel["cpu_model"] = cpu[1]
    cpus = re.search(r"smp: Brought up \d{1,4} nodes?, (\d{1,5}) CPUs?", text)
    if cpus:
        facts.kernel["cpus"] = int(cpus[1])
    if "nokaslr" in text:
        facts.kernel["kaslr"] = False


def add_symbols(facts: RunFacts, path: Path) -> None:
    """Take the addresses of kernel variables: hex strings by name."""
    for name, value in (read_json(path) or {}).items():
        try:
            facts.config.setdefault("symbols", {})[name] = int(str(value), 16)
        except ValueError:
            raise BadInput(path, f"key '{name}'", "is not a hexadecimal address",
                           "copy the file of kernel symbols again") from None


def add_probes(facts: RunFacts, path: Path) -> None:
    """Take from ``dynamic_events`` which kernel function each probe event hooks."""
    text = read_all(path, 16 << 20).decode("utf-8", "replace")
    for event, function in re.findall(r"^[fpre]\d*:[^\s/]*/([^\s/]+)[ \t]+(\S+)", text, re.M):
        name = vocabulary_name(event)
        if name is not None:
            facts.functions[name] = function


def add_ring_stats(facts: RunFacts, path: Path) -> None:
    """Take what the kernel counted for each ring: ``per_cpu/cpuN/stats`` by ``instance/cpuN``.

    A copy of one such file belongs to the CPU that it is named after, of an unknown instance: ``cpu3.stats``.
    """
    texts = read_json(path)
    if texts is None:
        named = re.search(r"cpu(\d{1,5})(?!\d)", path.name)
        texts = {f"/cpu{named[1] if named else 0}": read_all(path, 1 << 16).decode("utf-8", "replace")}
    for name, text in texts.items():
        where = re.fullmatch(r"(.*)/cpu(\d{1,5})", name)
        if where:
            counts = {key.strip(): int(value) for key, value in re.findall(r"^([a-z ]+): (\d{1,18})$", str(text), re.M)}
            facts.ring_stats[where[1], int(where[2])] = counts


def counter_label(path: Path) -> str:
    """Return a snapshot's label from its file name: ``counters-after-out1.json`` is ``after-out1``.

    The number that a recorder put before the label (``counters-007-after-out1.json``) is left out.
    """
    return re.sub(r"^counters-?([0-9]{3,}-(?=.))?", "", path.name.split(".", 1)[0]) or path.name


def missing_counters(names: Iterable[str]) -> list[int]:
    """Return the numbers that are missing among a recorder's snapshots (``counters-007-after-out1.json``).

    :param names: names of files, in any order; those without a number do not count
    """
    there = {int(found[1]) for name in names if (found := re.match(r"counters-([0-9]{3,6})-", name))}
    return sorted(set(range(max(there, default=-1) + 1)) - there)


def add_counters(facts: RunFacts, paths: list[Path]) -> None:
    """Take counter snapshots, ordered by their time, and the parameters of the first.

    :raises BadInput: when a snapshot has no usable time
    """
    loaded: list[tuple[str, int, dict[str, Any]]] = []
    for path in paths:
        values = read_json(path) or {}
        stamp = values.get("t")
        if not isinstance(stamp, int | float) or not 0 <= stamp < 1 << 33:
            raise BadInput(path, "key 't'", "is not a time in seconds", "take the counter snapshot again")
        # A value that no recording can hold is refused now, with the file's name that the user knows.
        jsontext.hold_to_schema(values, "snapshot", path, "take the counter snapshot again")
        # Seconds with nanosecond digits: rounded, as a float cannot hold them exactly beyond some weeks.
        loaded.append((counter_label(path), round(stamp * 1e9), values))
    loaded.sort(key=lambda item: item[1])
    facts.snapshots.extend(loaded)
    if not loaded:
        return
    first = loaded[0][2]
    params = first.get("params", {})
    facts.config.setdefault("params", params)
    if "compressor" in params:
        facts.config.setdefault("compressor", params["compressor"])
    total = re.search(r"^MemTotal:\s+(\d+) kB", str(first.get("meminfo", "")), re.M)
    if total:
        facts.config.setdefault("totalram_pages", int(total[1]) // 4)


def read_truth(path: Path) -> tuple[pd.DataFrame, str, str]:
    """Read a workload's truth: which page content it left at which swap offset at the end of each phase.

    One that ends within a line, as on a disk that was full, is read up to there.  Returns it with ``sha1`` as the
    column of digests, the name of the key of those that have one (``""`` for none), and a sentence on what is cut,
    ``""`` where nothing is.

    :raises BadInput: when columns or numbers are not as they should be
    """
    try:
        data = read_all(path)
        if data.count(b"\n") > _FREE_LINES + path.stat().st_size:
            raise BadInput(path, "", "has more lines than a file of its size can", "write it again with the workload")
        lines, cut = data.count(b"\n"), ""
        if data[-1:] != b"\n":
            # Half of a number is a number, too.
            head = _TRUTH_HEAD.startswith(data) or TRUTH_HEAD.match(data)
            data = data[:data.rfind(b"\n") + 1] or (_TRUTH_HEAD if head else data)
            cut = f"{path.name} ends in the middle of its line {lines + 1}: what the workload says of its pages from " \
                  "there on is missing"
        named = TRUTH_HEAD.match(data)
        key = named[1].decode() if named is not None and named[1] else ""
        column = f"blake2b-{key}" if key else "sha1"
        frame = pd.read_csv(io.BytesIO(data), dtype={"phase": str, "kind": str, column: str})
        frame = frame.rename(columns={column: "sha1"})[_TRUTH_COLUMNS]
        frame["swap_offset"] = frame["swap_offset"].astype("int64")
        frame["swap_type"] = frame["swap_type"].astype("int64")
        frame["page"] = frame["page"].astype("int64")
        _check_truth(path, frame)
    except BadInput:
        raise
    except (ValueError, KeyError, OverflowError) as problem:
        raise BadInput(path, "", f"is not a truth table ({problem})", "write it again with the workload") from None
    return frame, key, cut


def _check_truth(path: Path, frame: pd.DataFrame) -> None:
    """Refuse a truth that no workload writes: the kernel would be checked against it.

    :raises BadInput: with the first line at fault
    """
    phase, digest = frame["phase"], frame["sha1"]
    again = phase.ne(phase.shift()) & phase.duplicated()
    for wrong, what in (
            # A page of zeros may have none.
            (digest.notna() & ~digest.fillna("").str.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}"),
             "its digest is not one of 40 or 64 hex digits"),
            (phase.isna(), "it has no phase"), (again, "its phase was over before"),
            (frame.duplicated(["phase", "page"]), "its phase and page stand in an earlier line"),
            ((frame[["swap_type", "swap_offset"]] < -1).any(axis=1), "its swap slot is less than -1, which is none")):
        if wrong.any():
            raise BadInput(path, f"line {int(wrong.to_numpy().argmax()) + 2}", f"is not a line of a workload: {what}",
                           "copy it again, or write it again with the workload")
