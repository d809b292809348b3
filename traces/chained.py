# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of a recording's chained requests: table ``chained`` (:mod:`traces.importers.chains` makes it)."""

from __future__ import annotations

from collections.abc import Mapping

from traces.errors import BadInput
from traces.recording import Recording, RecordingWriter

__all__ = ["LONGEST_CHAIN", "chained_pages", "write_chained"]

#: A chain's pages are of one folio: no more than the largest has.
LONGEST_CHAIN = 1 << 10

_COLUMNS = ("event", "number", "content")


def chained_pages(recording: Recording) -> dict[tuple[int, int], int]:
    """Return (event of a compress call, number of the request behind its head, from 1) -> ``content`` of its page.

    Empty where no request was chained, as far as the pages show.

    :raises BadInput: when the table is not what an import wrote
    """
    try:
        columns = recording.lists("chained", _COLUMNS)
    except KeyError as problem:
        raise BadInput(recording.path / "chained.parquet", "", f"has no column {problem}", "import it again") from None
    if columns is None:
        return {}
    refs = 0 if recording.pages is None else len(recording.pages.refs)
    for row, (event, number, content) in enumerate(zip(*columns, strict=True)):
        if not (all(type(value) is int for value in (event, number, content))
                and 0 <= event < len(recording) and 0 < number < LONGEST_CHAIN and -1 <= content < refs):
            raise BadInput(recording.path / "chained.parquet", f"row {row}",
                           "names no page of a compress call of the recording", "import it again")
    return {(event, number): content for event, number, content in zip(*columns, strict=True)}


def write_chained(writer: RecordingWriter, pages: Mapping[tuple[int, int], int]) -> None:
    """Write the table of what :func:`chained_pages` returns."""
    # Half a second, which only those pay who write it.
    import pandas as pd

    rows = [(event, number, content) for (event, number), content in sorted(pages.items())]
    writer.add_table("chained", pd.DataFrame(rows, columns=list(_COLUMNS)))
