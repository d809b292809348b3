# SPDX-License-Identifier: GPL-2.0-or-later
"""Which event of one sequence is which of another that should be the same; takes little longer than sorting them.

An event is a name (small number) and a key (64-bit digest of the name and all that is compared of it).  Two events
of one key are the same; two of one name alone may be the same event with a difference in it.
"""

from __future__ import annotations

import bisect
from typing import Final, NamedTuple

import numpy as np

__all__ = ["Alignment", "Events", "align", "mix", "overlap"]

#: Consecutive events that must be the same for two places to be taken for the same place; first and second try.
_GRAMS: Final = (8, 1)
#: Events ahead by which beginnings are judged.
_AHEAD: Final = 16
#: Largest stretch (events of one side x events of the other) that is aligned with the fewest edits.
_CELLS: Final = 1 << 12
#: Places that are tried in full for the beginning of the common part.
_TRIED: Final = 6


class Events(NamedTuple):
    """A sequence of n events: ``names`` uint8, ``keys`` uint64, ``ts`` int64 (ns, not falling)."""

    names: np.ndarray
    keys: np.ndarray
    ts: np.ndarray

    def part(self, start: int, stop: int) -> Events:
        """Return events ``start`` to ``stop``."""
        return Events(self.names[start:stop], self.keys[start:stop], self.ts[start:stop])

    def backwards(self) -> Events:
        """Return the sequence from its end, with time running on."""
        return Events(self.names[::-1], self.keys[::-1], -self.ts[::-1])


class Alignment(NamedTuple):
    """How two sequences fit: every event that is not named here has one of the same key.

    ``differing``: int64 (n x 2), places of events of one name with different keys; ``only_a``, ``only_b``: int64,
    places of events that the other sequence does not have.  All are in order.
    """

    differing: np.ndarray
    only_a: np.ndarray
    only_b: np.ndarray


def mix(values: np.ndarray) -> np.ndarray:
    """Return 64-bit digests of uint64 values: the finalizer of splitmix64, in which every bit of the value counts."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def overlap(a: Events, b: Events, at: int, lag: int) -> tuple[int, int]:
    """Return the places in both at which their common part begins.

    Either recorder may have been switched on at a moment near ``at``: the events of its beginning are missing from
    its sequence, and from that only.  Two recorders stamp one event at different times, so which events those are
    is decided by what follows.

    :param at: when the later of the two began, ns
    :param lag: how far two stamps of one event, or a stamp and the beginning, may be apart, ns
    """
    base = [int(np.searchsorted(side.ts, at - lag)) for side in (a, b)]
    top = [int(np.searchsorted(side.ts, at + lag, "right")) for side in (a, b)]
    p = np.concatenate([np.arange(base[0], top[0] + 1), np.full(top[1] - base[1], base[0])])
    q = np.concatenate([np.full(top[0] - base[0] + 1, base[1]), np.arange(base[1] + 1, top[1] + 1)])
    score = np.zeros(len(p), np.int64)
    for step in range(_AHEAD):
        there = np.flatnonzero((p + step < len(a.keys)) & (q + step < len(b.keys)))
        score[there] += a.keys[p[there] + step] == b.keys[q[there] + step]
    best = np.argsort(-score, kind="stable")[:_TRIED]
    if score.any():
        # Several may be equally good where events repeat.
        equal = np.flatnonzero(score == score[best[0]])
        best = np.concatenate([best, equal[np.argsort(_distance(a, b, p[equal], q[equal]), kind="stable")[:_TRIED]]])
    elif not (len(a.keys) > base[0] and len(b.keys) > base[1] and (a.names[base[0]] == b.names[base[1]])):
        # Nothing of one is in the other: what is that near to the edge belongs to it.
        return top[0], top[1]
    places = {(int(p[at]), int(q[at])) for at in best} | {(base[0], base[1])}
    return min(places, key=lambda place: _fit(a, b, *place))


def _distance(a: Events, b: Events, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return how far apart in time two places are, ns; very far where one is an end."""
    there = (p < len(a.ts)) & (q < len(b.ts))
    far = np.full(len(p), np.iinfo(np.int64).max)
    far[there] = np.abs(a.ts[p[there]] - b.ts[q[there]])
    return far


def _fit(a: Events, b: Events, p: int, q: int) -> tuple[int, bool, bool, int, int, int]:
    """Return how badly what follows two places fits: edits first, then what decides between equal numbers of them."""
    first, second = a.part(p, p + _AHEAD), b.part(q, q + _AHEAD)
    if not len(first.keys) or not len(second.keys):
        return 2 * _AHEAD, True, True, 0, p, q
    table = _edits(first, second)
    # What one side has behind the other's part looked at may fit what comes there, unless that is its end.
    rows = 0 if len(second.keys) == _AHEAD else len(first.keys)
    columns = 0 if len(first.keys) == _AHEAD else len(second.keys)
    edits = min(table[-1][columns:] + [row[-1] for row in table[rows:]])
    return (edits, bool(first.keys[0] != second.keys[0]), bool(first.names[0] != second.names[0]),
            abs(int(first.ts[0]) - int(second.ts[0])), p, q)


