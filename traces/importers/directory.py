# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory of one run's captures: events in any form, with counters, pages, truth and kernel facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from traces.errors import BadInput
from traces.facts import put
from traces.files import entries, is_regular
from traces.importers import bpftracejson, perftext, textevents, tracedatevents
from traces.importers.assemble import assemble
from traces.importers.capture import OTHER_KEY, CaptureReader
from traces.importers.filetype import classify, first_line
from traces.importers.pagefiles import bases_of, page_ring, read_objects, read_page_index
from traces.importers.pageindex import PageIndex
from traces.importers.rings import FormatDirectory, ring_stream
from traces.importers.runfacts import (
    add_config,
    add_counters,
    add_dmesg,
    add_probes,
    add_ring_stats,
    add_symbols,
    read_truth,
)
from traces.importers.source import Block, RunFacts
from traces.importers.textforms import KINDS
from traces.pages import PageWatcher

__all__ = ["import_source"]

Progress = Callable[[int], None]

#: Kinds of files with events, the best first.
_EVENT_KINDS: Final = ("ring", "tracedat", "text", "perftext", "bpftrace")
#: Kinds that a damaged counter snapshot may seem to be.
_NO_SNAPSHOT: Final = ("empty", "json", "unknown", "pages", "symbols")
#: Files that an import leaves out, and why: one of them may be a damaged one that was meant to be used.
_UNUSED: Final = {"empty": "it is empty, or damaged from its start", "pages": "no page index is named like it",
                  "unknown": "its content is of an unknown kind"}


