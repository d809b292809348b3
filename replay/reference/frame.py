# SPDX-License-Identifier: GPL-2.0-or-later
"""One running operation of a task, and what its handlers leave for those of its later effects."""

from __future__ import annotations

from typing import Any

from model.effects import Effect, Steps
from model.zsmalloc import SizeClass, ZsObject, Zspage, ZsPool
from model.zswap import Folio, ZswapEntry, ZswapPool

__all__ = ["Frame", "HandedOn"]


class HandedOn:
    """What one handler leaves for a later one of the same operation; a value that was not left is the default.

    Defaults are the class's: most operations leave few of these.
    """

    #: the folio that is written out
    folio: Folio | None = None
    #: a compress call: its page's row of the page store, how many pages it takes, the pool that the store holds
    content: int = -1
    pages: int = 1
    #: its event
    called: int = -1
    pool: ZswapPool | None = None
    #: what it returned, (error, dlen), where it took one page and both were captured
    result: tuple[int, int] | None = None
    #: it failed before it wrote a length, as the model of iaa_crypto has it; None: that is not known
    unwritten: bool | None = False
    #: what it left as the lengths of several pages, as the model of iaa_crypto has them
    lengths: tuple[int, ...] = ()
    #: a page of them is known to have failed
    failed: bool = False
    #: what mem_cgroup_zswap_writeback_enabled() returned last
    writeback: bool | None = None
    #: the obj_cgroup that the folio's first page was charged to
    objcg: int | None = None
    #: the sum of the pools' totals that were read and not yet compared
    totals: int | None = None
    #: the object that is read or written
    held: ZsObject | None = None
    #: the zspage whose fullness group is set right
    fullness: Zspage | None = None
    #: the pool that the operation compacts, and the size class it is at
    compacts: ZsPool | None = None
    size_class: SizeClass | None = None
    #: the entry that is read back, the bytes read of its object, what the decompress call returned, (error, dlen)
    reading: ZswapEntry | None = None
    read: int = 0
    inflated: tuple[int, int] | None = None
    #: what the compressor's driver got from its software fallback in the call at hand, (error, dlen)
    software: tuple[int, int] | None = None


class Frame:
    """One running operation of a task.

    ``effect``: the next effect, if the generator already stands at it; ``last``: the one that was matched last;
    ``answer``: what the generator is sent next; ``inflight``: pages that this task was about to add to (or take from)
    a pool's total when last seen.
    """

    __slots__ = ("answer", "effect", "gen", "handed", "inflight", "last", "name", "start")

    def __init__(self, name: str, gen: Steps[Any], start: int) -> None:
        self.name = name
        self.gen = gen
        self.start = start
        self.effect: Effect | None = None
        self.last: Effect = (name,)
        self.answer: Any = None
        self.inflight = 0
        self.handed = HandedOn()
