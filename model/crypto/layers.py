# SPDX-License-Identifier: GPL-2.0-or-later
"""Which crypto layer a revision of zswap stands on: one tfm by the layer's name and the compressor's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from .acomp import KERNEL_DEFECTS, Acomp, Acomp7, Acomp612, AcompV8, AcompV12, AcompV14, AcompV14Meant
from .base import Compressor
from .faults import FaultPlan
from .iaa import IaaCrypto
from .iaa_device import StandIn
from .iaa_posted import IaaPosted
from .scomp import Synthetic

__all__ = ["LAYERS", "POSTINGS", "acomp_for"]

_Posting = Literal["v8", "v12", "v14"]

#: layer -> the class of crypto/acompress.c; kernels by their number, postings by theirs
LAYERS: Final[Mapping[str, type[Acomp]]] = {
    "6.12": Acomp612, **dict.fromkeys(("6.18", "6.19", "7.0", "7.1", "7.2", "7.3"), Acomp7),
    "v8": AcompV8, "v12": AcompV12, "v14": AcompV14, "v14-meant": AcompV14Meant,
}
#: layers that are postings -> the driver that goes with them
POSTINGS: Final[Mapping[str, _Posting]] = {"v8": "v8", "v12": "v12", "v14": "v14", "v14-meant": "v14"}


def acomp_for(layer: str, algorithm: Compressor | Synthetic | None, faults: FaultPlan, *,
              stand_in: StandIn | None = None, driver: Callable[[], IaaCrypto | IaaPosted] | None = None) -> Acomp:
    """Return a tfm of a layer.

    :param algorithm: a software compressor; None for deflate-iaa, by ``driver`` or with its defaults
    :param stand_in: what takes the place of the IAA hardware
    :raises ValueError: for a layer that is not in :data:`LAYERS`
    """
    if layer not in LAYERS:
        raise ValueError(f"no crypto layer is called {layer!r}: {', '.join(LAYERS)}")
    kind = LAYERS[layer]
    if algorithm is not None:
        defects = KERNEL_DEFECTS.get(layer) if kind is Acomp7 else None
        return kind(algorithm, faults, defects=defects)
    posting = POSTINGS.get(layer)
    if driver is not None:
        return kind(driver(), faults)
    if posting is None:
        return kind(IaaCrypto("6.18" if layer == "6.19" else layer, stand_in=stand_in, faults=faults), faults)
    return kind(IaaPosted(posting, stand_in=stand_in, faults=faults, meant=layer == "v14-meant"), faults)
