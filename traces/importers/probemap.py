# SPDX-License-Identifier: GPL-2.0-or-later
"""Which foreign probe event is which event of the vocabulary, and which of its fields fill which columns.

The keys are the event names that recording scripts gave their dynamic events (``dynamic_events`` in tracefs
ties them to kernel functions).  Adding a script's names means adding rows here, nothing else.  Events that bear
the function's name are known too (:func:`known_probe`), as the vocabulary of traces/FORMAT.md writes it
(``zswap_store``, ``zswap_store_ret``), and as 'perf probe' (``zswap_store__return``), the kernel's fprobes
(``zswap_store__entry``, ``zswap_store__exit``) and its unnamed kprobes (``p_zswap_store_0``, ``r_zswap_store_0``) do.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from traces import schema
from traces.importers.eventformat import EventFormat

__all__ = ["COPY", "MASK_LINK", "ORDER", "TEXT", "TEXT_AT", "Move", "ProbeTable", "apply_moves", "known_probe",
           "moves_for", "probe_names", "source_fields", "vocabulary_name"]

#: How a field becomes a column value.
COPY: Final = 0  #: as it is
MASK_LINK: Final = 1  #: scatterlist.page_link: the low two bits are flags (include/linux/scatterlist.h)
ORDER: Final = 2  #: folio order: second field's low byte if PG_head (bit 6 of flags) is set, else 0
TEXT: Final = 3  #: NUL-terminated text to the end of the record
TEXT_AT: Final = 4  #: the same where the field's low half says (__data_loc), of the length in its high half

_PG_HEAD = 6

#: probe event -> (vocabulary event, {column: field or alternatives})
_MAP: Final[dict[str, tuple[str, str]]] = {
    "swap_out": ("swap_writeout", "folio=folio|page swpent=swp order=fl,fl1"),
    "swap_out_ret": ("swap_writeout_ret", "ret"),
    "swapwrite": ("__swap_writepage", "folio=folio swpent=swp word=fl"),
    "store": ("zswap_store", "folio swpent=swp order=fl,fl1"),
    "store_ret": ("zswap_store_ret", "ret"),
    "load": ("zswap_load", "folio swpent=swp"),
    "load_ret": ("zswap_load_ret", "ret word=fl"),
    "inval": ("zswap_invalidate", "swpent=swp"),
    "dec": ("zswap_decompress", "entry swpent=swp size=len handle folio"),
    "efree": ("zswap_entry_free", "entry swpent=swp size=len handle ref"),
    "swapin_ref": ("zswap_folio_swapin", "folio"),
    "total_pages": ("zswap_total_pages_ret", "ret"),
    "pool_create": ("zswap_pool_create", ""),
    "pool_create_ret": ("zswap_pool_create_ret", "ret"),
    "wb": ("zswap_writeback_entry", "entry swpent=swp"),
    "wb_ret": ("zswap_writeback_entry_ret", "ret"),
    "shrink_cb": ("shrink_memcg_cb", "entry=item"),
    "shrink_cb_ret": ("shrink_memcg_cb_ret", "ret"),
    "shrink_memcg": ("shrink_memcg", "memcg"),
    "shrink_memcg_ret": ("shrink_memcg_ret", "ret"),
    "shrink_worker": ("shrink_worker", ""),
    "shrink_worker_ret": ("shrink_worker_ret", ""),
    "shr_scan": ("zswap_shrinker_scan", "size=nr memcg nid"),
    "shr_count": ("zswap_shrinker_count", "memcg nid"),
    "shr_count_ret": ("zswap_shrinker_count_ret", "ret"),
    "lru_reparent": ("memcg_reparent_list_lrus", "memcg pool=parent"),
    "shr_scan_ret": ("zswap_shrinker_scan_ret", "ret"),
    "comp": ("crypto_acomp_compress", "folio=pglink offset=off size=slen dlen=room"),
    "comp_ret": ("crypto_acomp_compress_ret", "ret dlen"),
    "decomp": ("crypto_acomp_decompress", "size=slen dlen"),
    "decomp_ret": ("crypto_acomp_decompress_ret", "ret dlen"),
    "may_zswap": ("obj_cgroup_may_zswap_ret", "ret memcg=objcg pool=memcg"),
    "charge": ("obj_cgroup_charge_zswap", "memcg=objcg size"),
    "uncharge": ("obj_cgroup_uncharge_zswap", "memcg=objcg size"),
    "wb_enabled": ("mem_cgroup_zswap_writeback_enabled_ret", "ret memcg"),
    "lru_add": ("list_lru_add", "pool=lru entry=item nid memcg"),
    "lru_add_ret": ("list_lru_add_ret", "ret"),
    "lru_del": ("list_lru_del", "pool=lru entry=item nid memcg"),
    "zmalloc": ("zs_malloc", "pool size gfp"),
    "zmalloc_ret": ("zs_malloc_ret", "handle obj size"),
    "zfree": ("zs_free", "pool handle obj"),
    "objwrite": ("zs_obj_write", "handle size=len data=d0"),
    "objread": ("zs_obj_read", "handle size=len"),
    "zs_total": ("zs_get_total_pages_ret", "ret"),
    "obj_malloc": ("obj_malloc", "zspage handle"),
    "obj_malloc_ret": ("obj_malloc_ret", "obj zspage handle word=zw0 inuse freeobj"),
    "obj_free": ("obj_free", "size=class_size obj"),
    "fullness": ("fix_fullness_group", "pool=class zspage word=zw0 inuse"),
    "fullness_ret": ("fix_fullness_group_ret", "ret=fg"),
    "free_zspage": ("__free_zspage", "pool=class zspage"),
    "async_free": ("async_free_zspage", ""),
    "zs_shrink": ("zs_shrinker_scan", "pool"),
    "zs_shrink_ret": ("zs_shrinker_scan_ret", "ret=freed"),
    "zs_compact": ("zs_compact", "pool"),
    "zs_compact_ret": ("zs_compact_ret", "ret=freed"),
    "zsc": ("__zs_compact", "pool=class"),
    "zsc_ret": ("__zs_compact_ret", "ret=freed"),
    "zs_migrate": ("zs_page_migrate", "folio=page"),
    "param_set": ("param_attr_store", "text=name,val"),
    "param_set_ret": ("param_attr_store_ret", "ret"),
    "zmax_set": ("zswap_max_write", "data=cgid text=val"),
    "zmax_set_ret": ("zswap_max_write_ret", "ret"),
    "zwb_set": ("zswap_writeback_write", "data=cgid text=val"),
    "zwb_set_ret": ("zswap_writeback_write_ret", "ret"),
    "css_online": ("mem_cgroup_css_online", "memcg pool=parent data=cgid"),
    "css_offline": ("mem_cgroup_css_offline", "memcg"),
    "css_offline_ret": ("mem_cgroup_css_offline_ret", "memcg"),
    "css_reset": ("mem_cgroup_css_reset", "memcg"),
    "zcurrent": ("zswap_current_read_ret", "memcg pool=parent data=cgid ret=bytes"),
    "print": ("marker", "text=buf"),
    "tracing_mark_write": ("marker", "text=buf"),
}


@dataclass(frozen=True)
class Move:
    """One field to one column: ``how`` is COPY, MASK_LINK, ORDER or TEXT; texts of one column are joined by "="."""

    column: str
    how: int
    field: str
    second: str = ""


#: vocabulary event -> the first row of it
_OF_NAME: Final[dict[str, str]] = {}
for _probe, (_name, _) in _MAP.items():
    if _name != "marker":
        _OF_NAME.setdefault(_name, _probe)
#: how an event tells that it is a function's entry or its return; the kernel makes these names itself
_ENTRY: Final = re.compile(r"(.+)__entry|p_(.+)_0")
_RETURN: Final = re.compile(r"(.+)__(?:return|exit)|r_(.+)_0")


def known_probe(event: str, fields: Collection[str] = ()) -> str:
    """Return the row's name of an event that bears its function's name; any other name as it is.

    :param fields: what the event has, where that is known: a return that bears the bare name tells by its ``ret``
    """
    if event in _MAP:
        return event
    if found := _ENTRY.fullmatch(event):
        name = found[1] or found[2]
    elif found := _RETURN.fullmatch(event):
        name = (found[1] or found[2]) + "_ret"
    else:
        name = event
        if "ret" in fields and name + "_ret" in _OF_NAME and "ret" not in _MAP.get(_OF_NAME.get(name, ""), ("", ""))[1]:
            name += "_ret"
    return _OF_NAME.get(name, event)


def vocabulary_name(probe: str, fields: Collection[str] = ()) -> str | None:
    """Return the vocabulary's name of a probe event, or None when the vocabulary has no such event."""
    row = _MAP.get(known_probe(probe, fields))
    return row[0] if row else None


