# SPDX-License-Identifier: GPL-2.0-or-later
"""Colours and layout of the page: light, dark and on paper.

Every colour has a name, and stands against the page's ground with a contrast of 4.5:1 or more in both themes; lines
that carry no meaning (``rule``) are the exception.  Pictures are drawn in the light colours and take their names in the
page, so that one drawing serves both.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["COLOURS", "CSS", "Colour"]


class Colour(NamedTuple):
    """One colour of both themes, as ``#rrggbb``."""

    light: str
    dark: str


#: No two light ones are the same: drawings are distinguished by them.
COLOURS: Final = {
    "ground": Colour("#ffffff", "#15181c"),
    "panel": Colour("#f5f6f8", "#1e2329"),
    "ink": Colour("#1b1d20", "#e9ebee"),
    "quiet": Colour("#54585f", "#aeb6bf"),
    "rule": Colour("#d3d6db", "#3b424a"),
    "link": Colour("#0a4fa3", "#8fbfff"),
    "predicted": Colour("#0b5cad", "#7db7ff"),
    "recorded": Colour("#a3430c", "#ffab70"),
    "third": Colour("#2c6a2e", "#8dd491"),
    "pass": Colour("#1d6b33", "#7fd694"),
    "fail": Colour("#a8182a", "#ff9096"),
    "undecided": Colour("#7a5200", "#f0c14b"),
}


def _variables(theme: int) -> str:
    return " ".join(f"--{name}: {colour[theme]};" for name, colour in COLOURS.items())


CSS: Final = f"""
:root {{ color-scheme: light dark; {_variables(0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(1)} }} }}
""" + """
* { box-sizing: border-box; }
html { background: var(--ground); color: var(--ink); font: 100%/1.5 system-ui, "DejaVu Sans", sans-serif; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1.25rem 4rem; }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; text-wrap: balance; }
h1 { font-size: 1.5rem; margin: 0.75rem 0; }
h2 { border-top: 1px solid var(--rule); font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-top: 1.25rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 0.5rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; list-style: none; margin: 1rem 0; padding: 0; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.9em; }
pre { margin: 0; }
dl { display: grid; gap: 0.2rem 1.25rem; grid-template-columns: max-content 1fr; margin: 0.75rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.word { border: 2px solid currentColor; border-radius: 0.3rem; display: inline-block; font-weight: 700;
        letter-spacing: 0.04em; margin-right: 0.6rem; padding: 0 0.5rem; }
.PASS { color: var(--pass); } .FAIL { color: var(--fail); } .UNDECIDED, .SKIP { color: var(--undecided); }
.quiet { color: var(--quiet); font-size: 0.9rem; }
.scroll { background: var(--panel); border: 1px solid var(--rule); border-radius: 0.3rem; margin: 0.75rem 0;
          overflow-x: auto; padding: 0.5rem 0.75rem; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
caption { color: var(--quiet); padding-bottom: 0.4rem; text-align: left; }
th, td { border-top: 1px solid var(--rule); padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; vertical-align: top; }
thead th { border-top: 0; color: var(--quiet); font-weight: 600; }
tbody th { font-weight: 500; }
tr > :last-child { padding-right: 0; }
td, tbody th { overflow-wrap: break-word; }
.short { white-space: nowrap; }
.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.doc { color: var(--quiet); display: block; font-size: 0.85rem; max-width: 17rem; }
.differs > * { color: var(--fail); font-weight: 700; }
.differs .doc { font-weight: 400; }
.events .here { color: var(--fail); font-weight: 700; }
summary { cursor: pointer; margin: 0.75rem 0; }
figure { margin: 0.75rem 0; }
figcaption { color: var(--ink); margin-top: 0.5rem; max-width: 46rem; overflow-wrap: anywhere; }
.drawing { background: var(--ground); }
svg { display: block; height: auto; min-width: 34rem; width: 100%; }
svg * { stroke-linecap: butt; stroke-linejoin: round; }
svg text { font-family: system-ui, "DejaVu Sans", sans-serif; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; } dt { margin-top: 0.4rem; } }
@media print {
""" + f":root {{ color-scheme: light; {_variables(0)} }}" + """
html { font-size: 10pt; }
body { max-width: none; padding: 0; }
nav { display: none; }
.scroll { background: none; overflow: visible; padding: 0; border: 0; }
.events pre { white-space: pre-wrap; overflow-wrap: anywhere; }
h1, h2, h3 { break-after: avoid; }
figure, tr { break-inside: avoid; }
thead { display: table-header-group; }
svg { min-width: 0; }
details.brief::details-content { content-visibility: visible; height: auto; }
table { font-size: 8pt; line-height: 1.3; }
th, td { padding-block: 0.12rem; }
p, li, figcaption { max-width: none; }
}
"""
