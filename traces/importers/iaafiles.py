# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab leaves in a capture of a guest with an emulated IAA: facts of the devices, and their job log."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from traces import jsontext
from traces.errors import BadInput
from traces.files import read_input

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FACTS", "JOBS", "PAGES", "read_iaa"]

#: Names of the two files, of which the first has the digest of the second.
FACTS: Final = "iaa.json"
JOBS: Final = "iaa-jobs.jsonl"
#: Of the pages that were compressed, where they are kept; the first file has its digest, too.
PAGES: Final = "iaa-pages.bin"
_AGAIN: Final = "copy the capture again"
#: Bytes of a job log that are read: some 200 a job.
_MOST: Final = 1 << 30
#: Keys that the lines of a job log have altogether at most: each is a column as long as the log.
_MOST_KEYS: Final = 64
#: What a column of whole numbers holds.
_WHOLE: Final = 1 << 63


def read_iaa(directory: Path) -> tuple[dict[str, Any], pd.DataFrame] | None:
    """Return the facts of a capture's devices and their jobs, None where it has none.

    A row of the table is a line of the job log, a column a key that lines have: a number (0 where a line does not
    have the key) or a text (empty there).  Lines about the devices themselves (``format``) become ``logs`` of the
    facts.

    :raises BadInput: when a file is not what the lab wrote
    """
    path, log = directory / FACTS, directory / JOBS
    if not path.is_file() and not log.is_file():
        return None
    facts = _facts(path)
    try:
        data = read_input(log, _MOST)
    except OSError as problem:
        raise BadInput(log, "", f"cannot be read ({problem.strerror})", _AGAIN) from None
    said = facts.get("jobs")
    if not isinstance(said, dict) or said.get("sha256") != hashlib.sha256(data).hexdigest():
        raise BadInput(log, "", f"is not what the lab wrote: its digest is not that of {FACTS}", _AGAIN)
    # Imported here: a verb that only prints its help waits for nothing.
    import pandas as pd

    facts["logs"], columns = _columns(log, data)
    return facts, pd.DataFrame({name: _alike(values) for name, values in columns.items()})


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = jsontext.parse(read_input(path, 1 << 24))
    except OSError as problem:
        raise BadInput(path, "", f"cannot be read ({problem.strerror})", _AGAIN) from None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or facts.get("zreplay_iaa") != 1:
        raise BadInput(path, "", "holds no facts of emulated devices", _AGAIN)
    jsontext.hold_to_schema(facts, "iaa", path, _AGAIN)
    return facts


def _columns(path: Path, data: bytes) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Return a log's lines about the devices, and its jobs by their keys, None where a line lacks one."""
    logs: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {}
    jobs = 0
    for number, line in enumerate(io.BytesIO(data), 1):
        try:
            row = jsontext.parse(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise BadInput(path, f"line {number}", "is not a JSON object", _AGAIN)
        if "format" in row:
            logs.append(row)
            continue
        for name in row:
            if name not in columns:
                columns[name] = [None] * jobs
        if len(columns) > _MOST_KEYS:
            raise BadInput(path, f"line {number}", f"has keys that no job has: there are more than {_MOST_KEYS}",
                           _AGAIN)
        for name, values in columns.items():
            values.append(row.get(name))
        jobs += 1
    return logs, columns


def _alike(values: list[Any]) -> list[int] | list[float] | list[str]:
    """Return a column with values of one kind."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, bool} and all(value is None or -_WHOLE <= value < _WHOLE for value in values):
        return [int(value or 0) for value in values]
    if kinds <= {int, float}:
        return [float(value or 0) for value in values]
    return ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
