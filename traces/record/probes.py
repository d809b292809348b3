# SPDX-License-Identifier: GPL-2.0-or-later
"""The probes a recording is made of, of the table of events; offsets and flags where a kernel does not say its own.

:mod:`plan` fills in what the table leaves open (:class:`traces.events.Field`).
"""

from __future__ import annotations

from typing import NamedTuple

from traces.events import EVENTS

__all__ = ["DRIVER_PAGES", "FLAG_BITS", "OFFSETS", "PAGE_SOURCES", "PROBES", "Probe"]


class Probe(NamedTuple):
    """One event of the recording.

    ``event``: its name in tracefs, a key of the importer's probe map; ``vocabulary``: its name in a recording;
    ``functions``: kernel functions to hook, the first that exists is taken; ``at_return``: hook the return;
    ``fields``: what to fetch; ``checks``: ids of the replay's checks that cannot be made without it.
    """

    event: str
    vocabulary: str
    functions: tuple[str, ...]
    at_return: bool
    fields: tuple[str, ...]
    checks: tuple[str, ...]


def _probes() -> tuple[Probe, ...]:
    """Return the probe of every event that has one."""
    return tuple(Probe(event.probe, event.name, event.functions, event.at_return,
                       tuple(f"{field.sources[0]}={field.fetch}" for field in event.fields), event.checks)
                 for event in EVENTS if event.functions)


PROBES: tuple[Probe, ...] = _probes()

#: Byte offsets where the kernel has no BTF: x86-64, Linux 6.12 to 7.3.  The others depend on the configuration.
OFFSETS: dict[str, int] = {
    "folio.flags": 0, "folio.swap": 40, "folio._flags_1": 64, "zswap_entry.swpentry": 0, "zswap_entry.length": 8,
    "zswap_entry.referenced": 12, "zswap_entry.handle": 24, "acomp_req.src": 48, "acomp_req.slen": 64,
    "acomp_req.dlen": 68, "scatterlist.page_link": 0, "scatterlist.offset": 8, "zspage.inuse": 4,
    "zspage.freeobj": 8, "shrink_control.nid": 4, "shrink_control.nr_to_scan": 8, "shrink_control.memcg": 24,
    "shrinker.private_data": 88, "obj_cgroup.memcg": 16,
}

#: Bits of a folio's flags that are read, by their names in enum pageflags: the same from 6.12 to 7.3.
FLAG_BITS: dict[str, int] = {"PG_uptodate": 3, "PG_dirty": 4, "PG_head": 6, "PG_reclaim": 16}

#: Compressor -> the function of it whose argument is the source page's virtual address, and that argument.
#: These live in modules, whose parameters vmlinux BTF does not have; they are the same from 6.12 to 7.3.
PAGE_SOURCES: dict[str, tuple[str, str]] = {
    "lz4": ("lz4_scompress", "$arg2"),
    "lz4hc": ("lz4hc_scompress", "$arg2"),
    "lzo": ("lzo_scompress", "$arg2"),
    "lzo-rle": ("lzorle_scompress", "$arg2"),
    "zstd": ("zstd_compress_cctx", "$arg4"),
    "deflate": ("zlib_deflate", "+0($arg1)"),  # z_stream.next_in
    "842": ("sw842_compress", "$arg1"),
    "deflate-iaa": ("fake_iaa_compress_page", "$arg1"),  # the lab's module; no function sees the pages of real hardware
}
#: Those of them that are a driver's, not software's.
DRIVER_PAGES: frozenset[str] = frozenset(("fake_iaa_compress_page",))
