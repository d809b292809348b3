# SPDX-License-Identifier: GPL-2.0-or-later
"""What a task's later events, in the rows at hand, show of an effect whose own event was not captured."""

from __future__ import annotations

from typing import Final

from model.page import PAGE_SIZE
from replay.reference.frame import Frame
from replay.reference.state import ReplayState
from traces import schema

__all__ = ["Lookahead"]

#: A compress call's pages are stored before the task's next one, or the store's end.
_STORE_ENDS: Final = frozenset({schema.CODE["crypto_acomp_compress"], schema.CODE["zswap_store_ret"],
                                schema.CODE["swap_writeout_ret"]})
#: events that show the length of what is stored, in the order in which a store comes to them
_LENGTHS: Final = ("zs_malloc", "zs_malloc_ret", "zs_obj_write", "obj_cgroup_charge_zswap")


class Lookahead:
    """Looks through the rows behind the one at hand for what the same task shows next."""

    def __init__(self, state: ReplayState) -> None:
        self.state = state
        self.batch = state.batch
        self.sees, self.guess = state.sees, state.guess
        #: what :meth:`length_source` found, and how many events were captured then: they only become fewer
        self._source = (-1, "")

    def length_source(self) -> str:
        """Return the first event of a store that shows the length of what is stored, ``""`` where none does."""
        captured = len(self.state.captured)
        if self._source[0] != captured:
            self._source = captured, next((name for name in _LENGTHS if self.sees(name, "size")), "")
        return self._source[1]

    def next_event(self, i: int, name: str, ahead: int, ends: frozenset[int] = _STORE_ENDS) -> int | None:
        """Return the row of the task's next ``name``, ``ahead`` of them passed over, before one whose code is in
        ``ends``; None also where the batch of rows at hand ends before.
        """
        batch = self.batch
        pid, code = batch.pid[i], schema.CODE[name]
        for row in range(i, len(batch.event)):
            if batch.pid[row] == pid:
                if batch.event[row] == code:
                    if not ahead:
                        return row
                    ahead -= 1
                elif batch.event[row] in ends:
                    return None
        if name != "zs_malloc":
            # Where zs_malloc() is asked for, it is the next event; others may come behind the rows at hand.
            self.guess(f"the rows at hand end before the {name} that would show what was not captured")
        return None

    def writes_page(self, content: int, i: int, frame: Frame) -> bool | None:
        """True where the next object this task writes begins like the page itself, None where nothing shows it."""
        batch, state = self.batch, self.state
        if not self.sees("zs_obj_write", "data"):
            return None
        pid, code = batch.pid[i], schema.CODE["zs_obj_write"]
        for row in range(i, len(batch.event)):
            if batch.pid[row] == pid and batch.event[row] == code:
                length = batch.size[row] if self.sees("zs_obj_write", "size") else PAGE_SIZE
                return state.predictions.begins_like_page(content, batch.data[row], length, state.compressor_of(frame))
        return None