def _edits(a: Events, b: Events) -> list[list[int]]:
    """Return the table of the fewest edits between all beginnings of ``a`` (rows) and of ``b`` (columns).

    An event too many on one side is one edit, so is a difference in an event.
    """
    keys, names = b.keys.tolist(), b.names.tolist()
    table = [list(range(len(keys) + 1))]
    for number, (key, name) in enumerate(zip(a.keys.tolist(), a.names.tolist(), strict=True), 1):
        above, row = table[-1], [number]
        for at in range(len(keys)):
            through = 0 if key == keys[at] else 1 if name == names[at] else 2
            row.append(min(above[at] + through, above[at + 1] + 1, row[at] + 1))
        table.append(row)
    return table


def align(a: Events, b: Events) -> Alignment:
    """Align two sequences that begin and end at the same places.

    What is alike from both ends is taken as it is.  In between, stretches that there are once in each side and in the
    same order on both (as in a patience diff) are the same place: what repeats, as one compaction does another, cannot
    lead astray.  Between them this is done again, and where little is left the fewest edits decide.
    """
    return _Aligner(a, b).run()


class _Range(NamedTuple):
    """Events ``a0`` to ``a1`` of A belong to ``b0`` to ``b1`` of B; ``level``: how places are looked for in them."""

    a0: int
    a1: int
    b0: int
    b1: int
    level: int

    @property
    def size(self) -> int:
        """Events of both."""
        return self.a1 - self.a0 + self.b1 - self.b0


