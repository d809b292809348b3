# SPDX-License-Identifier: GPL-2.0-or-later
"""What a difference means for the owner of the memory: per check, what is at stake and why.

These sentences say what follows from the kernel's code in general; whether data were harmed in one recording is what
the checks ``load.*`` and the invariants say.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["RESPECTS", "STAKES", "Stake", "in_this_case", "stake"]

#: what is at stake, and a sentence
Stake = tuple[str, str]

#: check -> stake
STAKES: Final[dict[str, Stake]] = {
    "iaa.queue": (
        "speed",
        "Which work queue a CPU uses decides how the devices share the load, and which jobs wait for each other. Data "
        "do not depend on it."),
    "iaa.submit": (
        "data",
        "A descriptor says what the device does, with which bytes, and how much it may write. One that differs may "
        "compress something else, or write further than its room."),
    "iaa.completion": (
        "data",
        "What the driver makes of a completion record is what zswap is given: an error that is lost is a page that is "
        "not what was stored, a length that differs is another object."),
    "iaa.crc": (
        "data",
        "The device took the checksum of other bytes than those of the page that was handed over: it compressed "
        "something else."),
    "iaa.fallback": (
        "data, speed",
        "The software fallback is how a page is read that the device cannot read. One call too few is a page lost, one "
        "too many costs time."),
    "iaa.stats": (
        "counters",
        "The driver's statistics do not say what it did."),
    "effect.order": (
        "the path taken",
        "The kernel took another path through the code than the revision. From the order alone it does not "
        "follow that data or counters are wrong: that depends on what the two paths do differently."),
    "swap.writeout": (
        "where pages go",
        "Whether a folio stays in zswap or is written to the swap device decides I/O, and what zswpout and "
        "pswpout count."),
    "store.result": (
        "data, where pages go",
        "When zswap_store() returns 1, zswap has the only copy of the folio; when it returns 0, the folio is "
        "written to the swap device. A wrong 1 is a page that is stored nowhere; a wrong 0 costs a write."),
    "store.length": (
        "data, counters",
        "The length is what the object is allocated by, what its cgroup is charged and what the decompressor is "
        "asked to read. Where it is not the compressor's own, a load can give other bytes than were stored."),
    "store.error": (
        "where pages go",
        "Whether compressing a page fails decides if it is kept compressed, kept as it is or sent to the swap "
        "device, and which reject counter moves."),
    "store.raw": (
        "data",
        "A page that is kept as it is has to be kept whole: a load copies it back without looking."),
    "store.bytes": (
        "data",
        "What was written into the pool is not what the compressor makes of this page. A load decompresses what "
        "is there, whatever it is."),
    "acomp.calls": (
        "how pages are compressed",
        "Another page, another number of pages or other room was handed to the compressor. Fewer pages to a call "
        "cost time; the wrong page or too little room would cost data."),
    "acomp.batch": (
        "data",
        "zswap learns of a page that failed only through what the call returns. Where that is success although "
        "one failed, the folio is stored with whatever that page's length and buffer hold; where it is an error "
        "although none failed, a folio that could be stored is turned away."),
    "zsmalloc.size": (
        "memory, counters",
        "An object of another size lies in another size class, and its cgroup is charged for it."),
    "zsmalloc.pages": (
        "counters, the pool limit",
        "The pool's limit and Zswap in /proc/meminfo are computed from this total. Too high, stores are rejected "
        "early; too low, the pool outgrows its limit."),
    "zsmalloc.place": (
        "data, memory",
        "Where an object lies follows from the free lists. Where kernel and revision no longer agree on them, "
        "places may be handed out twice or never again."),
    "zsmalloc.fullness": (
        "memory",
        "The fullness group decides which zspage is filled next and which is compacted: how many pages the pool "
        "takes, not what they hold."),
    "zsmalloc.compact": (
        "memory",
        "Compaction gave back another number of pages than the pool's state lets it free."),
    "zsmalloc.handle": (
        "data",
        "A handle that is used after it was freed, or freed twice, leads to memory that may be another object's "
        "by now."),
    "sg.shape": (
        "data",
        "The decompressor reads what the scatter list covers: less than the object cuts it off, more adds bytes "
        "of another object."),
    "load.result": (
        "data",
        "A load that fails where it should succeed loses the page to its reader; one that succeeds where it "
        "should fail hands out bytes that may be wrong."),
    "load.entry": (
        "data",
        "The load read another entry, handle or length than the one stored last for this swap slot."),
    "load.content": (
        "data",
        "What is stored for a swap slot is not what was put there: the page's content is lost."),
    "load.folio": (
        "data",
        "zswap keeps nothing of a page that it gave back. A folio that is not dirty is dropped under memory pressure, "
        "and the page with it."),
    "writeback.folio": (
        "data, memory",
        "A folio that is written out without being up to date carries no page; one that is not marked for reclaim "
        "stays in memory, and writeback freed nothing."),
    "load.workload": (
        "data",
        "The workload read back other bytes than it had written. By any path, a program would have lost "
        "them."),
    "free.entry": (
        "memory, counters",
        "Another entry was freed than the one that died, or with another length: what is left is leaked, or still "
        "in use."),
    "lru.order": (
        "which pages are written back",
        "The LRU decides which page is written back next. Other pages go to the device; an entry on a wrong list "
        "is never found, or found under the wrong cgroup."),
    "shrink.worker": (
        "which pages are written back",
        "The worker takes turns between cgroups. Where it does not, one cgroup's pages go to the device while "
        "another's stay."),
    "memcg.charge": (
        "counters",
        "What is charged and not uncharged, or the reverse, stays in memory.zswap.current of that cgroup for as "
        "long as it lives."),
    "memcg.limit": (
        "where pages go",
        "obj_cgroup_may_zswap() enforces memory.zswap.max: pages are rejected early, or the limit does not hold."),
    "memcg.writeback": (
        "where pages go",
        "Where memory.zswap.writeback is 0, no page of the cgroup may reach the swap device."),
    "invariant.load": (
        "data",
        "A page was read back that is not the page stored: its reader continues with other bytes. No revision can "
        "intend that; one that predicts it is wrong."),
    "invariant.length": (
        "data",
        "A length that no compressor gave reached zs_malloc(): it was left over from an earlier call, or never "
        "written, and so may be what is taken for the page."),
    "invariant.raw": (
        "where pages go",
        "A page that does not compress was kept, though its cgroup forbids writeback: the store should have been "
        "refused."),
    "invariant.handle": (
        "data",
        "A handle that is used after it was freed, or given out twice, leads to memory of two objects at once."),
    "invariant.balance": (
        "memory, counters",
        "What was taken was not given back, or was counted without being there: memory is lost, or the "
        "counters show pages that do not exist."),
}
_COUNTERS: Final = {
    "zswap": "/sys/kernel/debug/zswap shows another number than the operations add up to",
    "vmstat": "/proc/vmstat shows another number than the operations add up to",
    "memcg": "the cgroup's files, which its limits rest on, show another number than the operations add up to",
    "meminfo": "/proc/meminfo shows another number than the operations add up to",
    "mthp": "the large folios' statistics show another number than the operations add up to",
    "zsmalloc": "zsmalloc's classes in debugfs show another number than the operations add up to",
}
#: respect in which two revisions differ -> what is at stake, in a word
RESPECTS: Final = {"data": "data", "result": "where pages go", "stored": "data, memory", "rejects": "counters",
                   "counters": "counters", "pages": "memory", "copies": "time", "calls": "time",
                   "order": "the path taken"}


def stake(check: str) -> Stake:
    """Return what is at stake where a check differs, in a word and in a sentence."""
    if check in STAKES:
        return STAKES[check]
    if check.startswith("counter."):
        source = check.split(".")[1]
        why = _COUNTERS.get(source, "the counter shows another number than the operations add up to")
        return "counters", f"{why[0].upper()}{why[1:]}."
    return "unknown", f"This zreplay does not describe the check {check}."


def in_this_case(check: str, recorded: Any, predicted: Any) -> str:
    """Return in a sentence which case of a stake two values are, "" where they do not show it."""
    if any(not isinstance(each, int) or isinstance(each, bool) for each in (recorded, predicted)):
        return ""
    if check == "acomp.batch" and (recorded == 0) != (predicted == 0):
        return "Here it is success." if recorded == 0 else "Here it is an error."
    if check == "store.result" and recorded in (0, 1):
        return f"Here it is a wrong {recorded}."
    if check.startswith("counter.") or check == "zsmalloc.pages":
        return f"Here it is off by {recorded - predicted:+,}."
    return ""


