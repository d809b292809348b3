# SPDX-License-Identifier: GPL-2.0-or-later
"""The posting "zsmalloc: introduce SG-list based object read API" and zswap on top of it (January 2026)."""

from __future__ import annotations

from model.revisions.mainline_6_18 import Mainline618

__all__ = ["SgRead"]


class SgRead(Mainline618):
    """zs_obj_read_sg_begin() and zs_obj_read_sg_end(): objects go to the compressor as the entries they lie in.

    zswap_decompress() hands one entry, or two where an object lies on two pages, to crypto_acomp_decompress(), and
    copies a page that is kept as it is out of them.  Before it, zsmalloc put every slot that lies on two pages in a row
    first, whole.  It landed with a function that returns nothing, and 7.0 and later have it.
    """

    mirrors = ("zsmalloc SG-list based object read API as posted on 2026-01-13, with zswap using it, thread of "
               "<CAKEwX=MRz7dL5=cP=4QN6uTgUJLh-xCt_zpfxytqZkYdycUN5w@mail.gmail.com>")
    crypto_layer = "6.19"
    SG_READS = True


REVISIONS = {"sg-read": SgRead}
