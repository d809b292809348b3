# SPDX-License-Identifier: GPL-2.0-or-later
"""HTML made of Python values: what is not marked as HTML is text, and text is always escaped.

Recordings come from other people's machines: the text of a marker, a path or a kernel's name may hold anything.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["Markup", "folded", "join", "printable", "row", "table", "tag"]

#: Tables longer than this are printed only when they were unfolded.
_BRIEF: Final = 40
#: Elements without an end.
_VOID: Final = frozenset({"br", "hr", "meta"})
#: Nothing else is a name of an element or an attribute here.
_NAME: Final = re.compile(r"[a-zA-Z][\w:-]*")


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def printable(text: str) -> str:
    """Return text with everything that is not printable (control, bidirectional, half a surrogate) as its escape.

    Line breaks and tabs stay: the page that shows them decides.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _escaped(child: object) -> str:
    return child if isinstance(child, Markup) else html.escape(printable(str(child)), quote=True)


def join(children: Iterable[object], between: str = "") -> Markup:
    """Return children one after the other; those that are not :class:`Markup` are escaped, ``between`` is not."""
    return Markup(between.join(_escaped(child) for child in children if child is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.

    :param children: :class:`Markup`, or anything else as text; None is left out
    :param attributes: ``_`` at the end is taken off, any other becomes ``-``; None is left out
    """
    assert _NAME.fullmatch(name), name
    written = []
    for key, value in attributes.items():
        if value is not None:
            key = key.rstrip("_").replace("_", "-")
            assert _NAME.fullmatch(key), key
            written.append(f' {key}="{html.escape(printable(str(value)), quote=True)}"')
    start = f"<{name}{''.join(written)}>"
    if name in _VOID:
        assert not children, name
        return Markup(start)
    return Markup(f"{start}{join(children)}</{name}>")


def table(caption: object, head: Sequence[object], rows: Iterable[Sequence[object] | Markup],
          right: Sequence[int] = ()) -> Markup:
    """Return a table in a box that scrolls: the first row heads columns, the first cell of each other its row.

    :param rows: cells, or a whole row as :class:`Markup` (:func:`row`)
    :param right: columns of numbers
    """
    heads = [tag("th", cell, scope="col", class_="number" if i in right else None) for i, cell in enumerate(head)]
    body = [each if isinstance(each, Markup) else row(each, right) for each in rows]
    made = tag("table", tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", join(body, "\n")))
    # A group: a page has few regions, and readers do not jump to these.
    return tag("div", made, class_="scroll", tabindex=0, role="group", aria_label=re.sub(r"<[^>]*>", "", str(caption)))


def row(cells: Sequence[object], right: Sequence[int] = (), short: Sequence[int] = (), **attributes: object) -> Markup:
    """Return a table's row whose first cell heads it.

    :param right: columns of numbers
    :param short: columns of words that stay in one line
    """
    kinds = ["number" if i in right else "short" if i in short else None for i in range(len(cells))]
    out = [tag("th", cells[0], scope="row", class_=kinds[0])]
    out += [tag("td", cell, class_=kind) for cell, kind in zip(cells[1:], kinds[1:], strict=True)]
    return tag("tr", *out, **attributes)


def folded(summary: str, content: Markup, rows: int, unfold: bool = False) -> Markup:
    """Return content that a reader unfolds; on paper a brief one is unfolded, a longer one says what it does.

    :param rows: how long it is
    """
    brief = rows <= _BRIEF
    return tag("details", tag("summary", summary if brief else f"{summary} (printed when unfolded)"), content,
               class_="brief" if brief else None, open="" if unfold else None)
