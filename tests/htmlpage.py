# SPDX-License-Identifier: GPL-2.0-or-later
"""A page of HTML as a tree, read by the standard library's parser; what a browser would have to mend is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

__all__ = ["Element", "contrast", "parse", "variables"]

_VOID = {"br", "hr", "meta"}


@dataclass
class Element:
    """An element, its attributes, and what is in it: elements and texts."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        """Yield this element and all inside it, in the order of the page."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child.walk()

    def all(self, name: str, **attributes: str) -> list[Element]:
        """Return the elements of a name that have these attributes; ``_`` stands for ``-``."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [each for each in self.walk() if each.name == name
                and all(each.attributes.get(key) == value for key, value in wanted.items())]

    def having(self, attribute: str) -> list[Element]:
        """Return the elements that have an attribute."""
        return [each for each in self.walk() if attribute in each.attributes]

    @property
    def text(self) -> str:
        """All text inside."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("#document")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in _VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(f"<{tag}/> ends itself, which HTML does not know")

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> where <{self.open[-1].name}> is open"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:80]}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data[:80]}")


def parse(page: str) -> Element:
    """Return a page's ``html`` element; AssertionError where tags do not balance."""
    assert page.startswith("<!DOCTYPE html>\n")
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root], [each.name for each in parser.open]
    elements = [child for child in parser.root.children if isinstance(child, Element)]
    assert [each.name for each in elements] == ["html"]
    return elements[0]


def variables(css: str) -> dict[str, str]:
    """Return the custom properties of a rule: name -> value."""
    return dict(re.findall(r"--([\w-]+):\s*([^;]+);", css))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (#rrggbb), as WCAG 2 defines it."""
    def luminance(colour: str) -> float:
        parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
