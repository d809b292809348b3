# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole report as one HTML file that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

from collections.abc import Sequence

from replay.report import sections
from replay.report.drawing import inline_svg
from replay.report.markup import Markup, folded, join, table, tag
from replay.report.reportdata import Material, MissingPicture, Picture
from replay.report.style import CSS

__all__ = ["page"]

#: A page that may load nothing and run nothing, whatever a recording's texts hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(material: Material, made: Sequence[Picture | MissingPicture]) -> str:
    """Return the report."""
    body = [sections.verdict(material), sections.checks(material), sections.divergence(material),
            sections.revisions(material), sections.base_and_patched(material), sections.reasons(material),
            sections.reproduce(material), _pictures(made)]
    present = [("checks", "Checks"), ("divergence", "First divergence"),
               ("revisions", "Two revisions") if material.parting is not None else None,
               ("regression", "Base and patched") if material.regression is not None else None,
               ("reasons", "Reasons and notes"), ("reproduce", "How to reproduce"), ("pictures", "Pictures")]
    links = [tag("li", tag("a", name, href=f"#{where}")) for where, name in filter(None, present)]
    nav = tag("nav", tag("ul", *links), aria_label="Sections")
    head = tag("head", tag("meta", charset="utf-8"),
               tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
               tag("meta", name="color-scheme", content="light dark"),
               tag("title", f"{sections.title(material.result)} - zreplay report"), tag("style", Markup(CSS)))
    main = tag("main", body[0], nav, join(body[1:], "\n"))
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def _pictures(made: Sequence[Picture | MissingPicture]) -> Markup:
    parts = [tag("h2", "Pictures", id="pictures")]
    for each in made:
        parts.append(tag("h3", each.title))
        parts.append(_figure(each) if isinstance(each, Picture) else
                     tag("p", f"Left out: {each.why}.", data_left_out=each.name))
    return tag("section", *parts, aria_labelledby="pictures")


def _figure(picture: Picture) -> Markup:
    drawing = inline_svg(picture.drawing, picture.name, picture.title, picture.caption)
    parts = [tag("div", drawing, class_="scroll drawing", tabindex=0, role="group", aria_label=picture.title),
             tag("figcaption", picture.caption)]
    if picture.rows:
        numbers = table(picture.title, picture.head, picture.rows, right=range(1, len(picture.head)))
        parts.append(folded(f"Numbers: {picture.title}", numbers, len(picture.rows)))
    return tag("figure", *parts, data_picture=picture.name)