class _Aligner:
    """The state of :func:`align`."""

    def __init__(self, a: Events, b: Events) -> None:
        self.a, self.b = a, b
        self._differing: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
        self._only_a: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._only_b: list[np.ndarray] = [np.zeros(0, np.int64)]
        self._todo: list[_Range] = []

    def run(self) -> Alignment:
        """Align all."""
        self._todo.append(_Range(0, len(self.a.keys), 0, len(self.b.keys), 0))
        while self._todo:
            self._take(self._trimmed(self._todo.pop()))
        differing = np.concatenate(self._differing)
        return Alignment(differing[np.argsort(differing[:, 0])], np.sort(np.concatenate(self._only_a)),
                         np.sort(np.concatenate(self._only_b)))

    def _trimmed(self, part: _Range) -> _Range:
        """Return a range without what is the same at its beginning and at its end."""
        same = _same(self.a.keys[part.a0:part.a1], self.b.keys[part.b0:part.b1])
        part = part._replace(a0=part.a0 + same, b0=part.b0 + same)
        same = _same(self.a.keys[part.a0:part.a1][::-1], self.b.keys[part.b0:part.b1][::-1])
        return part._replace(a1=part.a1 - same, b1=part.b1 - same)

    def _take(self, part: _Range) -> None:
        """Align a range, or leave smaller ones to do."""
        if part.a0 == part.a1 or part.b0 == part.b1:
            self._lone(part)
        elif (part.a1 - part.a0) * (part.b1 - part.b0) <= _CELLS:
            self._fewest_edits(part)
        elif part.level and np.array_equal(self.a.names[part.a0:part.a1], self.b.names[part.b0:part.b1]):
            # A field of many events differs: no long stretch is alike, but every event is in its place.
            self._beside(part, part.a0, part.a1, part.b0 - part.a0)
        elif part.level == len(_GRAMS):
            self._by_names(part)
        else:
            p, q = _places(self.a.keys[part.a0:part.a1], self.b.keys[part.b0:part.b1], _GRAMS[part.level])
            if len(p):
                self._between(part, p + part.a0, q + part.b0)
            else:
                self._todo.append(part._replace(level=part.level + 1))

    def _between(self, part: _Range, p: np.ndarray, q: np.ndarray) -> None:
        """Leave to do what is between equal places; ``p`` and ``q`` rise."""
        jumps = np.flatnonzero(np.diff(q - p)) + 1
        a, b = part.a0, part.b0
        for first, last in zip([0, *jumps.tolist()], [*(jumps - 1).tolist(), len(p) - 1], strict=True):
            start, stop = int(p[first]), int(p[last]) + 1
            shift = int(q[first]) - start
            self._later(part, _Range(a, start, b, start + shift, part.level))
            self._beside(part, start, stop, shift)
            a, b = stop, stop + shift
        self._later(part, _Range(a, part.a1, b, part.b1, part.level))

    def _later(self, part: _Range, inner: _Range) -> None:
        if inner.size:
            # What did not get much smaller is looked at another way.
            slow = 2 * inner.size > part.size
            self._todo.append(inner._replace(level=inner.level + 1) if slow else inner)

    def _beside(self, part: _Range, start: int, stop: int, shift: int) -> None:
        """Take events of A whose partners are ``shift`` further in B, as places at both ends say."""
        bad = start + np.flatnonzero(self.a.keys[start:stop] != self.b.keys[start + shift:stop + shift])
        if (self.a.names[bad] == self.b.names[bad + shift]).all():
            self._differing.append(np.stack([bad, bad + shift], axis=1))
            return
        for run in np.split(bad, np.flatnonzero(np.diff(bad) > 1) + 1):
            first, last = int(run[0]), int(run[-1]) + 1
            self._later(part, _Range(first, last, first + shift, last + shift, part.level))

    def _lone(self, part: _Range) -> None:
        self._only_a.append(np.arange(part.a0, part.a1))
        self._only_b.append(np.arange(part.b0, part.b1))

    def _by_names(self, part: _Range) -> None:
        """Take what is nowhere alike: partners are counted from both ends, as far as the names agree."""
        a, b = self.a.part(part.a0, part.a1), self.b.part(part.b0, part.b1)
        first = _same(a.names, b.names)
        last = _same(a.names[first:][::-1], b.names[first:][::-1])
        for place, other, count in ((part.a0, part.b0, first), (part.a1 - last, part.b1 - last, last)):
            self._beside(part, place, place + count, other - place)
        self._lone(_Range(part.a0 + first, part.a1 - last, part.b0 + first, part.b1 - last, part.level))

    def _fewest_edits(self, part: _Range) -> None:
        a, b = self.a.part(part.a0, part.a1), self.b.part(part.b0, part.b1)
        table = _edits(a, b)
        only_a, only_b, differing = [], [], []
        x, y = len(a.keys), len(b.keys)
        while x or y:
            same_name = bool(x and y and a.names[x - 1] == b.names[y - 1])
            same = same_name and bool(a.keys[x - 1] == b.keys[y - 1])
            if same_name and table[x][y] == table[x - 1][y - 1] + (not same):
                x, y = x - 1, y - 1
                if not same:
                    differing.append((part.a0 + x, part.b0 + y))
            elif x and table[x][y] == table[x - 1][y] + 1:
                x -= 1
                only_a.append(part.a0 + x)
            else:
                y -= 1
                only_b.append(part.b0 + y)
        self._differing.append(np.array(differing, np.int64).reshape(-1, 2))
        self._only_a.append(np.array(only_a, np.int64))
        self._only_b.append(np.array(only_b, np.int64))


def _same(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many values are the same from the beginning on."""
    count = min(len(a), len(b))
    done, step = 0, 256
    while done < count:
        until = min(count, done + step)
        different = a[done:until] != b[done:until]
        first = int(np.argmax(different))
        if different[first]:
            return done + first
        done, step = until, 2 * step
    return count


def _places(a: np.ndarray, b: np.ndarray, gram: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places from which ``gram`` values are the same, and are so nowhere else, rising in both sides."""
    once = []
    for keys in (a, b):
        values = keys[:max(0, len(keys) - gram + 1)].copy()
        for step in range(1, gram):
            values = mix(values * np.uint64(3) + keys[step:step + len(values)])
        distinct, first, counts = np.unique(values, return_index=True, return_counts=True)
        once.append((distinct[counts == 1], first[counts == 1]))
    _, at_a, at_b = np.intersect1d(once[0][0], once[1][0], assume_unique=True, return_indices=True)
    p, q = once[0][1][at_a], once[1][1][at_b]
    order = np.argsort(p)
    p, q = p[order], q[order]
    if (np.diff(q) <= 0).any():
        rising = _longest_rising(q.tolist())
        p, q = p[rising], q[rising]
    return p, q


def _longest_rising(values: list[int]) -> np.ndarray:
    """Return the places of a longest rising part of distinct values, in order (patience sorting)."""
    tops: list[int] = []
    piles: list[int] = []
    below = [-1] * len(values)
    for place, value in enumerate(values):
        pile = bisect.bisect_left(tops, value)
        if pile:
            below[place] = piles[pile - 1]
        if pile == len(tops):
            tops.append(value)
            piles.append(place)
        else:
            tops[pile], piles[pile] = value, place
    out = []
    place = piles[-1] if piles else -1
    while place >= 0:
        out.append(place)
        place = below[place]
    return np.array(out[::-1], np.int64)
