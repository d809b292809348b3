# SPDX-License-Identifier: GPL-2.0-or-later
"""What should happen: a reference model of zswap, zsmalloc and the compressors below them.

It imports neither recordings nor the replay, does no I/O and reads no clock, so that it can be read next to
the kernel source and driven by anything (:func:`model.effects.run`).

>>> from model.effects import run
>>> from model.revisions import REVISIONS
>>> from model.zswap import Folio
>>> zswap = REVISIONS["mainline-7.3"](totalram_pages=1 << 18, compressor="lz4")
>>> answers = {"crypto_acomp_compress_ret": (0, 1000, None)}
>>> run(zswap.zswap_store(Folio(swpent=7)), lambda effect: answers.get(effect[0]))
True
>>> zswap.counters.stored_pages, zswap.total_pages()
(1, 1)
"""

from model.effects import run
from model.zswap import Folio, Zswap

__all__ = ["Folio", "Zswap", "run"]