def import_source(src: str | Path, out: str | Path, *, events: str | Path | None = None,
                  formats: str | Path | None = None, overrides: dict[str, Any] | None = None,
                  watcher: PageWatcher | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Import a capture into a recording and return a summary.

    :param src: a directory of captures, or one file: trace.dat, ftrace text, or a raw ring
    :param out: the recording to make
    :param events: which file of the directory holds the events, when several do
    :param formats: directory of event formats for raw rings; by default one inside ``src``
    :param overrides: what the source does not say: ``release``, ``compressor``, ``chain_size``,
        ``totalram_pages``; the ``instance`` of a trace.dat to take; of the kernel, ``origin`` and what it was
        ``build`` from; ``facts``: what :func:`traces.facts.read_settings` gave
    :param watcher: gets the bytes of distinct pages when they are stored
    :param progress: called with the number of events written so far
    :raises BadInput: when nothing can be imported; nothing is left behind
    """
    src, out = Path(src), Path(out)
    if out.exists() or out.is_symlink():
        raise BadInput(out, "", "the output exists already", "remove it or choose another name")
    if not src.exists():
        raise BadInput(src, "", "does not exist", "check the path")
    importer = _Import(src, formats)
    importer.apply(overrides or {})
    blocks = importer.events(Path(events) if events is not None else None)
    source = {"path": src.name, "importer": importer.kind, "files": sorted(p.name for p in importer.used)}
    return assemble(str(out), blocks, importer.facts, source, pages=importer.pages, truth=importer.truth,
                    objects=importer.objects, watcher=watcher, progress=progress)


class _Import:
    """Sorts the files of a source by what they are and reads those that say something about the run."""

    def __init__(self, src: Path, formats: str | Path | None) -> None:
        self.src = src
        self.facts = RunFacts()
        self.kind = ""
        self.used: set[Path] = set()
        self.pages: PageIndex | None = None
        self.truth: pd.DataFrame | None = None
        self.truth_key = ""
        #: What is missing of it, in a sentence.
        self.cut = ""
        self.objects: pd.DataFrame | None = None
        # A path that the user names may be a link; in a directory, which may come from others, only files are opened.
        files, left = entries(src) if src.is_dir() else ([src], [])
        self.capture = CaptureReader.find(src) if src.is_dir() else None
        if self.capture is not None:
            files = [path for path in files if not self.capture.owns(path)]
        else:
            self.facts.notes += left
        self.formats = self._formats(Path(formats) if formats is not None else None)
        header = self.formats.header if self.formats is not None else None
        self.by_kind: dict[str, list[Path]] = {}
        for path in files:
            self.by_kind.setdefault(classify(path, header), []).append(path)
        self._side_files()
        if self.capture is not None:
            self.capture.apply(self.facts)
            self.pages = self.capture.pages(self.facts, self.capture.bases() or bases_of(self.facts.kernel))
            self.truth = self.capture.usable_truth(self.truth, self.truth_key, self.facts)
        elif self.truth_key:
            self.truth = None
            self.facts.notes.append(OTHER_KEY)
        if self.cut and self.truth is not None:
            self.facts.missing.append(self.cut)
        self._page_files()
        for kind, why in _UNUSED.items():
            for path in self.by_kind.get(kind, []):
                if path not in self.used and len(files) > 1:
                    self.facts.notes.append(f"{path.name} was not used: {why}")

    def _formats(self, given: Path | None) -> FormatDirectory | None:
        if given is not None:
            return FormatDirectory(given)
        base = self.src if self.src.is_dir() else self.src.parent
        for path in sorted(base.iterdir()):
            if path.is_dir() and not path.is_symlink() and is_regular(path / "header_page"):
                return FormatDirectory(path)
        return None

    def _take(self, kind: str) -> list[Path]:
        paths = self.by_kind.get(kind, [])
        self.used.update(paths)
        return paths

    def _take_one(self, kind: str) -> list[Path]:
        """Of a kind that a run has once, the first file; the others are named."""
        paths = self.by_kind.get(kind, [])
        self.used.update(paths[:1])
        self.facts.notes.extend(f"{path.name} was not used: {paths[0].name} is there too" for path in paths[1:])
        return paths[:1]

    def _side_files(self) -> None:
        for path in self._take("config"):
            add_config(self.facts, path)
        for path in self._take("dmesg"):
            add_dmesg(self.facts, path)
        for path in self._take("symbols"):
            add_symbols(self.facts, path)
        for path in self._take("probes"):
            add_probes(self.facts, path)
        for path in self._take("ringstats"):
            add_ring_stats(self.facts, path)
        add_counters(self.facts, self._take("counters"))
        # A file that is named like a snapshot and holds none is a damaged snapshot, which was meant to be used.
        self.facts.missing += [f"{path.name} is damaged: it holds no counter snapshot; copy it again"
                               for kind in _NO_SNAPSHOT for path in self.by_kind.get(kind, [])
                               if re.fullmatch(r"counters-.+\.json", path.name)]
        for path in self._take_one("truth"):
            self.truth, self.truth_key, self.cut = read_truth(path)
        for path in self._take_one("objects"):
            self.objects = read_objects(path)

    def _page_files(self) -> None:
        bases = bases_of(self.facts.kernel)
        indices = self._take_one("pageindex")
        # A dump may begin with a page of text: it is a dump because it is named after an index.
        dumps = [*self.by_kind.get("pages", []), *self.by_kind.get("unknown", [])]
        if indices and self.pages is None:
            # A dump belongs to the index it is named after; without one the digests are all there is.
            stem = indices[0].name.split(".", 1)[0]
            dump = next((path for path in dumps if path.name.split(".", 1)[0] == stem), None)
            if dump is not None:
                self.used.add(dump)
            self.pages = read_page_index(indices[0], dump, bases)
        if self.formats is None:
            return
        for path in [p for p in self.by_kind.get("ring", []) if self.formats.is_page_ring(p)]:
            self.by_kind["ring"].remove(path)
            self.used.add(path)
            if self.pages is None:
                self.pages = page_ring(path, self.formats.formats, self.formats.header, bases)

    def apply(self, overrides: dict[str, Any]) -> None:
        """Let the user's options override what the files say."""
        for name, value in overrides.items():
            if value is None:
                continue
            if name == "release":
                self.facts.kernel["version"] = self.facts.kernel["release"] = value
            elif name == "facts":
                put(self.facts.kernel, self.facts.config, value)
            elif name == "instance":
                self.facts.instance = value
            elif name in ("origin", "build"):
                self.facts.kernel[name] = value
            else:
                self.facts.config[name] = value

    def events(self, chosen: Path | None) -> Iterator[Block]:
        """Return the stream of events of the best source there is, or of the ``chosen`` one."""
        if self.capture is not None and chosen is None:
            # One killed before its first flush has none.
            blocks = self._open("ring", self.capture.rings) if self.capture.rings else iter(())
            self.kind = "capture"
            return self.capture.events(blocks, self.facts)
        if chosen is not None:
            path = chosen if chosen.exists() else self.src / chosen
            header = self.formats.header if self.formats is not None else None
            kind = classify(path, header)
            return self._open(kind, [path])
        for kind in _EVENT_KINDS:
            paths = self.by_kind.get(kind)
            if paths:
                if kind != "ring":  # there is one ring for each CPU, but only one of the others for a run
                    paths = paths[:1]
                for other in _EVENT_KINDS:
                    for path in self.by_kind.get(other, []):
                        if path not in paths:
                            self.facts.notes.append(f"{path.name} was not used: events came from {paths[0].name}")
                return self._open(kind, paths)
        for path in self.by_kind.get("unknown", []) if not self.src.is_dir() else []:
            number, line = first_line(path)
            if number:
                raise BadInput(path, f"line {number}", f"is not of a kind that zreplay can import: '{line}'", KINDS)
        kinds = ", ".join(sorted(self.by_kind)) or "nothing"
        raise BadInput(self.src, "", f"holds no trace that zreplay can import (found: {kinds})",
                       "give a trace.dat, ftrace text, or raw ring buffers with their formats/")

    def _open(self, kind: str, paths: list[Path]) -> Iterator[Block]:
        self.kind = kind
        self.used.update(paths)
        if self.facts.instance is not None and kind != "tracedat":
            raise BadInput(paths[0], "", "is not a trace.dat, so it has no instance to choose", "leave out --instance")
        if kind == "ring":
            if self.formats is None:
                raise BadInput(paths[0], "", "is a raw ring buffer without its event formats",
                               "name the directory of formats with --formats")
            return ring_stream(paths, self.formats, self.facts)
        if kind == "tracedat":
            return tracedatevents.stream(paths[0], self.facts)
        if kind == "text":
            return textevents.stream(paths[0], self.facts)
        if kind == "perftext":
            return perftext.stream(paths[0], self.facts)
        if kind == "bpftrace":
            return bpftracejson.stream(paths[0], self.facts)
        raise BadInput(paths[0], "", "is not a trace that zreplay can import",
                       "give a trace.dat, ftrace text, or raw ring buffers with their formats/")
