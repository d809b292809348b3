# SPDX-License-Identifier: GPL-2.0-or-later
"""Random sequences: number N of seed S is always the same, whatever was made before it.

Most operations are drawn one by one; some come as an episode of several, since a pool's limit or a cgroup's is not
reached by chance.  Draws keep to :class:`traces.workload.sequence.Rules`, so every sequence can be run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from traces.workload.sequence import FOLIOS, SQUEEZABLE, Rules, Sequence

__all__ = ["generate"]

#: Pages that a sequence touches in all, counted once per operation on them: some 40 s of a guest under TCG.
_WORK: Final = (28_000, 46_000)
_SIZES: Final = (64, 256, 512, 1024, 1536, 2048, 3072)
#: Only operations of an episode touch more: a burst longer than the recorder's ring would lose events.
_LARGEST: Final = 3072
#: Compressors that every distribution's kernel has, as often as they are taken at the start and switched to.
_COMPRESSORS: Final = {"zstd": 8, "lz4": 8, "deflate": 3, "lzo-rle": 2}
_MIXES: Final = {"mixed": 10, "solid": 5, "poor": 3, "text": 2, "code": 2, "zeros": 1, "random": 2, "json": 2,
                 "pointers": 2, "half": 3}
_CHUNKS: Final = (1, 4, 8, 16, 32, 64, 256)
_MEMORY: Final = (768, 1024)


def generate(seed: int, number: int) -> Sequence:
    """Return sequence ``number`` of a seed."""
    rng = random.Random(f"zreplay fuzz {seed} {number}")
    return _Maker(rng, f"seed {seed} number {number}").make()


def _weighted(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


class _Maker:
    """Makes one sequence.

    :param rng: where all of it is drawn from
    """

    def __init__(self, rng: random.Random, name: str) -> None:
        self.rng = rng
        workers = rng.choice((1, 1, 2))
        start: dict[str, Any] = {"compressor": _weighted(rng, _COMPRESSORS), "memory": rng.choice(_MEMORY),
                                 "cpus": rng.choice((1, 2)) if workers == 1 else 2, "workers": workers}
        params: dict[str, Any] = {}
        if rng.random() < .25:
            params["shrinker_enabled"] = "Y"
        if rng.random() < .15:
            params["max_pool_percent"] = rng.choice((1, 2, 5, 50))
        if rng.random() < .15:
            params["accept_threshold_percent"] = rng.choice((1, 50, 80, 99, 100))
        if params:
            start["params"] = params
        self.sequence = Sequence([], start, name)
        self.rules = Rules(self.sequence)
        #: most sequences keep to one size of folios, as a box does
        self.folio = rng.choice(("4k", "4k", "16k", "64k", "64k", "2M"))
        self.work = 0
        #: how many episodes are being drawn, one inside of the other
        self.depth = 0
        #: region -> about how many of its pages, of each worker, are in memory and would be stored
        self.inside: dict[str, int] = {}
        #: operation -> how often it is drawn in this sequence: each has a character of its own
        self.weights = {name: weight * rng.choice((0, 1, 1, 2, 4)) for name, weight in _WEIGHTS.items()}
        for name in ("map", "out"):
            self.weights[name] = max(self.weights[name], _WEIGHTS[name])

    def make(self) -> Sequence:
        """Draw operations until there is work enough."""
        wanted = self.rng.randrange(*_WORK)
        self._map()
        self._out()
        while self.work < wanted and len(self.sequence.operations) < 120:
            _DRAWS[_weighted(self.rng, self.weights)](self)
        return self.sequence

    def _add(self, do: str, work: int = 0, **arguments: Any) -> bool:
        """Append an operation where it may stand; ``work`` is what it costs each worker, in pages."""
        operation = {"do": do, **arguments}
        if self.rules.problem(operation):
            return False
        self.rules.take(operation)
        self.sequence.operations.append(operation)
        self._moved(do, operation.get("region", ""), arguments.get("first", 0), arguments.get("last"),
                    arguments.get("step", 1))
        # A setting costs a snapshot, and every operation some of its phase's end.
        self.work += 150 + work * self.rules.workers
        return True

    def _moved(self, do: str, region: str, first: int, last: int | None, step: int) -> None:
        """Estimate which pages are in memory after an operation."""
        if do == "swapoff":
            self.inside = dict(self.rules.regions)
        if not region:
            return
        pages, inside = self.rules.regions[region], self.inside.get(region, 0)
        count = ((pages if last is None else last) - first) // step
        if do in ("map", "fill", "read"):
            self.inside[region] = min(pages, inside + count)
        elif do in ("out", "unmap"):
            self.inside[region] = max(0, inside - count)
        else:
            self.inside[region] = pages // 2

    # Arguments of operations

    def _region(self) -> str:
        return self.rng.choice(sorted(self.rules.regions))

    def _pages(self) -> int:
        most = min(_LARGEST // self.rules.workers, self.rules.room())
        return self.rng.choice([size for size in _SIZES if size <= most] or [16])

    def _range(self, region: str) -> tuple[dict[str, int], int]:
        """Draw a range of a region; returns its arguments and its pages."""
        pages = self.rules.regions[region]
        if self.rng.random() < .4:
            return {}, pages
        unit = self.rng.choice((1, 1, 16, FOLIOS[self.rules.folios[region]] // FOLIOS["4k"]))
        first = self.rng.randrange(pages) // unit * unit
        last = min(pages, first + max(1, self.rng.choice((pages // 8, pages // 4, pages // 2, unit, 3))))
        found = {**({"first": first} if first else {}), **({"last": last} if last < pages else {})}
        return found, last - first

    def _content(self) -> dict[str, int]:
        return {"content": self.rng.randrange(1, 1 << 20)}

    def _mix(self) -> str:
        return _weighted(self.rng, _MIXES)

    def _new(self) -> str | None:
        free = [name for name in "abcdefghijklmnop" if name not in self.rules.regions]
        return free[0] if free and self.rules.room() >= 64 else None

    def _slowly(self) -> dict[str, int]:
        """Draw how page-out is cut into pieces."""
        if self.rng.random() < .4:
            return {}
        pause = {"pause": self.rng.choice((1, 4))} if self.rng.random() < .3 else {}
        # Short pieces with pauses take long: the kernel's workers need no more than this.
        return {"chunk": self.rng.choice(_CHUNKS[3:] if pause else _CHUNKS), **pause}

    # Operations

    def _map(self) -> None:
        region = self._new()
        if region is None:
            return
        folio = self.folio if self.rng.random() < .8 else self.rng.choice(list(FOLIOS))
        pages = max(self._pages(), FOLIOS[folio] // FOLIOS["4k"])
        if self._add("map", 2 * pages, region=region, pages=pages, mix=self._mix(),
                     **({} if folio == "4k" else {"folio": folio}), **self._content()) and self.rng.random() < .7:
            self._add("out", pages, region=region, **self._slowly())

    def _fill(self) -> None:
        region = self._region()
        where, pages = self._range(region)
        step = self.rng.choice((1, 1, 2, 3, 7))
        self._add("fill", 2 * pages // step, region=region, mix=self._mix(), **where,
                  **({"step": step} if step > 1 else {}), **self._content())

    def _out(self) -> None:
        region = self._region()
        if self.rng.random() < .7:
            region = max(self.inside, key=lambda name: self.inside[name])
        where, pages = self._range(region)
        pages = min(pages, self.inside[region])
        split = {"split": 1} if self.rules.folios[region] != "4k" and self.rng.random() < .2 else {}
        self._add("out", pages, region=region, **where, **self._slowly(), **split)

    def _read(self) -> None:
        region = self._region()
        where, pages = self._range(region)
        step = self.rng.choice((1, 1, 2, 3, 16))
        self._add("read", pages // step, region=region, **where, **({"step": step} if step > 1 else {}))

    def _unmap(self) -> None:
        region = self._region()
        where, _ = self._range(region)
        self._add("unmap", 0, region=region, **where)

    def _fork(self) -> None:
        region = self._region()
        self._add("fork", 2 * self.rules.regions[region], region=region, mix=self._mix(), **self._content())

    def _churn(self) -> None:
        region = self._region()
        rounds = self.rng.choice((1, 3, 6, 10))
        self._add("churn", rounds * self.rules.regions[region] // 3, region=region, mix=self._mix(), rounds=rounds,
                  **self._content())

    def _cross(self) -> None:
        region = self._region()
        self._add("cross", 2 * self.rules.regions[region], region=region)

    def _pressure(self) -> None:
        region = self._new()
        if region is not None:
            pages = max(256, self._pages())
            self._add("pressure", 4 * pages, region=region, pages=pages, mix=self.rng.choice(SQUEEZABLE),
                      quarters=self.rng.choice((3, 3, 4)), **self._content())

    def _reclaim(self) -> None:
        pages = self.rng.choice((16, 64, 256, 1024, 2048))
        self._add("reclaim", pages, pages=pages)

    def _swapoff(self) -> None:
        self._add("swapoff", sum(self.rules.regions.values()) // 2)

    def _zswap_off(self) -> None:
        """Zswap off for some operations, and on again."""
        self._add("zswap", on="N")
        self._some(4)
        self._add("zswap", on="Y")

    def _zswap_max(self) -> None:
        """A limit of the cgroup, some operations below it, and no limit again."""
        if self.rng.random() < .5:
            self._add("zswap-room", pages=self.rng.choice((0, 1, 10, 100, 400)))
        else:
            self._add("zswap-max", pages=self.rng.choice((0, 0, 1, 2, 50, 300)))
        self._some(3)
        if self.rng.random() < .8:
            self._add("zswap-max", pages="max")

    def _no_writeback(self) -> None:
        self._add("writeback", on=0)
        self._some(4)
        self._add("writeback", on=1)

    def _pool_limit(self) -> None:
        """A pool's limit that is reached, the band below it, and a limit that is far again."""
        self._add("max-pool", percent=self.rng.choice((0, 1, 1, 1, 2)))
        region = self._new()
        if region is not None:
            # A hundredth of the memory, and half as much again: pages of these mixes take some two thirds each.
            pages = min(self.sequence.memory * 4 // self.rules.workers, self.rules.room())
            mix = self.rng.choice(("solid", "poor", "random"))
            folio = {} if self.folio in ("4k", "2M") else {"folio": self.folio}
            if self._add("map", 2 * pages, region=region, pages=pages, mix=mix, **folio, **self._content()):
                self._add("out", pages, region=region, chunk=self.rng.choice((16, 64)), pause=4)
        if self.rng.random() < .6:
            self._add("accept", percent=self.rng.choice((1, 50, 80, 99, 100)))
        self._some(5)
        if self.rng.random() < .7:
            self._add("max-pool", percent=self.rng.choice((5, 20, 90)))

    def _some(self, most: int) -> None:
        """Draw a few operations of any kind inside of an episode; episodes nest no deeper than two."""
        self.depth += 1
        for _ in range(self.rng.randrange(1, most + 1)):
            name = _weighted(self.rng, self.weights)
            if name in _EPISODES and self.depth > 1:
                name = "out"
            _DRAWS[name](self)
        self.depth -= 1

    def _compressor(self) -> None:
        self._add("compressor", name=_weighted(self.rng, _COMPRESSORS))

    def _shrinker(self) -> None:
        self._add("shrinker", on=self.rng.choice("YYN"))
        self._drop()

    def _max_pool(self) -> None:
        self._add("max-pool", percent=self.rng.choice((0, 1, 2, 20, 100)))

    def _accept(self) -> None:
        self._add("accept", percent=self.rng.choice((1, 30, 90, 100)))

    def _drop(self) -> None:
        self._add("drop", what=self.rng.choice((2, 2, 3, 1)))

    def _compact(self) -> None:
        self._add("compact")

    def _wait(self) -> None:
        self._add("wait", milliseconds=self.rng.choice((5, 50, 300)))


_DRAWS: Final[dict[str, Callable[[_Maker], None]]] = {
    name.removeprefix("_"): getattr(_Maker, name) for name in (
        "_map", "_fill", "_out", "_read", "_unmap", "_fork", "_churn", "_cross", "_pressure", "_reclaim", "_swapoff",
        "_zswap_off", "_zswap_max", "_no_writeback", "_pool_limit", "_compressor", "_shrinker", "_max_pool", "_accept",
        "_drop", "_compact", "_wait")}
#: Draws that set something, continue with some operations, and set it back.
_EPISODES: Final = frozenset({"zswap_off", "zswap_max", "no_writeback", "pool_limit"})
_WEIGHTS: Final = {
    "map": 8, "fill": 8, "out": 16, "read": 10, "unmap": 5, "fork": 3, "churn": 4, "cross": 3, "pressure": 3,
    "reclaim": 3, "swapoff": 1, "zswap_off": 2, "zswap_max": 3, "no_writeback": 2, "pool_limit": 2, "compressor": 3,
    "shrinker": 2, "max_pool": 1, "accept": 1, "drop": 4, "compact": 1, "wait": 1}
