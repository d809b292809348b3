# SPDX-License-Identifier: GPL-2.0-or-later
"""A revision as a user names it: a shipped name, or ``FILE.py:CLASS``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from model.zswap import Zswap
from traces.errors import BadInput

__all__ = ["load_revision"]


def load_revision(name: str | None) -> str | type[Zswap] | None:
    """Return a shipped revision's name as it is, or the class that ``FILE.py:CLASS`` names.

    :raises BadInput: when there is no such file or class, or it is no revision
    """
    if name is None or ":" not in name:
        return name
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise BadInput(path, "", "does not exist", "give --revision FILE.py:CLASS")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadInput(path, "", "is not a Python file", "give --revision FILE.py:CLASS")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        # The file is the user's: whatever it raises is told as it is, with its own place.
        raise BadInput(path, "", f"cannot be loaded ({type(problem).__name__}: {problem})", "mend the file") from None
    kind = getattr(module, attribute, None)
    if not (isinstance(kind, type) and issubclass(kind, Zswap)):
        raise BadInput(path, f"class '{attribute}'", "is not a revision (a subclass of model.zswap.Zswap)",
                       "see model/revisions for examples")
    return kind
