# SPDX-License-Identifier: GPL-2.0-or-later
"""Replace recorded page bytes by synthetic pages that compress to the same lengths.

A recording with page bytes is a piece of a user's memory.  Scrubbed, it replays to the same verdict: every
page gives the same length or error with the compressors that were recorded, but nothing else of it is left,
neither its bytes nor its digest.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from model.crypto import Compressor
from replay.iaa.jobs import LEFT_OUT, has_devices
from replay.verdict.setup import recorded_compressors
from traces import schema
from traces.chained import chained_pages, write_chained
from traces.errors import BadInput
from traces.recording import Recording, RecordingWriter

__all__ = ["Scrubbed", "scrub", "synthetic_page"]

_NAMES: Final = schema.column_names()
_COLUMN: Final = {name: index for index, name in enumerate(_NAMES)}
_ATTEMPTS: Final = 4000
#: Digits of a digest that has a key, which was thrown away: such a digest reveals nothing.
_KEYED_DIGITS: Final = 64


@dataclass(frozen=True)
class Scrubbed:
    """What was done: pages replaced, and pages for which no synthetic page of the same lengths was found: of those
    only a synthetic digest is left; digests replaced of pages whose bytes were not there; ``heads``: first bytes of
    objects were left out, as others can only be made from pages."""

    pages: int
    unmatched: int
    digests: int = 0
    heads: bool = False


def _candidates(target: int, chance: random.Random) -> Iterator[bytes]:
    """Yield pages whose compressed length is about ``target`` bytes, in ever different ways."""
    size = schema.PAGE_SIZE
    while True:
        if target < 96:
            # A short pattern over and over: its own bytes and little more.
            pattern = chance.randbytes(chance.randrange(1, max(2, target)))
            yield (pattern * (size // len(pattern) + 1))[:size]
        fresh = min(size, max(0, target - chance.randrange(-4, 48)))
        fill = chance.randbytes(chance.choice((1, 1, 2, 4)))
        tail = (fill * size)[:size - fresh]
        head = chance.randbytes(fresh)
        cut = chance.randrange(fresh + 1) if chance.random() < 0.5 else fresh
        yield (head[:cut] + tail + head[cut:])[:size]


def synthetic_page(page: bytes, compressors: list[Compressor], chance: random.Random) -> bytes | None:
    """Return a synthetic page that compresses like ``page`` with all of ``compressors``: same error, same length.

    None when none was found in a bounded number of attempts.
    """
    wanted = [compressor.compress(page)[:2] for compressor in compressors]
    if all(err for err, _ in wanted):
        return chance.randbytes(schema.PAGE_SIZE)
    target = max(length for err, length in wanted if not err)
    for attempt, candidate in enumerate(_candidates(target, chance)):
        if attempt == _ATTEMPTS:
            return None
        if all(compressor.compress(candidate)[:2] == result
               for compressor, result in zip(compressors, wanted, strict=True)):
            return candidate
    return None


def scrub(recording: Recording, out: str, *, seed: int | None = None,
          progress: Callable[[str, int, int], None] | None = None) -> Scrubbed:
    """Write a copy of a recording without its page bytes, digests and first bytes of objects.

    Where it has no page bytes, digests of pages become synthetic, and first bytes and objects are left out.

    :param seed: makes the result repeatable; by default it is not
    :raises BadInput: when the recording holds nothing of pages, or its compressors have no exact implementation here
    """
    store = recording.pages
    with_bytes = store is not None and bool(recording.manifest.get("pages", {}).get("with_bytes"))
    heads = not with_bytes and any(column in recording.manifest["probes"].get(event, {}).get("columns", ())
                                   for event, column in schema.PAGE_BYTES)
    plain = store is not None and any(len(digest) != _KEYED_DIGITS for digest in store.sha1)
    if not (with_bytes or heads or plain or "objects.parquet" in recording.manifest["files"]):
        raise BadInput(recording.path, "", "holds no page bytes, and no digests without a key",
                       "pass it on as it is, or give one that was recorded with --pages full or sample:N")
    compressors = recorded_compressors(recording) if with_bytes else []
    chance = random.Random(seed) if seed is not None else random.SystemRandom()
    pages: list[bytes | None] = []
    sha1: list[str] = []
    unmatched = 0
    bare = 0
    for first, block in store.blocks() if store is not None else ():
        for page in block:
            made = synthetic_page(page, compressors, chance) if page is not None else None
            unmatched += page is not None and made is None
            bare += page is None
            pages.append(made)
            sha1.append(hashlib.sha1(made).hexdigest() if made is not None else chance.randbytes(32).hex())
        if progress is not None and store is not None:
            progress("making pages", first + len(block), len(store))
    with RecordingWriter(out) as writer:
        _events(recording, writer, pages, compressors if with_bytes else None)
        for number, snapshot in enumerate(recording.snapshots):
            writer.add_snapshot(snapshot["label"], snapshot["ts"], recording.snapshot(number))
        for row in store.refs.tolist() if store is not None else ():
            writer.pages.add(pages[row], sha1[row])
        truth = recording.table("truth")
        if truth is not None:
            new = dict(zip(store.sha1, sha1, strict=True)) if store is not None else {}
            for old in truth["sha1"]:
                new.setdefault(old, chance.randbytes(32).hex())
            truth["sha1"] = [new[old] for old in truth["sha1"]]
            writer.add_table("truth", truth)
        if chained := chained_pages(recording):
            write_chained(writer, chained)
        state = recording.document("state")
        if state is not None:
            writer.add_json("state", state)
        manifest = {key: value for key, value in recording.manifest.items()
                    if key not in ("segments", "snapshots", "pages", "files", "rows")}
        said = "pages are synthetic, their compressed lengths are the recorded ones" if with_bytes else \
            "digests of pages are synthetic, first bytes of objects are left out"
        manifest["notes"] = [*manifest.get("notes", []), f"scrubbed: {said}"]
        if has_devices(recording):
            manifest["notes"].append(LEFT_OUT)
        if heads:
            manifest["probes"] = {name: {**probe, "columns": [column for column in probe["columns"]
                                                              if (name, column) not in schema.PAGE_BYTES]}
                                  for name, probe in manifest["probes"].items()}
        writer.close(manifest)
    return Scrubbed(len(pages) - bare, unmatched, bare, heads)


def _events(recording: Recording, writer: RecordingWriter, pages: list[bytes | None],
            compressors: list[Compressor] | None) -> None:
    """Copy the events; the first bytes of a written object become those of the synthetic page's.

    :param compressors: None where no pages were recorded: first bytes become 0 then
    """
    store = recording.pages
    # The page that each task handed to the compressor last is the one its next object is made from.
    current: dict[int, int] = {}
    heads: dict[tuple[int, int], int] = {}
    write, compress = schema.CODE["zs_obj_write"], schema.CODE["crypto_acomp_compress"]
    for _, columns in recording.batches(_NAMES, rows=1 << 18):
        block = _block(columns)
        events = block[_COLUMN["event"]]
        for row in np.flatnonzero((events == write) | (events == compress)):
            pid = int(block[_COLUMN["pid"], row])
            if events[row] == compress:
                current[pid] = int(block[_COLUMN["content"], row])
                continue
            content = current.get(pid, -1)
            page = int(store.refs[content]) if content >= 0 and store is not None else -1
            size = int(block[_COLUMN["size"], row])
            key = (page, size)
            if key not in heads:
                heads[key] = _head(pages[page] if page >= 0 else None, size, compressors or [])
            block[_COLUMN["data"], row] = np.uint64(heads[key]).view(np.int64)
        writer.write_rows(block, [(row, text) for row, text in enumerate(columns["text"]) if text])


def _head(page: bytes | None, size: int, compressors: list[Compressor]) -> int:
    if page is None:
        return 0
    written = page
    if size < schema.PAGE_SIZE:
        written = next((result.data for result in (c.compress(page) for c in compressors)
                        if not result.err and result.dlen == size), b"")
    return int.from_bytes(written[:8], "little")


def _block(columns: dict[str, np.ndarray]) -> np.ndarray:
    block = np.zeros((len(_NAMES), len(columns["ts"])), np.int64)
    for index, name in enumerate(_NAMES):
        if name != "text":
            values: Any = columns[name]
            block[index] = values.view(np.int64) if values.dtype == np.uint64 else values
    return block
