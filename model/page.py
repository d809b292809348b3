# SPDX-License-Identifier: GPL-2.0-or-later
"""The size of a page: the modelled kernels run on x86-64."""

from typing import Final

__all__ = ["PAGE_SIZE"]

#: bytes; zswap's source page, and the dlen it offers for the result
PAGE_SIZE: Final = 4096
