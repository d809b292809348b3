# SPDX-License-Identifier: GPL-2.0-or-later
"""The object word of zsmalloc, which is what a handle points to: its layout, found from recorded words.

Mirrors ``location_to_obj()`` of mm/zsmalloc.c: a page frame number above an index, in later kernels with the index of
the size class between the two.  The architecture sets how many bits the page frame number takes
(``MAX_POSSIBLE_PHYSMEM_BITS``).  A release may not say which layout it has (a backport, a tree between two releases),
so the recorded words decide: with each word the object's class is known, too.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

__all__ = ["LAYOUTS", "NEW", "OLD", "ObjectLayout", "layout_of"]

_PAGE_SHIFT: Final = 12
#: CLASS_BITS + 1
_CLASS_BITS: Final = 9
#: MAX_POSSIBLE_PHYSMEM_BITS of x86-64; of arm64 and others with 48 bits; of RISC-V
_PHYSMEM_BITS: Final = (52, 48, 56)
#: No zspage has more objects: 16 pages of 4096 bytes, in objects of 32.
_MOST_OBJECTS: Final = 16 * 4096 // 32


class ObjectLayout(NamedTuple):
    """Bits of an object word from the lowest up: ``idx_bits`` of the object's index in its zspage, ``class_bits`` of
    its size class; the page frame number above."""

    idx_bits: int
    class_bits: int

    def make(self, frame: int, class_index: int, index: int) -> int:
        """Return the word of a place, as ``location_to_obj()`` does."""
        class_index &= (1 << self.class_bits) - 1
        return frame << self.idx_bits + self.class_bits | class_index << self.idx_bits | index


def _layout(physmem_bits: int, class_bits: int) -> ObjectLayout:
    return ObjectLayout(64 - (physmem_bits - _PAGE_SHIFT) - class_bits, class_bits)


#: every layout there is, x86-64's first
LAYOUTS: Final = tuple(_layout(bits, class_bits) for bits in _PHYSMEM_BITS for class_bits in (0, _CLASS_BITS))
#: x86-64's without and with the size class
OLD: Final = LAYOUTS[0]
NEW: Final = LAYOUTS[1]


def layout_of(words: np.ndarray, classes: np.ndarray) -> ObjectLayout | None:
    """Return the layout that most object words have, None where they do not show one.

    Words of class 0 show nothing: its bits are clear in either layout.

    :param words: uint64 array of object words
    :param classes: array of as many indices of size classes
    """
    useful = classes != 0
    words, classes = words[useful].astype(np.uint64), classes[useful].astype(np.uint64)
    best, most = None, words.size // 2
    for layout in LAYOUTS:
        index = words & np.uint64((1 << layout.idx_bits) - 1)
        fits = index < _MOST_OBJECTS
        if layout.class_bits:
            fits &= words >> np.uint64(layout.idx_bits) & np.uint64((1 << layout.class_bits) - 1) == classes
        count = int(np.count_nonzero(fits))
        if count > most:
            best, most = layout, count
    return best
