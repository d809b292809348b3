# SPDX-License-Identifier: GPL-2.0-or-later
"""A report's pictures in their order, and their files for a mail or a slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replay.report.distributions import ages, batches, sizes
from replay.report.drawing import png_file, svg_file
from replay.report.fragmentation import fragmentation
from replay.report.latency import latency
from replay.report.pooltimeline import pool
from replay.report.reportdata import Material, MissingPicture, Picture
from traces.errors import BadInput
from traces.leftovers import write_whole
from traces.record.oserrors import next_step

__all__ = ["pictures", "write_file", "write_figures"]


def pictures(material: Material) -> list[Picture | MissingPicture]:
    """Return every picture, or why there is none."""
    return [make(material) for make in (pool, sizes, fragmentation, batches, latency, ages)]


def write_figures(directory: Path, made: Sequence[Picture | MissingPicture]) -> list[Path]:
    """Write every picture as ``NAME.svg`` and ``NAME.png`` in the light colours; return the files.

    :raises BadInput: when the directory cannot be made or written to
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(directory, "", f"cannot be made ({problem.strerror})",
                       next_step(problem.errno, "name another directory")) from None
    files = []
    for picture in made:
        if isinstance(picture, Picture):
            for ending, draw in ((".svg", svg_file), (".png", png_file)):
                files.append(directory / f"{picture.name}{ending}")
                write_file(files[-1], draw(picture.drawing, picture.name))
    return files


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    :raises BadInput: when it cannot be written
    """
    try:
        write_whole(path, content)
    except OSError as problem:
        raise BadInput(path, "", f"cannot be written ({problem.strerror})",
                       next_step(problem.errno, "name another file")) from None
