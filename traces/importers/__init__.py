# SPDX-License-Identifier: GPL-2.0-or-later
"""Importers: foreign captures into recordings.  :func:`import_source` tells what it is given by its content."""

from traces.importers.directory import import_source

__all__ = ["import_source"]
