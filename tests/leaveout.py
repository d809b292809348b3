# SPDX-License-Identifier: GPL-2.0-or-later
"""What a replay makes of a recording that holds less: fields, probes, settings, snapshots left out one by one.

    PYTHONPATH=. python -m tests.leaveout RECORDING_OR_CAPTURE [--events N] [--only fields,probes,...] [--what zs_malloc]
        [--verbose]

A recording (or a capture, which is imported first) is held in memory; each variant is it without one thing, with a
manifest that says so as the manifest of a recorder that never had it would.  Of each variant the verdict is printed,
and at the end how many of each kind came out how.  The exit status is 1 where one is wrong: a FAIL (the kernel's own
recording PASSes, so that nothing in it is the kernel's fault), or a PASS of a variant that lost events.  Where the whole
does not PASS itself, a variant must come out no other way than the whole, or UNDECIDED.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import replay
from replay.reference.checks import CHECKS
from replay.tools.cut import cut
from replay.verdict.result import Result
from traces import schema
from traces.importers.directory import import_source
from traces.recording import Recording

COLUMNS = schema.column_names()
#: Rows that no probe makes.
NOTES = ("marker", "lost_events", "counters", "param")
#: Groups of probes that a recorder may leave out together.
GROUPS = {
    "zsmalloc internals": ("obj_malloc", "obj_malloc_ret", "obj_free", "fix_fullness_group", "fix_fullness_group_ret",
                           "__free_zspage"),
    "all of zsmalloc": ("zs_malloc", "zs_malloc_ret", "zs_free", "zs_obj_write", "zs_obj_read", "obj_malloc",
                        "obj_malloc_ret", "obj_free", "fix_fullness_group", "fix_fullness_group_ret", "__free_zspage",
                        "async_free_zspage", "zs_shrinker_scan", "zs_shrinker_scan_ret", "zs_compact",
                        "zs_compact_ret", "__zs_compact", "__zs_compact_ret", "zs_page_migrate",
                        "zs_get_total_pages_ret"),
    "compaction": ("zs_shrinker_scan", "zs_shrinker_scan_ret", "zs_compact", "zs_compact_ret", "__zs_compact",
                   "__zs_compact_ret"),
    "the LRU": ("list_lru_add", "list_lru_add_ret", "list_lru_del", "memcg_reparent_list_lrus"),
    "walks": ("shrink_memcg", "shrink_memcg_ret", "shrink_memcg_cb", "shrink_memcg_cb_ret", "shrink_worker",
              "shrink_worker_ret", "zswap_shrinker_scan", "zswap_shrinker_scan_ret", "zswap_shrinker_count",
              "zswap_shrinker_count_ret", "zswap_writeback_entry", "zswap_writeback_entry_ret"),
    "cgroups": ("obj_cgroup_may_zswap_ret", "obj_cgroup_charge_zswap", "obj_cgroup_uncharge_zswap",
                "mem_cgroup_zswap_writeback_enabled_ret", "memcg_reparent_list_lrus"),
    "compressors": ("crypto_acomp_compress", "crypto_acomp_compress_ret", "crypto_acomp_decompress",
                    "crypto_acomp_decompress_ret"),
    "the swap layer": ("swap_writeout", "swap_writeout_ret", "__swap_writepage"),
    "all returns": tuple(kind.name for kind in schema.EVENTS if kind.name.endswith("_ret")),
}


class LeftOut(Recording):
    """A recording in memory, of which things can be left out; copies share what they do not change."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for loss in self.manifest["losses"]:
            # A recorder that never had what is left out would have read fewer.
            loss.pop("events", None)
        self.columns: dict[str, np.ndarray] = {}
        for name in COLUMNS:
            parts = [batch[name].copy() for _, batch in super().batches([name], rows=1 << 20)]
            self.columns[name] = np.concatenate(parts)
        #: what each row's number was when nothing was dropped
        self.columns["origin"] = np.arange(len(self.columns["ts"]))
        self.chained = super().lists("chained", ("event", "number", "content"))
        self.kept_snapshots = [(entry, self._json(self.path / entry["file"])) for entry in self.manifest["snapshots"]]
        self.tables = {name: super(LeftOut, self).table(name) for name in ("truth", "objects", "iaa_jobs")}
        self.documents = {name: super(LeftOut, self).document(name) for name in ("state", "iaa")}
        self.with_pages = True

    def copy(self) -> LeftOut:
        """Return another that can be changed."""
        out = copy.copy(self)
        out.columns, out.tables = dict(self.columns), dict(self.tables)
        out.manifest = copy.deepcopy(self.manifest)
        out.kept_snapshots = list(self.kept_snapshots)
        return out

    # ---- what a replay reads ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns["ts"])

    def batches(self, columns: Sequence[str], rows: int = 1 << 15,
                start: int = 0) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for at in range(start // rows * rows, len(self), rows):
            yield at, {name: self.columns[name][at:at + rows] for name in columns}

    def texts(self) -> frozenset[str]:
        return frozenset(text for text in self.columns["text"] if text)

    def counts(self) -> dict[str, int]:
        codes, counts = np.unique(self.columns["event"], return_counts=True)
        return {schema.NAMES[code]: count for code, count in zip(codes.tolist(), counts.tolist(), strict=True)}

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        return [entry for entry, _ in self.kept_snapshots]

    def snapshot(self, number: int) -> dict[str, Any]:
        return self.kept_snapshots[number][1]

    def lists(self, name: str, columns: Sequence[str]) -> list[list[Any]] | None:
        if name != "chained" or self.chained is None:
            return super().lists(name, columns)
        now = {was: row for row, was in enumerate(self.columns["origin"].tolist())}
        rows = [(now[event], *rest) for event, *rest in zip(*self.chained, strict=True) if event in now]
        return [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []]

    def table(self, name: str) -> Any:
        return self.tables.get(name)

    def document(self, name: str) -> Any:
        return self.documents.get(name)

    @property
    def pages(self) -> Any:
        return super().pages if self.with_pages else None

    # ---- leaving out ----------------------------------------------------------------------------------------

    def _rows(self, names: Sequence[str]) -> np.ndarray:
        out: np.ndarray = np.isin(self.columns["event"], [schema.CODE[name] for name in names])
        return out

    def _keep_rows(self, keep: np.ndarray) -> None:
        self.columns = {name: values[keep] for name, values in self.columns.items()}
        notes = self.columns["event"] == schema.CODE["counters"]
        left = self.columns["ret"][notes].tolist()
        # Snapshots are counted anew.
        self.columns["ret"] = self.columns["ret"].copy()
        self.columns["ret"][notes] = np.arange(len(left))
        self.kept_snapshots = [self.kept_snapshots[number] for number in left]
        self._agree()

    def _agree(self) -> None:
        """Let the manifest say what is there, as one that was made so would."""
        manifest = self.manifest
        manifest["rows"] = len(self)
        if manifest["segments"] and len(self):
            manifest["segments"][-1]["last_ts"] = int(self.columns["ts"][-1])
        kept = {entry["file"] for entry, _ in self.kept_snapshots}
        manifest["files"] = {name: digest for name, digest in manifest["files"].items()
                             if not name.startswith("counters/") or name in kept}

    def without_field(self, event: str, column: str) -> LeftOut:
        """Leave out one field of one probe."""
        out = self.copy()
        values = out.columns[column] = out.columns[column].copy()
        values[out._rows([event])] = schema.ABSENT.get(column, 0)
        columns = out.manifest["probes"][event]["columns"]
        out.manifest["probes"][event]["columns"] = [name for name in columns if name != column]
        return out

    def without_probes(self, names: Sequence[str]) -> LeftOut:
        """Leave out probes."""
        out = self.copy()
        out._keep_rows(~out._rows(names))
        for name in names:
            out.manifest["probes"].pop(name, None)
        return out

    def without_markers(self, beginning: str = "") -> LeftOut:
        """Leave out the markers of a workload, all or those that begin so."""
        out = self.copy()
        texts = out.columns["text"]
        out._keep_rows(~(out._rows(["marker"]) & np.array([str(text).startswith(beginning) for text in texts])))
        return out

    def without_params(self) -> LeftOut:
        """Leave out what says that a parameter was written."""
        out = self.without_markers("param ")
        out._keep_rows(~out._rows(["param"]))
        return out

    def without_snapshots(self, numbers: Sequence[int]) -> LeftOut:
        """Leave out counter snapshots."""
        out = self.copy()
        out._keep_rows(~(out._rows(["counters"]) & np.isin(out.columns["ret"], numbers)))
        return out

    def without_setting(self, name: str) -> LeftOut:
        """Leave out one parameter of those at the start."""
        out = self.copy()
        out.manifest["config"]["params"].pop(name, None)
        return out

    def without_symbols(self) -> LeftOut:
        """Leave out the kernel's addresses."""
        out = self.copy()
        out.manifest["config"].pop("symbols", None)
        return out

    def without_pages(self, *, digests: bool) -> LeftOut:
        """Leave out the bytes of pages, or all that is known of them."""
        out = self.copy()
        if digests:
            out.manifest.setdefault("pages", {})["with_bytes"] = False
        else:
            out.with_pages = False
            out.columns["content"] = np.full_like(out.columns["content"], -1)
        return out

    def without_table(self, name: str) -> LeftOut:
        """Leave out the workload's truth, or the objects as written."""
        out = self.copy()
        out.tables.pop(name, None)
        return out

    def without_losses(self) -> LeftOut:
        """Leave out what the kernel counted for its rings: what was lost is not known then."""
        out = self.copy()
        out.manifest["losses"] = [{**loss, "lost": None} for loss in out.manifest["losses"]]
        return out

    def without_cpu(self, cpu: int, events: slice = slice(None), *, said: bool | None) -> LeftOut:
        """Leave out what one CPU recorded, of some events; ``said``: its losses have no place, but are counted; None:
        nothing says that there was such a CPU.
        """
        out = self.copy()
        gone = np.zeros(len(out), bool)
        gone[events] = out.columns["cpu"][events] == cpu
        gone &= ~out._rows(NOTES)
        out._keep_rows(~gone)
        lost = int(gone.sum()) if said else None
        out.manifest["losses"] = [loss for loss in out.manifest["losses"] if loss.get("cpu") != cpu]
        if said is not None:
            out.manifest["losses"].append({"cpu": cpu, "lost": lost})
        elif isinstance(counted := out.manifest.get("capture", {}).get("losses"), dict):
            counted.get("cpus", {}).pop(str(cpu), None)
        return out

    def without_hit(self, event: str, number: int) -> LeftOut:
        """Leave out one hit of a probe, which the kernel counted as missed."""
        out = self.copy()
        gone = np.zeros(len(out), bool)
        gone[np.flatnonzero(out._rows([event]))[number]] = True
        out._keep_rows(~gone)
        out.manifest["losses"].append({"probe": event, "lost": 1})
        return out


@dataclass(frozen=True)
class Variant:
    """One thing left out: ``what``, of which ``kind``; ``loses`` events that were there to record."""

    kind: str
    what: str
    make: Callable[[LeftOut], LeftOut]
    loses: bool = False


def variants(whole: LeftOut) -> Iterator[Variant]:
    """Yield everything that can be left out of a recording, one by one."""
    probes = {name: list(probe["columns"]) for name, probe in whole.manifest["probes"].items() if name not in NOTES}
    seen = set(np.unique(whole.columns["event"]).tolist())
    hit = [name for name in probes if schema.CODE[name] in seen]
    for event in hit:
        for column in probes[event]:
            yield Variant("fields", f"{event}.{column}", lambda r, e=event, c=column: r.without_field(e, c))
    for event in hit:
        yield Variant("probes", event, lambda r, e=event: r.without_probes([e]))
    groups = {f"{name} and its return": (name, f"{name}_ret") for name in hit if f"{name}_ret" in hit}
    for what, names in {**groups, **GROUPS}.items():
        left = [name for name in names if name in hit]
        if len(left) > 1:
            yield Variant("groups", what, lambda r, n=tuple(left): r.without_probes(n))
    for name in whole.manifest["config"].get("params", {}):
        if name != "compressor":
            yield Variant("settings", name, lambda r, n=name: r.without_setting(n))
    yield Variant("settings", "symbols", LeftOut.without_symbols)
    yield Variant("settings", "writes of parameters", LeftOut.without_params)
    yield Variant("settings", "markers of cgroup files", lambda r: r.without_markers("cgroup "))
    yield Variant("settings", "all markers", lambda r: r.without_markers())
    for number, entry in enumerate(whole.snapshots):
        yield Variant("snapshots", f"{number} ({entry['label']})", lambda r, n=number: r.without_snapshots([n]))
    if whole.snapshots:
        yield Variant("snapshots", "all", lambda r: r.without_snapshots(range(len(r.snapshots))))
    if whole.tables.get("truth") is not None:
        yield Variant("truth", "truth", lambda r: r.without_table("truth"))
    if whole.tables.get("objects") is not None:
        yield Variant("truth", "objects", lambda r: r.without_table("objects"))
    if whole.pages is not None:
        yield Variant("pages", "bytes", lambda r: r.without_pages(digests=True))
        yield Variant("pages", "all", lambda r: r.without_pages(digests=False))
    for event in hit:
        count = int(whole._rows([event]).sum())
        for number in sorted({count // 3, 2 * count // 3}):
            yield Variant("hits", f"hit {number} of {event}", lambda r, e=event, n=number: r.without_hit(e, n), True)
    yield Variant("rings", "statistics", LeftOut.without_losses, True)
    cpus = np.unique(whole.columns["cpu"]).tolist()
    for cpu in cpus:
        count = len(whole)
        if len(cpus) > 1:
            yield Variant("rings", f"CPU {cpu}'s", lambda r, c=cpu: r.without_cpu(c, said=False), True)
            if cpu < max(cpus) or "cpus" in whole.manifest["kernel"] or "box" in whole.manifest.get("capture", {}):
                # Where nothing says how many CPUs there are, the last one leaves no trace.
                yield Variant("rings", f"CPU {cpu}'s, in silence", lambda r, c=cpu: r.without_cpu(c, said=None), True)
        for part in range(4):
            piece = slice(count * (2 * part + 1) // 8, count * (2 * part + 1) // 8 + max(1, count // 200))
            for said in (True, False) if (whole.columns["cpu"][piece] == cpu).any() else ():
                yield Variant("rings", f"events {piece.start}+{piece.stop - piece.start} of CPU {cpu}, "
                              f"{'counted' if said else 'not counted'}",
                              lambda r, c=cpu, p=piece, s=said: r.without_cpu(c, p, said=s), True)


def wrong(variant: Variant, result: Result, whole: Result) -> str:
    """Return what is wrong with a variant's verdict, ``""`` for nothing."""
    if result.verdict == "PASS" and variant.loses:
        return "a PASS that hides a loss"
    if result.verdict == "FAIL" and not whole.divergences:
        return "a FAIL that names the kernel"
    if result.verdict == "FAIL" and (result.divergences[0].check, result.divergences[0].name) != \
            (whole.divergences[0].check, whole.divergences[0].name):
        return "another FAIL than the whole's"
    if result.verdict == "UNDECIDED" and not result.reasons:
        return "no reason given"
    return ""


def _line(result: Result) -> str:
    if result.verdict == "FAIL":
        first = result.divergences[0]
        return f"{first.check} at event {first.event} ({first.name}): {first.what}: recorded {first.recorded}, " \
               f"predicted {first.predicted}"
    return "; ".join(result.reasons)


def sweep(whole: LeftOut, *, only: Sequence[str] = (), what: str = "", revision: str | None = None, engine: str | None = "reference",
          but: Sequence[str] = (), say: Callable[[str], None] = print, verbose: bool = False) -> tuple[dict[tuple[str, str], int], list[str]]:
    """Replay every variant; returns how many of each kind had which verdict, and what is wrong, a line each."""
    asked = {*CHECKS, "counter"} - set(but) if but else None

    def run(recording: LeftOut) -> Result:
        return replay.replay(recording, revision, checks=asked, engine=engine)

    base = run(whole)
    say(f"the whole: {base.verdict} {_line(base)}")
    counts: Counter[tuple[str, str]] = Counter()
    bad = []
    if base.verdict == "UNDECIDED":
        bad.append(f"the whole is UNDECIDED, so that no variant can show anything: {_line(base)}")
    for variant in variants(whole):
        if (only and variant.kind not in only) or what not in variant.what:
            continue
        began = time.monotonic()
        try:
            result = run(variant.make(whole))
        except Exception as problem:  # a traceback is one more thing that is wrong
            line = f"{variant.kind}: {variant.what}: {type(problem).__name__}: {problem}"
            counts[variant.kind, "ERROR"] += 1
            if type(problem).__name__ != "BadInput":
                bad.append(line)
            say(line)
            continue
        counts[variant.kind, result.verdict] += 1
        problem_text = wrong(variant, result, base)
        line = f"{variant.kind}: without {variant.what}: {result.verdict} {_line(result)}"
        if problem_text:
            bad.append(f"{problem_text}: {line}")
        if verbose or problem_text or result.verdict != base.verdict:
            say(f"{'!! ' + problem_text + ': ' if problem_text else ''}{line} ({time.monotonic() - began:.1f} s)")
    return dict(counts), bad


def table(counts: dict[tuple[str, str], int]) -> list[str]:
    """Return verdict counts by kind, a line each."""
    verdicts = ("PASS", "UNDECIDED", "FAIL", "ERROR")
    kinds = list(dict.fromkeys(kind for kind, _ in counts))
    lines = [f"{'left out':<12}" + "".join(f"{verdict:>11}" for verdict in verdicts)]
    for kind in kinds:
        lines.append(f"{kind:<12}" + "".join(f"{counts.get((kind, verdict), 0):>11}" for verdict in verdicts))
    return lines


def opened(path: Path, scratch: Path, events: int | None, revision: str | None = None) -> LeftOut:
    """Return a recording, or a capture imported into ``scratch``, to leave things out of.

    :param events: this many from its beginning, and those up to where no task is inside an operation: where one is,
        no variant could be a PASS
    """
    if not (path / "manifest.json").is_file():
        out = scratch / (path.name + ".zr")
        import_source(path, out)
        path = out
    if events is not None:
        cut(Recording(path), str(scratch / "beginning.zr"), 0, events, revision=revision)
        path = scratch / "beginning.zr"
    return LeftOut(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep over one recording."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("recording", type=Path)
    parser.add_argument("--events", type=int, help="only the first N events")
    parser.add_argument("--only", default="", help="fields, probes, groups, settings, snapshots, truth, pages, rings")
    parser.add_argument("--revision")
    parser.add_argument("--engine", default="reference")
    parser.add_argument("--but", default="", help="checks that are not asked for: the whole fails them")
    parser.add_argument("--what", default="", help="only variants that have this in their name")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        whole = opened(given.recording, Path(scratch), given.events, given.revision)
        counts, bad = sweep(whole, only=[kind for kind in given.only.split(",") if kind], what=given.what,
                            revision=given.revision,
                            engine=given.engine, verbose=given.verbose,
                            but=[check for check in given.but.split(",") if check])
    print("\n".join(table(counts)))
    print(f"{len(bad)} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
