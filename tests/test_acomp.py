# SPDX-License-Identifier: GPL-2.0-or-later
"""crypto/acompress.c, scompress.c, zstd.c and deflate.c as zswap uses them, and v8, v12 and v14 of acompress.c."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crypto import CompressResult, compressor_for
from model.crypto import knownanswers as known
from model.crypto.acomp import (
    KERNEL_DEFECTS,
    Acomp,
    Acomp7,
    Acomp612,
    AcompFolio,
    AcompRequest,
    AcompV8,
    AcompV12,
    AcompV14,
    AcompV14Meant,
    CallResult,
    KernelFault,
    NeverCompletes,
    Scatterlist,
    SgList,
    Synthetic,
    as_int32,
    set_src_folio,
    sg_init_one,
)
from model.crypto.faults import FaultPlan
from model.crypto.request import AcompAlg
from model.crypto.zstd import streaming_module
from model.errno import EINPROGRESS, EINVAL, EIO, ENOSPC, ENOSYS

PAGES = dict(known.pages())
TEXT, NOISE = PAGES["text"], PAGES["noise"]
NAMES = ("lz4", "lz4hc", "lzo", "lzo-rle", "842", "zstd", "deflate")


def acomp(name: str, cls: type[Acomp] = Acomp7, **more: object) -> Acomp:
    line = "mainline-6.12" if issubclass(cls, Acomp612) else "mainline-7.3"
    return cls(compressor_for(name, line), **more)  # type: ignore[arg-type]


def request(data: bytes = TEXT, room: int = 4096, **more: int) -> AcompRequest:
    return AcompRequest(sg_init_one(data), sg_init_one(bytearray(room)), **more)  # type: ignore[arg-type]


def compressed(tfm: Acomp, page: bytes = TEXT) -> bytes:
    asked = request(page, 8192)
    asked.dst_sg()[0].length = 4096
    assert tfm.compress(asked) == 0
    return asked.dst_sg()[0].read(asked.dlen)


def split(data: bytes, *sizes: int) -> SgList:
    """`data` in entries of `sizes` and one of the rest, each in a buffer of its own."""
    entries, done = [], 0
    for size in (*sizes, len(data) - sum(sizes)):
        entries.append(Scatterlist(b"before" + data[done : done + size] + b"behind", 6, size))
        done += size
    return entries


def buffers(*sizes: int) -> SgList:
    return [Scatterlist(bytearray(size)) for size in sizes]


def content(sgl: Sequence[Scatterlist]) -> bytes:
    return b"".join(bytes(entry.buffer) for entry in sgl)


def unpack(tfm: Acomp, data: SgList, dst: SgList) -> tuple[int, int, bytes]:
    asked = AcompRequest(data, dst, sum(entry.length for entry in data))
    err = tfm.decompress(asked)
    return err, asked.dlen, content(dst)


# lengths


def test_lengths_are_unsigned_and_cast_back() -> None:
    entry = Scatterlist(bytearray(8))
    entry.length = ENOSPC
    assert entry.length == 2**32 - 28
    assert as_int32(entry.length) == ENOSPC
    asked = request()
    asked.slen = EINVAL
    assert not asked.slen < 0
    assert as_int32(asked.slen) == EINVAL


# scomp of 7.x


@pytest.mark.parametrize("name", NAMES)
def test_7x_linear_is_the_compressor(name: str) -> None:
    compressor = compressor_for(name, "mainline-7.3")
    for page in (TEXT, NOISE, PAGES["zero"], PAGES["half-noise"]):
        asked = request(page)
        want = compressor.compress(page)
        assert Acomp7(compressor).compress(asked) == want.err
        assert asked.dlen == want.dlen
        assert asked.dst_sg()[0].length == 4096  # mainline never writes the entry's length
        assert asked.dst_sg()[0].read(len(want.data)) == want.data


@pytest.mark.parametrize(
    ("name", "err", "dlen"),
    [("lz4", EINVAL, 4096), ("lzo", EINVAL, 4096), ("842", ENOSPC, 0), ("zstd", EINVAL, 0), ("deflate", ENOSPC, 4096)],
)
def test_7x_dlen_after_an_error(name: str, err: int, dlen: int) -> None:
    assert acomp(name).call(request(NOISE)) == CallResult(err, dlen, (4096,))


@pytest.mark.parametrize(
    ("name", "err", "dlen"), [("lz4", EINVAL, 900), ("lzo", EINVAL, 900), ("842", ENOSPC, 0), ("zstd", EINVAL, 0)]
)
def test_7x_less_room_than_the_result(name: str, err: int, dlen: int) -> None:
    tfm = acomp(name)
    for _ in range(2):
        assert tfm.call(request(dlen=900)) == CallResult(err, dlen, (4096,))


def test_7x_zero_lengths_are_einval() -> None:
    for name in NAMES:
        for wrong in (request(slen=0), request(dlen=0)):
            assert acomp(name).compress(wrong) == EINVAL


def test_7x_scomp_wants_the_destination_in_its_first_entry() -> None:
    tfm = acomp("lz4")
    asked = AcompRequest(sg_init_one(TEXT), buffers(4095, 4096))
    assert tfm.compress(asked) == ENOSYS
    assert asked.dlen == 4096
    assert content(asked.dst_sg()) == bytes(4095 + 4096)
    asked.dlen = 4095
    assert tfm.compress(asked) == 0


def test_7x_scomp_puts_several_entries_in_a_row() -> None:
    tfm = acomp("lz4")
    data = compressed(tfm)
    for first in (1, 8, len(data) - 1):
        assert unpack(tfm, split(data, first), buffers(4096)) == (0, 4096, TEXT)


def test_7x_scomp_scratch_is_one_page() -> None:
    asked = AcompRequest(split(bytes(8192), 4096), buffers(4096), 8192)
    with pytest.raises(KernelFault, match="scratch buffer of one page"):
        acomp("lz4").compress(asked)


def test_a_folio_source_may_begin_behind_its_first_page() -> None:
    folio = NOISE + TEXT + NOISE
    asked = AcompRequest(set_src_folio(folio, 4096, 4096), buffers(4096))
    assert acomp("lz4").compress(asked) == 0
    assert asked.dlen == compressor_for("lz4", "mainline-7.3").compress(TEXT).dlen


@pytest.mark.parametrize("name", NAMES)
def test_7x_software_takes_virtual_addresses(name: str) -> None:
    tfm = acomp(name)
    buffer, page = bytearray(4096), bytearray(4096)
    asked = AcompRequest(TEXT, buffer)
    assert tfm.compress(asked) == 0
    assert tfm.decompress(AcompRequest(bytes(buffer[: asked.dlen]), page, asked.dlen)) == 0
    assert page == TEXT


def test_a_walk_behind_the_end_of_a_list_is_a_fault() -> None:
    data = compressed(acomp("deflate"))
    with pytest.raises(KernelFault, match="a walk over"):
        acomp("deflate").decompress(AcompRequest(split(data, 9)[:1], buffers(4096), len(data)))


# scomp of 6.12


@pytest.mark.parametrize("name", NAMES)
def test_612_linear_is_the_compressor(name: str) -> None:
    compressor = compressor_for(name, "mainline-6.12")
    for page in (TEXT, NOISE):
        asked = request(page, 8192)
        want = compressor.compress(page)
        assert Acomp612(compressor).compress(asked) == want.err
        assert asked.dlen == want.dlen


def test_612_more_than_was_offered_is_enospc_after_it_was_written() -> None:
    tfm = Acomp612(Synthetic(lambda page: CompressResult(0, 4097, b"x" * 4097)))
    asked = request(TEXT, 8192)
    assert tfm.compress(asked) == ENOSPC
    assert asked.dlen == 4097
    assert content(asked.dst_sg())[:4098] == b"x" * 4097 + b"\0"
    with pytest.raises(KernelFault):  # and without zswap's second page it would overrun
        tfm.compress(request(TEXT, 4096))


def test_612_several_destination_entries_get_nothing_when_it_fails() -> None:
    tfm = Acomp612(Synthetic(lambda page: CompressResult(0, 4097, b"x" * 4097)))
    asked = AcompRequest(sg_init_one(TEXT), buffers(4096, 4096))
    assert tfm.compress(asked) == ENOSPC
    assert content(asked.dst_sg()) == bytes(8192)


def test_612_exactly_a_page_is_a_success() -> None:
    asked = request(PAGES["repeat-21"], 8192)
    assert acomp("lz4", Acomp612).compress(asked) == 0
    assert asked.dlen == 4096


def test_612_lists_go_through_the_scratch() -> None:
    tfm = acomp("lzo", Acomp612)
    data = compressed(tfm)
    dst = buffers(1000, 3096)
    assert unpack(tfm, split(data, 77), dst) == (0, 4096, TEXT)  # 7.x: -ENOSYS
    assert unpack(acomp("lzo"), split(data, 77), buffers(1000, 3096))[0] == ENOSYS


def test_612_scratch_is_128_kib() -> None:
    asked = AcompRequest(sg_init_one(bytes(131073)), buffers(4096), 131073)
    assert acomp("lz4", Acomp612).compress(asked) == EINVAL
    asked = AcompRequest(sg_init_one(bytes(131072)), buffers(4096), 131072)
    assert Acomp612(Synthetic(lambda data: CompressResult(0, 1, b"x"))).compress(asked) == 0


def test_612_knows_no_virtual_addresses() -> None:
    with pytest.raises(KernelFault, match="virtual address"):
        acomp("lz4", Acomp612).compress(AcompRequest(TEXT, bytearray(8192)))


# deflate


def test_deflate_exactly_full_is_enospc() -> None:
    assert acomp("deflate").compress(request(PAGES["zeros-53"])) == ENOSPC
    asked = request(PAGES["zeros-54"])
    assert (acomp("deflate").compress(asked), asked.dlen) == (0, 4095)
    # A further entry gives zlib the room it wants to say that it is done.
    asked = AcompRequest(sg_init_one(PAGES["zeros-53"]), buffers(4096, 1), dlen=4097)
    assert (acomp("deflate").compress(asked), asked.dlen) == (0, 4096)


def test_deflate_enospc_as_it_was_and_as_fixed() -> None:
    data = compressed(acomp("deflate"))
    was, fixed = Acomp7(compressor_for("deflate", "mainline-6.18"), defects=KERNEL_DEFECTS["6.18"]), acomp("deflate")
    # Only the end of the stream is in the second piece: the page was complete.
    tail = split(data, len(data) - 1)
    assert unpack(was, tail, buffers(4096))[0] == ENOSPC
    assert unpack(fixed, tail, buffers(4096)) == (0, 4096, TEXT)
    for tfm in (was, fixed):
        assert unpack(tfm, split(data, 100), buffers(4096)) == (0, 4096, TEXT)
        assert tfm.decompress(AcompRequest(split(data, 100), buffers(4095), len(data), 4095)) == ENOSPC


def test_deflate_window_as_it_is_and_as_posted() -> None:
    far = known.noise(1, 600) + bytes(2400) + known.noise(1, 600) + bytes(496)  # a match 3000 bytes back
    deflate = zlib.compressobj(6, zlib.DEFLATED, -12)
    data = deflate.compress(far) + deflate.flush()
    now, fixed = acomp("deflate"), acomp("deflate", defects=frozenset[str]())
    assert unpack(now, sg_init_one(data), buffers(4096)) == (0, 4096, far)  # in one piece it always works
    failures = {first for first in range(1, len(data)) if unpack(now, split(data, first), buffers(4096))[0]}
    assert failures
    assert len(failures) < len(data) - 1
    for first in failures:
        asked = AcompRequest(split(data, first), buffers(4096), len(data))
        assert now.decompress(asked) == EINVAL
        assert asked.dlen == 4096  # deflate writes dlen on success only
        assert unpack(fixed, split(data, first), buffers(4096)) == (0, 4096, far)


def test_deflate_own_data_never_needs_more_than_its_window() -> None:
    data = compressed(acomp("deflate"), PAGES["records"])
    for first in range(1, len(data)):
        assert unpack(acomp("deflate"), split(data, first), buffers(4096)) == (0, 4096, PAGES["records"])


def test_deflate_unfinished_and_too_long_streams() -> None:
    data = compressed(acomp("deflate"))
    assert unpack(acomp("deflate"), sg_init_one(data[:-5]), buffers(4096))[0] == EINVAL
    assert unpack(acomp("deflate"), sg_init_one(b"\xff" * 9), buffers(4096))[0] == EINVAL
    asked = AcompRequest(sg_init_one(data), buffers(4000), len(data), 4000)
    assert acomp("deflate").decompress(asked) == ENOSPC


# zstd


def frame() -> bytes:
    return compressed(acomp("zstd"))


def test_zstd_two_entries_stream_to_the_same_page() -> None:
    for first in (1, 4, 7, 600, len(frame()) - 1):
        assert unpack(acomp("zstd"), split(frame(), first), buffers(4096)) == (0, 4096, TEXT)


def test_zstd_streams_read_every_kind_of_frame() -> None:
    zstd = streaming_module()
    names = zstd.CompressionParameter
    for page in (TEXT, NOISE, PAGES["zero"], PAGES["half-noise"]):
        for sized in (0, 1):
            compressor = zstd.ZstdCompressor(options={names.content_size_flag: sized, names.window_log: 12})
            flush = zstd.ZstdCompressor.FLUSH_BLOCK
            blocks = b"".join(compressor.compress(page[at : at + 1000], flush) for at in range(0, 4096, 1000))
            for data in (blocks + compressor.flush(), zstd.ZstdCompressor(3).compress(page, 2)):
                for first in (1, 5, 9, len(data) // 2, len(data) - 2):
                    for defects in (KERNEL_DEFECTS["7.3"], frozenset[str]()):
                        # An empty last block needs no room but is refused without: the page is not all there is.
                        dst = buffers(1000, 3096, 1)
                        asked = AcompRequest(split(data, first), dst, len(data), 4097)
                        assert acomp("zstd", defects=defects).decompress(asked) == 0
                        assert (asked.dlen, content(dst)[:4096]) == (4096, page)


def test_zstd_bad_data_is_einval_in_one_piece_and_eio_in_two() -> None:
    bad = b"\0" + frame()[1:]
    assert unpack(acomp("zstd"), sg_init_one(bad), buffers(4096))[:2] == (EINVAL, 0)
    assert unpack(acomp("zstd"), split(bad, 9), buffers(4096))[:2] == (EIO, 0)


def test_zstd_unfinished_frame_as_it_is_and_as_posted() -> None:
    cut = split(frame()[:-1], 9)
    assert unpack(acomp("zstd"), cut, buffers(4096))[:2] == (0, 0)  # a success without a page
    assert unpack(acomp("zstd", defects=frozenset[str]()), cut, buffers(4096))[:2] == (EINVAL, 0)


def test_zstd_decompress_without_room_is_enospc() -> None:
    asked = AcompRequest(split(frame(), 9), buffers(4000), len(frame()), 4000)
    for defects in (KERNEL_DEFECTS["7.3"], frozenset[str]()):
        assert acomp("zstd", defects=defects).decompress(asked) == ENOSPC
        assert asked.dlen == 0
        asked.dlen = 4000


def test_zstd_compress_cut_off_frame_as_it_is_and_as_posted() -> None:
    is_, posted = acomp("zstd"), acomp("zstd", defects=frozenset[str]())
    whole = AcompRequest(split(TEXT, 100), buffers(4096))
    assert is_.compress(whole) == 0
    size = whole.dlen
    assert unpack(is_, sg_init_one(content(whole.dst_sg())[:size]), buffers(4096)) == (0, 4096, TEXT)
    # The end of the frame does not fit behind the blocks, though a page more follows.
    tight = AcompRequest(split(TEXT, 100), buffers(size - 1, 4096), dlen=size + 4095)
    assert is_.compress(tight) == 0
    assert tight.dlen < size
    assert unpack(is_, sg_init_one(content(tight.dst_sg())[: tight.dlen]), buffers(4096))[0] == EINVAL
    tight = AcompRequest(split(TEXT, 100), buffers(size - 1, 4096), dlen=size + 4095)
    assert posted.compress(tight) == 0
    assert unpack(is_, sg_init_one(content(tight.dst_sg())[: tight.dlen]), buffers(4096)) == (0, 4096, TEXT)


def test_zstd_streaming_without_room_is_enospc() -> None:
    for defects in (KERNEL_DEFECTS["7.3"], frozenset[str]()):
        asked = AcompRequest(split(NOISE, 100), buffers(4096))
        assert acomp("zstd", defects=defects).compress(asked) == ENOSPC
        assert asked.dlen == 0


# lists of every shape

_CUTS = st.lists(st.integers(1, 4095), max_size=3, unique=True).map(sorted)


def _sizes(cuts: list[int], total: int) -> list[int]:
    edges = [0, *(cut for cut in cuts if cut < total), total]
    return [b - a for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(src=_CUTS, dst=_CUTS, page=st.sampled_from(["text", "records", "half-noise", "zero", "sparse"]))
def test_any_split_decompresses_to_the_page(name: str, src: list[int], dst: list[int], page: str) -> None:
    tfm = acomp(name)
    data = compressed(tfm, PAGES[page])
    pieces = split(data, *_sizes(src, len(data))[:-1])
    room = buffers(*_sizes(dst, 4096))
    err, dlen, out = unpack(tfm, pieces, room)
    if name in ("zstd", "deflate") or len(room) == 1:
        assert (err, dlen, out) == (0, 4096, PAGES[page])
    else:
        assert err == ENOSYS  # scomp maps the first entry only


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(src=_CUTS, dst=_CUTS)
def test_any_split_decompresses_in_612(name: str, src: list[int], dst: list[int]) -> None:
    tfm = acomp(name, Acomp612)
    data = compressed(tfm)
    assert unpack(tfm, split(data, *_sizes(src, len(data))[:-1]), buffers(*_sizes(dst, 4096))) == (0, 4096, TEXT)


@settings(max_examples=40, deadline=None)
@given(src=_CUTS, name=st.sampled_from(["lz4", "lzo-rle", "842", "deflate"]))
def test_a_split_source_compresses_to_the_same(src: list[int], name: str) -> None:
    asked = AcompRequest(split(TEXT, *_sizes(src, 4096)[:-1]), buffers(4096))
    assert acomp(name).compress(asked) == 0
    assert asked.dst_sg()[0].read(asked.dlen) == compressed(acomp(name))


def test_only_whole_pages_are_compressed() -> None:
    with pytest.raises(ValueError, match="4096"):
        acomp("lz4").compress(request(TEXT, slen=4000))


# drivers that want lists


class Echo(AcompAlg):
    """An asynchronous driver without REQ_VIRT that copies; `late`: it completes by interrupt."""

    name = "echo"
    is_async = True
    req_virt = False

    def __init__(self, late: bool = False, forget: bool = False) -> None:
        self.late, self.forget = late, forget
        self.waiting: list[AcompRequest] = []

    def compress(self, request: AcompRequest) -> int:
        data = request.src_sg()[0].read(8)
        request.dst_sg()[0].write(data)
        request.dlen = 8
        if self.late:
            self.waiting.append(request)
            return EINPROGRESS
        return 0

    decompress = compress

    def interrupt(self) -> None:
        for request in self.waiting:
            if request.complete and not self.forget:
                request.complete(0)
        self.waiting.clear()

    def fallback(self) -> AcompAlg:
        return Echo()


def test_virtual_addresses_are_converted_and_put_back() -> None:
    for late in (False, True):
        buffer = bytearray(4096)
        asked = AcompRequest(TEXT, buffer)
        assert Acomp7(Echo(late)).compress(asked) == 0
        assert (asked.src, asked.dst, asked.dlen) == (TEXT, buffer, 8)
        assert buffer[:8] == TEXT[:8]


def test_save_req_as_it_was_follows_a_wrong_pointer() -> None:
    for kernel in KERNEL_DEFECTS:
        tfm = Acomp7(Echo(late=True), defects=KERNEL_DEFECTS[kernel])
        if kernel in ("6.18", "6.19"):
            with pytest.raises(KernelFault, match="acomp_reqchain_done"):
                tfm.compress(AcompRequest(TEXT, bytearray(4096)))
        else:
            assert tfm.compress(AcompRequest(TEXT, bytearray(4096))) == 0
        # Lists are not converted, and a driver that answers at once calls nothing back.
        assert Acomp7(Echo(late=True), defects=KERNEL_DEFECTS[kernel]).compress(request()) == 0
        assert Acomp7(Echo(), defects=KERNEL_DEFECTS[kernel]).compress(AcompRequest(TEXT, bytearray(4096))) == 0


def test_virt_to_sg_as_it_was_loses_the_destination_folio() -> None:
    folio = bytearray(8192)
    for defects in (frozenset({"acomp_virt_to_sg"}), frozenset[str]()):
        asked = AcompRequest(sg_init_one(TEXT), AcompFolio(folio, 4096))
        tfm = Acomp7(Echo(), defects=defects)
        if defects:
            with pytest.raises(KernelFault, match="destination is a folio pointer"):
                tfm.compress(asked)
            assert folio == bytes(8192)
        else:
            assert tfm.compress(asked) == 0
            assert folio[4096:4104] == TEXT[:8]
        assert isinstance(asked.dst, AcompFolio)


def test_addresses_no_device_reaches_go_to_the_fallback() -> None:
    buffer = bytearray(4096)
    asked = AcompRequest(sg_init_one(TEXT), sg_init_one(buffer), nondma=True)
    assert Acomp7(Echo(late=True)).compress(asked) == 0  # lists are never "nondma"
    broken = AcompRequest(TEXT, buffer, nondma=True)
    with pytest.raises(KernelFault, match="virtual address"):
        Acomp7(Echo()).compress(broken)  # Echo's fallback is an Echo, which wants lists


def test_a_request_that_nobody_completes() -> None:
    with pytest.raises(NeverCompletes):
        Acomp7(Echo(late=True, forget=True)).compress(request())


def test_unknown_defects_are_refused() -> None:
    with pytest.raises(ValueError, match="no such defect: zstd_steam"):
        acomp("zstd", defects=frozenset({"zstd_steam"}))
    with pytest.raises(ValueError, match="deflate-iaa is a driver"):
        Acomp7(compressor_for("deflate-iaa", "mainline-7.3"))


# faults


def test_a_fault_leaves_the_request_as_it_was() -> None:
    faults = FaultPlan.from_json('[{"at": "compress", "page": 7, "error": "EIO"}]')
    tfm = acomp("lz4", faults=faults)
    asked = request(page=7)
    assert tfm.call(asked) == CallResult(EIO, 4096, (4096,))
    assert content(asked.dst_sg()) == bytes(4096)
    assert tfm.compress(request(page=6)) == 0


def test_decompress_faults() -> None:
    tfm = acomp("lz4", faults=FaultPlan.from_json('[{"at": "decompress", "call": 1, "error": "EIO"}]'))
    data = compressed(tfm)
    assert unpack(tfm, sg_init_one(data), buffers(4096))[0] == EIO
    assert unpack(tfm, sg_init_one(data), buffers(4096)) == (0, 4096, TEXT)


# v8


def test_v8_software_is_a_chain_of_one() -> None:
    tfm = AcompV8(compressor_for("lz4", "mainline-6.12"))
    assert tfm.compr_batch_size == 1
    asked = request(NOISE, 8192)
    assert tfm.compress_chain([asked]) == EINVAL
    assert asked.chain_err == EINVAL
    with pytest.raises(ValueError, match="at least one"):
        tfm.compress_chain([])


# v12


def test_v12_software_says_lengths_in_dlen() -> None:
    tfm = AcompV12(compressor_for("lz4", "mainline-6.18"))
    asked = request(unit_size=4096)
    assert tfm.compress(asked) == 0
    (dlen,) = tfm.dlens(asked)
    assert dlen.value == asked.dlen == compressor_for("lz4", "mainline-6.18").compress(TEXT).dlen
    dlen.value = ENOSPC  # zswap writes the errno there
    assert asked.dlen == 2**32 - 28
    assert dlen.value == ENOSPC
    assert asked.dst_sg()[0].length == 4096


# v14


def v14(name: str = "lz4", cls: type[AcompV14] = AcompV14, faults: FaultPlan | None = None) -> AcompV14:
    return cls(compressor_for(name, "mainline-6.18"), faults)


@pytest.mark.parametrize("cls", [AcompV14, AcompV14Meant])
@pytest.mark.parametrize("name", NAMES)
def test_v14_wrapper_writes_length_or_error_into_the_entry(name: str, cls: type[AcompV14]) -> None:
    compressor = compressor_for(name, "mainline-6.18")
    for page in (TEXT, NOISE):
        want = compressor.compress(page)
        asked = request(page, unit_size=4096)
        got = v14(name, cls).call(asked)
        assert got == CallResult(want.err, want.dlen, (want.err or want.dlen,))
        assert asked.unit_size == 4096


def test_v14_without_unit_size_is_mainline() -> None:
    assert v14().call(request()) == CallResult(0, 2110, (4096,))


def test_v14_software_takes_one_unit() -> None:
    folio = TEXT + TEXT
    for cls, lengths in ((AcompV14, (8192, 4096)), (AcompV14Meant, (ENOSYS, ENOSYS))):
        dst = buffers(4096, 4096)
        dst[0].length = 8192  # as zswap sets it
        asked = AcompRequest(set_src_folio(folio, 0, 8192), dst, 8192, 8192, 4096)
        assert v14(cls=cls).call(asked) == CallResult(ENOSYS, 8192, lengths)


def test_v14_virtual_requests_are_as_before() -> None:
    buffer = bytearray(4096)
    asked = AcompRequest(TEXT, buffer, unit_size=4096)
    assert v14().compress(asked) == 0
    assert asked.dlen == 2110


def test_v14_decompress_ignores_unit_size() -> None:
    tfm = v14()
    data = compressed(tfm)
    asked = AcompRequest(split(data, 50), buffers(4096), len(data), unit_size=4096)
    assert tfm.call(asked, comp=False) == CallResult(0, 4096, (4096,))


@pytest.mark.parametrize("length", [0, 4096])
def test_v14_lengths_of_nothing_and_of_a_page_are_successes_unless_meant(length: int) -> None:
    odd = Synthetic(lambda page: CompressResult(0, length, bytes(length)))
    assert AcompV14(odd).call(request(unit_size=4096)) == CallResult(0, length, (length,))
    assert AcompV14Meant(odd).call(request(unit_size=4096)) == CallResult(EINVAL, length, (EINVAL,))
    # Only units are judged: neither a request without any nor a decompression.
    assert AcompV14Meant(odd).call(request()) == CallResult(0, length, (4096,))
    assert AcompV14Meant(odd).call(AcompRequest(TEXT, bytearray(4096), unit_size=4096)).err == 0
    data = compressed(v14(cls=AcompV14Meant))
    asked = AcompRequest(sg_init_one(data), buffers(4096), len(data), unit_size=4096)
    assert v14(cls=AcompV14Meant).call(asked, comp=False) == CallResult(0, 4096, (4096,))


def test_v14_exactly_a_page_of_a_real_compressor() -> None:
    got = v14().call(request(PAGES["repeat-21"], unit_size=4096))
    assert got == CallResult(0, 4096, (4096,))  # L1


def test_v14_stale_length_after_an_early_error() -> None:
    early = '[{"at": "compress", "error": "EIO", "leave_lengths": true}]'
    late = '[{"at": "compress", "error": "EIO"}]'
    assert v14(faults=FaultPlan.from_json(early)).call(request(unit_size=4096)).lengths == (4096,)  # L3
    assert v14(faults=FaultPlan.from_json(late)).call(request(unit_size=4096)).lengths == (EIO,)


def test_v14_base_has_the_wrong_pointer() -> None:
    with pytest.raises(KernelFault, match="acomp_reqchain_done"):
        AcompV14(Echo(late=True)).compress(request(unit_size=4096))
    assert AcompV14(Echo()).call(request(unit_size=4096)).lengths == (8,)