def probe_names() -> dict[str, str]:
    """Return probe event -> vocabulary event for every event that a probe can cause."""
    return {probe: name for probe, (name, _) in _MAP.items() if name != "marker"}


def source_fields(probe: str) -> list[tuple[str, str]]:
    """Return (field, column) of a probe event's fields in order; a folio's flags word is column ``flags``."""
    out: list[tuple[str, str]] = []
    for item in _MAP[probe][1].split():
        column, _, source = item.partition("=")
        if column == "text":
            out += [(name, column) for name in source.split(",")]
            continue
        first, _, second = (source or column).split("|")[0].partition(",")
        out.append((first, "flags" if second else column))
        if second:
            out.append((second, column))
    return out


def moves_for(probe: str, available: set[str]) -> list[Move]:
    """Return the moves for a probe event whose records have the ``available`` fields.

    A field the probe did not capture leaves its column absent; the manifest lists what was captured.
    """
    moves: list[Move] = []
    for item in _MAP[known_probe(probe, available)][1].split():
        column, _, source = item.partition("=")
        source = source or column
        if column == "text":
            names = source.split(",")
            # Half of "name=value" is no text.
            moves += [Move(column, TEXT, name) for name in names if available.issuperset(names)]
        elif "," in source:
            first, second = source.split(",")
            if {first, second} <= available:
                moves.append(Move(column, ORDER, first, second))
        else:
            name = next((name for name in source.split("|") if name in available), None)
            if name is not None:
                moves.append(Move(column, MASK_LINK if name == "pglink" else COPY, name))
    return moves


