# SPDX-License-Identifier: GPL-2.0-or-later
"""Drawings by matplotlib: one figure as inline SVG that follows the page's theme, as an SVG file, as a PNG.

No display and no browser are needed.  Text stays text, so that a reader can search and a page can choose its face.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from replay.regress.table import plain
from replay.report.markup import Markup, printable
from replay.report.style import COLOURS

__all__ = ["Drawing", "ink", "inline_svg", "label", "png_file", "svg_file", "tidy"]

_WIDTH: Final = 8.4
_DPI: Final = 150
_SVG: Final = "{http://www.w3.org/2000/svg}"
_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_BY_LIGHT: Final = {colour.light: name for name, colour in COLOURS.items()}
_HEX: Final = re.compile(r"#[0-9a-f]{6}\b")
_LONGEST: Final = 24


@dataclass(frozen=True)
class Drawing:
    """How a picture is drawn: ``draw`` puts it on an empty figure of ``height`` inches."""

    draw: Callable[[Figure], None]
    height: float = 3.2


def ink(name: str) -> str:
    """Return the light theme's colour of that name; the page puts the theme's own in its place."""
    return COLOURS[name].light


def label(text: str) -> str:
    """Return text for a drawing: printable ASCII in one line, no longer than a label may be.

    Fonts lack what other people's names may be written in; the page itself shows them whole.
    """
    short = plain(text)
    return short if len(short) <= _LONGEST else short[:_LONGEST - 2] + ".."


def tidy(axes: Axes, x: str, y: str, lines: Literal["x", "y", "both"] = "y") -> None:
    """Name an axis pair, and take off what carries nothing.

    :param lines: the axis whose values have lines across
    """
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=lines, color=ink("rule"), linewidth=0.6)
    axes.set_axisbelow(True)


@contextlib.contextmanager
def _settings(name: str) -> Iterator[None]:
    """Draw with the project's settings, whatever the user's matplotlibrc says; ids come out the same every time."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": 10.0,
            "font.family": ["DejaVu Sans", "sans-serif"], "axes.unicode_minus": False, "hatch.linewidth": 0.7,
            "legend.frameon": False, "figure.facecolor": ink("ground"), "axes.facecolor": ink("ground"),
            "text.color": ink("ink"), "axes.labelcolor": ink("ink"), "axes.edgecolor": ink("quiet"),
            "xtick.color": ink("quiet"), "ytick.color": ink("quiet"), "xtick.labelcolor": ink("ink"),
            "ytick.labelcolor": ink("ink"), "hatch.color": ink("ground"), "lines.linewidth": 1.4})
        yield


def _file(drawing: Drawing, name: str, canvas: type[Any], **options: Any) -> bytes:
    with _settings(name):
        figure = Figure(figsize=(_WIDTH, drawing.height), layout="constrained")
        canvas(figure)
        drawing.draw(figure)
        out = io.BytesIO()
        figure.savefig(out, **options)
    return out.getvalue()


def svg_file(drawing: Drawing, name: str) -> bytes:
    """Return a drawing as an SVG file in the light colours."""
    # No date, no name of a program: the same results give the same file.
    return _file(drawing, name, FigureCanvasSVG, format="svg",
                 metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))


def png_file(drawing: Drawing, name: str) -> bytes:
    """Return a drawing as a PNG in the light colours, some 1,260 pixels wide."""
    return _file(drawing, name, FigureCanvasAgg, format="png", dpi=_DPI, metadata={"Software": None})


def inline_svg(drawing: Drawing, name: str, title: str, text: str) -> Markup:
    """Return a drawing as an element for a page: colours by their names, ids that no other drawing has.

    :param name: unique in the page; letters, digits and ``-``
    :param title: what a screen reader says first
    :param text: what it says of what is to be seen: the numbers
    """
    root = ElementTree.fromstring(svg_file(drawing, name))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    used = {value for element in root.iter() for text_of in element.attrib.values()
            for value in re.findall(r"#([\w-]+)", text_of)}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        made: dict[str, str] = {}
        for key, value in element.attrib.items():
            if key == "id":
                if value in used:
                    made["id"] = f"{name}-{value}"
            elif key == _HREF:
                made["href"] = f"#{name}-{value[1:]}"
            elif key in ("fill", "stroke"):
                # A name for a colour is for style sheets, not for attributes.
                made["style"] = f"{key}: {_themed(value, name)}; {made.get('style', '')}"
            elif key == "style":
                made["style"] = made.get("style", "") + _themed(value, name)
            else:
                made[key] = _themed(value, name)
        element.attrib.clear()
        element.attrib.update(made)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    # The numbers are its description: a screen reader says a name every time.
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title", "aria-describedby": f"{name}-text"})
    for number, (kind, said) in enumerate((("title", title), ("desc", text))):
        element = ElementTree.Element(kind, {"id": f"{name}-{'title' if kind == 'title' else 'text'}"})
        element.text = printable(said)
        root.insert(number, element)
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def _themed(value: str, name: str) -> str:
    """Return an attribute's value with names for colours, and ids as the page has them."""
    value = re.sub(r"url\(#([\w-]+)\)", rf"url(#{name}-\1)", value)
    value = re.sub(r"font-family: [^;]*;? ?|font: ([\d.]+px) [^;]*", lambda m: f"font-size: {m[1]}" if m[1] else "",
                   value)
    return _HEX.sub(lambda m: f"var(--{_BY_LIGHT[m[0]]})" if m[0] in _BY_LIGHT else m[0], value)
