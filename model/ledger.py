# SPDX-License-Identifier: GPL-2.0-or-later
"""What was allocated, mapped or locked and has to be given back: an oracle that does not know the code under test.

A model says what the kernel takes and gives back; the ledger says whether that balances.  It finds what is freed twice,
freed without having been allocated, or leaked, whichever revision does it and for whatever reason.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Ledger"]


class Ledger:
    """Things taken, by kind: ``zswap_entry`` (slab objects), ``kmap`` (local mappings), ``buffer`` and the like.

    ``problems`` lists in sentences what was given back wrongly, in the order it happened.
    """

    def __init__(self) -> None:
        self._live: dict[str, dict[Any, None]] = {}
        self.problems: list[str] = []

    def take(self, kind: str, thing: Any) -> None:
        """Something was allocated, mapped or locked; ``thing`` is any hashable name of it."""
        live = self._live.setdefault(kind, {})
        if thing in live:
            self.problems.append(f"{kind} {thing!r} is taken again while it is live")
        live[thing] = None

    def give(self, kind: str, thing: Any) -> None:
        """It was freed, unmapped or unlocked."""
        if thing not in self._live.get(kind, {}):
            self.problems.append(f"{kind} {thing!r} is given back but is not live")
        else:
            del self._live[kind][thing]

    def use(self, kind: str, thing: Any) -> None:
        """It is read or written: it has to be live."""
        if thing not in self._live.get(kind, {}):
            self.problems.append(f"{kind} {thing!r} is used but is not live")

    def live(self, kind: str) -> int:
        """Return how many of a kind are live."""
        return len(self._live.get(kind, {}))

    def things(self, kind: str) -> list[Any]:
        """Return the live things of a kind, oldest first."""
        return list(self._live.get(kind, {}))