def apply_moves(moves: list[Move], fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Apply moves to whole arrays of parsed field values (text importers); TEXT moves are left out."""
    out: dict[str, np.ndarray] = {}
    for move in moves:
        if move.how == TEXT:
            continue
        values = fields[move.field].astype(np.int64)
        if move.how == MASK_LINK:
            values = values & ~np.int64(3)
        elif move.how == ORDER:
            head = (values >> _PG_HEAD) & 1
            values = np.where(head == 1, fields[move.second].astype(np.int64) & 0xFF, 0)
        out[move.column] = values
    return out


@dataclass
class ProbeTable:
    """The moves of all event types of one ring, as arrays that the decoder's inner loop can use.

    ``plan_of_id[id]`` is the event type's plan or -1; plan p has the moves ``first[p]:first[p + 1]`` and the
    vocabulary code ``code[p]``; a record of it needs at least ``need[p]`` bytes.
    """

    plan_of_id: np.ndarray
    code: np.ndarray
    need: np.ndarray
    first: np.ndarray
    move: np.ndarray  #: rows of (how, column, offset, size, signed, second offset)
    pid_offset: np.ndarray
    names: list[str]
    captured: dict[str, list[str]]
    ignored: dict[int, str]

    @classmethod
    def build(cls, formats: list[EventFormat]) -> ProbeTable:
        """Make the table for the event types of one boot; types outside the vocabulary are only counted."""
        columns = {name: index for index, name in enumerate(schema.column_names())}
        plan_of_id = np.full(1 << 16, -1, np.int32)
        code: list[int] = []
        need: list[int] = []
        first = [0]
        move: list[tuple[int, int, int, int, int, int]] = []
        pid_offset: list[int] = []
        names: list[str] = []
        captured: dict[str, list[str]] = {}
        ignored: dict[int, str] = {}
        for fmt in formats:
            name = vocabulary_name(fmt.name, fmt.fields)
            if name is None:
                ignored[fmt.id] = fmt.name
                continue
            end = max(8, fmt.fields["common_pid"].offset + 4)
            kept = []
            for step in moves_for(fmt.name, {f.name for f in fmt.fields.values()}):
                field = fmt.fields[step.field]
                second = fmt.fields[step.second].offset if step.second else 0
                how = TEXT_AT if step.how == TEXT and field.is_elsewhere else step.how
                if (how != TEXT and field.size not in (1, 2, 4, 8)) or (how == TEXT_AT and field.size != 4):
                    continue
                move.append((how, columns[step.column], field.offset, field.size, int(field.signed), second))
                end = max(end, field.offset + (0 if how == TEXT else field.size), second + 1)
                kept.append(step.column)
            plan_of_id[fmt.id] = len(code)
            code.append(schema.CODE[name])
            need.append(end)
            first.append(len(move))
            pid_offset.append(fmt.fields["common_pid"].offset)
            names.append(name)
            captured[name] = list(dict.fromkeys(kept))
        return cls(plan_of_id, np.array(code, np.int64), np.array(need, np.int64), np.array(first, np.int64),
                   np.array(move, np.int64).reshape(-1, 6), np.array(pid_offset, np.int64), names, captured,
                   ignored)
