# SPDX-License-Identifier: GPL-2.0-or-later
"""The hierarchy of cgroups as zswap looks at it: limits and writeback count from a cgroup up to the root.

Mirrors obj_cgroup_may_zswap() and mem_cgroup_zswap_writeback_enabled() of mm/memcontrol.c (Linux 6.12 to 7.3).  A
setting is the set of values that it may have: one where it is known, two while it is being written, None where it is
not known.  So an answer is the set of what the kernel may return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from model.memcg import UNLIMITED
from model.page import PAGE_SIZE

__all__ = ["EITHER", "Cgroup", "Cgroups"]

#: it is not known which
EITHER: Final = frozenset({True, False})
_YES: Final = frozenset({True})
_NO: Final = frozenset({False})


class Cgroup:
    """struct mem_cgroup, as far as zswap's settings are concerned.

    ``id``: of its directory; ``parent`` is None for the root, and where the parent is not known; ``children`` in the
    order of their creation, as far as that is known; ``zswap_max`` in pages, ``zswap_writeback``: the values that they
    may have, None where they are not known; ``online`` until its directory is removed.
    """

    __slots__ = ("children", "id", "is_root", "online", "parent", "path", "zswap_max", "zswap_writeback")

    def __init__(self, number: int, parent: Cgroup | None, *, is_root: bool = False, path: str = "") -> None:
        self.id = number
        self.parent = parent
        self.is_root = is_root
        self.path = path
        self.children: list[Cgroup] = []
        self.online = True
        self.zswap_max: frozenset[int] | None = None
        self.zswap_writeback: frozenset[bool] | None = None
        if parent is not None:
            parent.children.append(self)

    def __repr__(self) -> str:
        return f"<cgroup {self.path or self.id}>"

    def up(self) -> Iterator[Cgroup]:
        """Yield this cgroup and those above it, as far as they are known; the root comes last."""
        cgroup: Cgroup | None = self
        while cgroup is not None:
            yield cgroup
            cgroup = cgroup.parent

    def above_known(self) -> bool:
        """True where all cgroups up to the root are known."""
        return list(self.up())[-1].is_root

    def is_below(self, other: Cgroup) -> bool:
        """True for ``other`` itself and all cgroups below it."""
        return any(cgroup is other for cgroup in self.up())


class Cgroups:
    """All cgroups of a box that are known, by id."""

    def __init__(self) -> None:
        self.by_id: dict[int, Cgroup] = {}

    def add(self, number: int, parent: Cgroup | None, *, is_root: bool = False, path: str = "") -> Cgroup:
        """mem_cgroup_css_online(): a new cgroup.

        It replaces one of the same id whose controller was disabled and enabled again.
        """
        before = self.by_id.get(number)
        if before is not None:
            before.online = False
        cgroup = self.by_id[number] = Cgroup(number, parent, is_root=is_root, path=path)
        return cgroup

    def offline(self, cgroup: Cgroup) -> None:
        """mem_cgroup_css_offline(): its charges belong to its parent from now on."""
        cgroup.online = False
        if self.by_id.get(cgroup.id) is cgroup:
            del self.by_id[cgroup.id]

    @staticmethod
    def may_zswap(cgroup: Cgroup | None, held: Callable[[Cgroup], tuple[int, int]]) -> frozenset[bool]:
        """obj_cgroup_may_zswap(): every limit from a cgroup up, but for the root, has to allow one more page.

        :param cgroup: whose folio it is; None where that is not known
        :param held: least and most that a cgroup and those below it are charged, bytes
        """
        if cgroup is None:
            return EITHER
        sure = True
        for at in cgroup.up():
            if at.is_root:
                return _YES if sure else EITHER
            said: set[bool] = set()
            for limit in at.zswap_max if at.zswap_max is not None else ():
                if limit in (UNLIMITED, 0):
                    said.add(limit == UNLIMITED)
                else:
                    said |= {pages // PAGE_SIZE < limit for pages in held(at)}
            if said == _NO:
                return _NO
            sure = sure and said == _YES
        return EITHER

    @staticmethod
    def writeback_enabled(cgroup: Cgroup | None) -> frozenset[bool]:
        """mem_cgroup_zswap_writeback_enabled(), of an enabled zswap: no cgroup from this one up forbids it."""
        if cgroup is None:
            return EITHER
        sure = True
        for at in cgroup.up():
            if at.zswap_writeback == _NO:
                return _NO
            sure = sure and at.zswap_writeback == _YES
        return _YES if sure and cgroup.above_known() else EITHER
