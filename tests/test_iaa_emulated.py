# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model predicts of the emulated IAA is what the device writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iaabench import Bench

from model.crypto import knownanswers as known
from model.crypto.base import CorruptData
from model.crypto.registry import compressor_for
from model.errno import E2BIG
from replay.iaa.compressor import EmulatedDeflateIaa, EmulatedDeflateIaaDynamic
from traces.lab.iaa.descriptors import Compress, Flag, Opcode

PAGES = [page for _, page in known.pages()]
DYNAMIC = {"compr_flags": int(Compress.FLUSH_OUTPUT | Compress.APPEND_EOB | Compress.GEN_HDR_1_PASS),
           "word": Opcode.COMPRESS << 24 | Flag.CRAV | Flag.RCR, "src2_addr": 0, "src2_size": 0}
KINDS = [(EmulatedDeflateIaa, "", {}), (EmulatedDeflateIaaDynamic, "version=2", DYNAMIC)]


@pytest.mark.parametrize(("kind", "options", "more"), KINDS, ids=["fixed", "dynamic"])
@given(page=st.one_of(st.sampled_from(PAGES), st.binary(min_size=1, max_size=64).map(lambda b: (b * 4096)[:4096])))
@settings(deadline=None, max_examples=60)
def test_the_device_writes_what_the_model_predicts(kind: type[EmulatedDeflateIaa], options: str, more: dict[str, int], page: bytes) -> None:
    model = kind("mainline-7.3")
    assert model.grade == "exact"
    bench = Bench(options).set_up()
    bench.put(0x10000, page)
    record, wanted = bench.compress(**more), model.compress(page)
    if wanted.err:
        assert (wanted.err, wanted.dlen) == (E2BIG, 4096)
        assert record.ends == (0x0A, 0x19)
    else:
        assert (record.size, bench.get(0x20000, record.size)) == (wanted.dlen, wanted.data)
        assert model.decompress(wanted.data) == page
    bench.close()


@pytest.mark.parametrize("kind", [EmulatedDeflateIaa, EmulatedDeflateIaaDynamic])
def test_known_answers(kind: type[EmulatedDeflateIaa]) -> None:
    model = kind("mainline-7.3")
    assert model.self_check() == []
    errs, dlens, head = model.lengths(np.frombuffer(b"".join(PAGES), np.uint8).reshape(-1, 4096), 2)
    for page, err, dlen, first in zip(PAGES, errs, dlens, head, strict=True):
        one = model.compress(page)
        assert (err, dlen) == (one.err, one.dlen)
        assert int(first).to_bytes(8, "little") == one.data[:8].ljust(8, b"\0")
    assert {0, E2BIG} == set(errs.tolist())


def test_another_coder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmulatedDeflateIaa, "_answer", "0" * 40)
    assert "the known pages give" in EmulatedDeflateIaa("mainline-7.3").self_check()[0]


def test_its_lengths_lie_within_the_hardware_s_bounds() -> None:
    pages = np.frombuffer(b"".join(PAGES), np.uint8).reshape(-1, 4096)
    low, high = compressor_for("deflate-iaa", "mainline-7.3").bounds(pages)  # type: ignore[attr-defined]
    errs, dlens, _ = EmulatedDeflateIaa("mainline-7.3").lengths(pages)
    fits = errs == 0
    assert (low[fits] <= dlens[fits]).all()
    assert (dlens[fits] <= high[fits]).all()
    assert (high[~fits] > 4096).all()


@pytest.mark.parametrize("data", [b"", b"\x07", b"\x4b\x04\x00"])
def test_what_is_not_a_page_is_damaged(data: bytes) -> None:
    with pytest.raises(CorruptData):
        EmulatedDeflateIaa("mainline-7.3").decompress(data)
