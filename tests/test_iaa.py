# SPDX-License-Identifier: GPL-2.0-or-later
"""iaa_crypto of mainline and as posted: queues, errors, fallbacks, statistics, batches."""

from __future__ import annotations

import itertools
import zlib
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.crypto import compressor_for
from model.crypto import knownanswers as known
from model.crypto.acomp import (
    Acomp7,
    Acomp612,
    AcompRequest,
    AcompV8,
    AcompV12,
    AcompV14,
    AcompV14Meant,
    KernelFault,
    NeverCompletes,
    Scatterlist,
    SgList,
    as_int32,
    set_src_folio,
    sg_init_one,
)
from model.crypto.faults import FaultPlan
from model.crypto.iaa import KERNEL_DEFECTS, IaaCrypto
from model.crypto.iaa_device import IaaDevice, StandIn, Topology, Wq, mainline_wq_table
from model.crypto.iaa_posted import IaaPosted, submit_order
from model.crypto.iaa_posted_wqs import DriverAttributes, WqsV12, cpu_to_iaa
from model.crypto.iaa_stats import GLOBAL_STATS
from model.errno import (
    E2BIG,
    EAGAIN,
    EBUSY,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    ENOSPC,
    EOVERFLOW,
    ETIMEDOUT,
)

PAGES = dict(known.pages())
TEXT, NOISE = PAGES["text"], PAGES["noise"]
TEXT_LEN = len(StandIn().compress(TEXT, 4096).output)
SERVER = Topology.regular(packages=2, cores=4, threads=2)


def plan(*rules: dict[str, object]) -> FaultPlan:
    return FaultPlan.from_data(list(rules))


def request(data: bytes = TEXT, **more: int) -> AcompRequest:
    return AcompRequest(sg_init_one(data), sg_init_one(bytearray(4096)), **more)  # type: ignore[arg-type]


def reading(data: bytes, *cuts: int, dst: SgList | None = None) -> AcompRequest:
    edges = [0, *cuts, len(data)]
    entries = [Scatterlist(data[a:b]) for a, b in itertools.pairwise(edges)]
    return AcompRequest(entries, dst or sg_init_one(bytearray(4096)), len(data))


def text() -> bytes:
    return StandIn().compress(TEXT, 4096).output


def page_of(asked: AcompRequest) -> bytes:
    return b"".join(bytes(entry.buffer) for entry in asked.dst_sg())


# the stand-in


def test_fixed_is_one_fixed_block_as_deflate_iaa_estimates() -> None:
    out = StandIn().compress(TEXT, 4096).output
    assert out[0] & 7 == 0b011  # BFINAL, BTYPE 01
    assert out == compressor_for("deflate-iaa", "mainline-7.3").compress(TEXT).data
    assert zlib.decompress(out, -12) == TEXT
    assert StandIn().compress(NOISE, 4096).error == E2BIG


def test_level6_is_another_stream_of_the_same_page() -> None:
    out = StandIn("level6").compress(TEXT, 4096).output
    assert len(out) < TEXT_LEN
    assert StandIn().decompress(out, 4096).output == TEXT
    with pytest.raises(ValueError, match="fixed or level6"):
        StandIn("level7")  # type: ignore[arg-type]


# CPU to device


def devices_of(table_how: str, topology: Topology, count: int) -> list[int]:
    found = IaaDevice.several(count)
    table = mainline_wq_table(topology, found, table_how)  # type: ignore[arg-type]
    return [row.wqs[0].device for row in table]


def test_running_index_612_and_per_node_counter() -> None:
    topology = Topology.regular(packages=2, cores=4)  # nodes 0-3 and 4-7
    assert devices_of("7.0", topology, 4) == [1, 1, 3, 3, 5, 5, 7, 7]
    assert devices_of("6.12", topology, 4) == [1, 1, 3, 3, 5, 5, 7, 7]
    assert devices_of("6.18", topology, 4) == [1, 1, 3, 3, 1, 1, 3, 3]  # the defect: 5 and 7 unused


def test_612_moves_on_at_each_node_where_later_kernels_run_on() -> None:
    topology = Topology.regular(packages=2, cores=3)  # 6 CPUs, 3 devices: 2 CPUs each
    assert devices_of("7.0", topology, 3) == [1, 1, 3, 3, 5, 5]
    assert devices_of("6.12", topology, 3) == [1, 1, 3, 5, 5, 1]  # a fourth device: the first again


def test_one_device_and_none() -> None:
    assert devices_of("7.0", SERVER, 1) == [1] * 16
    assert [row.wqs for row in mainline_wq_table(SERVER, [], "7.0")] == [[]] * 16


def test_defects_choose_the_mapping() -> None:
    found = {}
    for kernel in KERNEL_DEFECTS:
        driver = IaaCrypto(kernel, IaaDevice.several(4), Topology.regular(packages=2, cores=4))
        found[kernel] = {row.wqs[0].device for row in driver.table}
    assert found == {kernel: {1, 3} if kernel == "6.18" else {1, 3, 5, 7} for kernel in KERNEL_DEFECTS}
    fixed = IaaCrypto("6.18", IaaDevice.several(4), Topology.regular(packages=2, cores=4), defects=frozenset())
    assert {row.wqs[0].device for row in fixed.table} == {1, 3, 5, 7}


_TOPOLOGIES = st.builds(
    lambda packages, nodes, per_node, threads: Topology.regular(
        packages=packages, nodes_per_package=nodes, cores=nodes * per_node, threads=threads
    ),
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 6), st.integers(1, 2),
)


@given(_TOPOLOGIES, st.integers(1, 9), st.integers(1, 4), st.sampled_from(["6.12", "6.18", "7.0"]))
def test_every_cpu_has_all_queues_of_one_device(topology: Topology, count: int, wqs: int, how: str) -> None:
    found = IaaDevice.several(count, wqs)
    table = mainline_wq_table(topology, found, how)  # type: ignore[arg-type]
    assert len(table) == topology.nr_cpus
    for row in table:
        assert row.wqs in [device.wqs for device in found]
    if how == "7.0" and topology.nr_cpus % count == 0 and len(set(topology.nodes)) * (
        topology.nr_cpus // len(set(topology.nodes))
    ) == topology.nr_cpus:
        assert {row.wqs[0].device for row in table} == {device.id for device in found}  # none unused


@given(_TOPOLOGIES, st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 3))
def test_posted_every_cpu_has_queues(
    topology: Topology, count: int, wqs: int, comps: bool, decomps: bool, only: int
) -> None:
    found = IaaDevice.several(count, wqs)
    wanted = DriverAttributes(g_comp_wqs_per_iaa=only, distribute_comps=comps, distribute_decomps=decomps)
    tables = WqsV12(topology, wanted)
    # Packages without a device of their own get none when all jobs are distributed: v12 and v14 then stay off.
    starved = (comps or decomps) and 1 < count < topology.nr_packages
    assert tables.rebalance(found) is not starved
    for cpu in range(topology.nr_cpus):
        assert 0 <= cpu_to_iaa(topology, cpu, count) < count
        for table, distributed in ((tables.comp[cpu], comps), (tables.decomp[cpu], decomps)):
            if table.wqs:
                assert 0 <= table.cur_wq < len(table.wqs)
            elif not distributed:
                pytest.fail("a mapped CPU has no queue")


def test_round_robin_moves_on_first() -> None:
    device = IaaDevice.several(1, 3)[0]
    driver = IaaCrypto("7.3", [device], verify_compress=False)
    tfm = Acomp7(driver)
    order = []
    for _ in range(4):
        before = {key: wq.comp_calls for key, wq in driver.stats.wqs.items()}
        assert tfm.compress(request()) == 0
        order += [key[1] for key, wq in driver.stats.wqs.items() if wq.comp_calls != before[key]]
    assert order == [1, 2, 0, 1]
    assert Acomp7(IaaCrypto("7.3", IaaDevice.several(1, 1))).compress(request()) == 0


# attributes and hot plug


def test_attributes_are_busy_while_a_device_is_enabled() -> None:
    device = IaaDevice.several(1)[0]
    (wq,) = device.wqs
    driver = IaaCrypto("7.3", [device])
    assert driver.verify_compress
    assert driver.sync_mode == "sync"
    assert driver.store_sync_mode("async_irq") == EBUSY
    assert driver.store_verify_compress(False) == EBUSY
    driver.remove(wq)
    assert driver.store_sync_mode("rapid") == EINVAL
    assert driver.store_sync_mode("async") == 0
    assert driver.sync_mode == "sync"  # mainline: what async sets is what sync sets
    assert driver.store_verify_compress(False) == 0
    assert not driver.verify_compress
    assert Acomp7(driver).compress(request()) == ENODEV
    driver.probe(wq)
    assert Acomp7(driver).compress(request()) == 0
    with pytest.raises(ValueError, match="is not bound"):
        driver.remove(Wq(9, 9))
    with pytest.raises(ValueError, match="no sync_mode"):
        IaaCrypto("7.3", sync_mode="rapid")
    with pytest.raises(ValueError, match="no such defect"):
        IaaCrypto("7.3", defects=frozenset({"x"}))
    with pytest.raises(ValueError, match="no iaa_crypto of kernel"):
        IaaCrypto("5.4")


# errors and statistics


def stats_of(driver: IaaCrypto | IaaPosted) -> dict[str, int]:
    short = {name: name.removeprefix("total_").removeprefix("completion_") for name in GLOBAL_STATS}
    return {short[name]: n for name, n in driver.stats.global_stats().items() if n}


def test_success_and_its_counters() -> None:
    driver = IaaCrypto("7.3")
    tfm = Acomp7(driver)
    asked = request()
    assert tfm.call(asked) == (0, TEXT_LEN, (4096,))
    back = reading(asked.dst_sg()[0].read(TEXT_LEN))
    assert tfm.decompress(back) == 0
    assert page_of(back) == TEXT
    assert stats_of(driver) == {
        "comp_calls": 1, "comp_bytes_out": TEXT_LEN, "decomp_calls": 1, "decomp_bytes_in": TEXT_LEN,
    }
    own = {"comp_calls": 1, "comp_bytes": TEXT_LEN, "decomp_calls": 1, "decomp_bytes": TEXT_LEN}
    assert driver.stats.wq_stats() == {1: {"n_wqs": 1, **own, "wqs": {0: own}}}
    assert tuple(driver.stats.global_stats()) == GLOBAL_STATS
    driver.stats.stats_reset()
    assert stats_of(driver) == {}
    assert driver.stats.wq_stats()[1]["comp_calls"] == 0
    assert "total_sw_comp_calls" not in IaaCrypto("6.12").stats.global_stats()


@pytest.mark.parametrize(
    ("error", "err", "counted"),
    [
        ("E2BIG", E2BIG, "comp_buf_overflow_errors"),
        ("ETIMEDOUT", ETIMEDOUT, "timeout_errors"),
        ("EINVAL", EINVAL, "einval_errors"),
        ("ANALYTICS_ERROR", EINVAL, "einval_errors"),
        ("EOVERFLOW", EOVERFLOW, None),
    ],
)
@pytest.mark.parametrize("mode", ["sync", "async_irq"])
def test_compress_completion_errors(error: str, err: int, counted: str | None, mode: str) -> None:
    driver = IaaCrypto("7.2", faults=plan({"at": "complete", "error": error}), sync_mode=mode)
    want = EIO if mode == "async_irq" else err
    asked = request()
    assert Acomp7(driver).call(asked) == (want, 4096, (4096,))
    assert page_of(asked) == bytes(4096)
    assert stats_of(driver) == {"comp_calls": 1} | ({counted: 1} if counted else {})


def test_incompressible_is_e2big_and_never_software() -> None:
    driver = IaaCrypto("7.3")
    assert Acomp7(driver).compress(request(NOISE)) == E2BIG
    assert stats_of(driver) == {"comp_calls": 1, "comp_buf_overflow_errors": 1}


def test_exactly_a_page_fits() -> None:
    sizes = {}
    for zeros in range(40, 400):
        page = NOISE[: 4096 - zeros] + bytes(zeros)
        record = StandIn().compress(page, 8192)
        sizes[len(record.output)] = page
    assert 4096 in sizes
    assert 4097 in sizes
    asked = request(sizes[4096])
    assert (Acomp7(IaaCrypto("7.3")).compress(asked), asked.dlen) == (0, 4096)
    assert Acomp7(IaaCrypto("7.3")).compress(request(sizes[4097])) == E2BIG


def test_a_job_that_never_completes() -> None:
    hang = {"at": "complete", "call": 1, "error": "NO_COMPLETION"}
    with pytest.raises(NeverCompletes, match="polls it without end"):
        Acomp612(IaaCrypto("6.12", faults=plan(hang))).compress(request())
    driver = IaaCrypto("7.2", faults=plan(hang))
    tfm = Acomp7(driver)
    assert tfm.compress(request()) == ETIMEDOUT
    assert not driver.enabled
    assert tfm.compress(request()) == ENODEV  # every device, from now on
    assert tfm.decompress(reading(text())) == ENODEV


@pytest.mark.parametrize("site", ["descriptor", "submit"])
def test_descriptor_and_submission_errors_are_returned(site: str) -> None:
    driver = IaaCrypto("7.3", faults=plan({"at": site, "error": "ENOMEM"}))
    assert Acomp7(driver).compress(request()) == ENOMEM
    assert Acomp7(driver).decompress(reading(text())) == ENOMEM
    assert stats_of(driver) == {}


def test_bad_arguments() -> None:
    tfm = Acomp7(IaaCrypto("7.3"))
    assert tfm.compress(request(slen=0)) == EINVAL
    assert tfm.decompress(request(slen=0)) == EINVAL


@pytest.mark.parametrize(("mode", "err"), [("sync", EINVAL), ("async_irq", EIO)])
def test_verify_failure_leaves_length_and_bytes(mode: str, err: int) -> None:
    driver = IaaCrypto("7.3", faults=plan({"at": "verify", "error": "EINVAL"}), sync_mode=mode)
    asked = request()
    assert Acomp7(driver).compress(asked) == err
    assert asked.dlen == TEXT_LEN
    assert asked.dst_sg()[0].read(TEXT_LEN) == text()
    assert stats_of(driver) == {"comp_calls": 1, "comp_bytes_out": TEXT_LEN}
    quiet = IaaCrypto("7.3", faults=plan({"at": "verify", "error": "EINVAL"}), verify_compress=False)
    assert Acomp7(quiet).compress(request()) == 0


@pytest.mark.parametrize("irq", ["late", "early"])
def test_interrupts_succeed_either_way(irq: Literal["late", "early"]) -> None:
    tfm = Acomp7(IaaCrypto("7.3", sync_mode="async_irq", irq=irq))
    asked = request()
    assert (tfm.compress(asked), asked.dlen) == (0, TEXT_LEN)
    # A virtual address is converted for the device and put back.
    buffer = bytearray(4096)
    virtual = AcompRequest(TEXT, buffer)
    assert (tfm.compress(virtual), virtual.dlen, virtual.dst) == (0, TEXT_LEN, buffer)
    assert buffer[:TEXT_LEN] == text()


# fallbacks


@pytest.mark.parametrize(("kernel", "bytes_in"), [("6.12", 3), ("6.18", 3), ("7.1", 0), ("7.2", 0), ("7.3", 0)])
def test_analytics_error_falls_back_and_who_counts_its_bytes(kernel: str, bytes_in: int) -> None:
    driver = IaaCrypto(kernel, faults=plan({"at": "complete", "error": "ANALYTICS_ERROR"}))
    tfm = (Acomp612 if kernel == "6.12" else Acomp7)(driver)
    asked = reading(zlib.compress(bytes(4096), 6, -11)[:])
    assert tfm.decompress(asked) == 0
    assert page_of(asked) == bytes(4096)
    got = stats_of(driver)
    assert got.pop("decomp_bytes_in", 0) == (asked.slen if bytes_in else 0)
    assert got == {"decomp_calls": 1, "sw_decomp_calls": 1, "einval_errors": 1}


def test_other_decompress_errors_do_not_fall_back() -> None:
    for error, err in (("ETIMEDOUT", ETIMEDOUT), ("EOVERFLOW", EOVERFLOW), ("EINVAL", EINVAL)):
        driver = IaaCrypto("7.3", faults=plan({"at": "complete", "error": error}))
        assert Acomp7(driver).decompress(reading(text())) == err
        assert driver.stats.counters["total_sw_decomp_calls"] == 0
    bad = IaaCrypto("7.3")
    assert Acomp7(bad).decompress(reading(b"\xff" * 40)) == EINVAL  # software cannot read it either
    assert stats_of(bad) == {"decomp_calls": 1, "einval_errors": 1, "sw_decomp_calls": 1}


def test_room_too_small_for_the_page_is_eoverflow() -> None:
    asked = reading(text(), dst=sg_init_one(bytearray(4000)))
    asked.dlen = 4000
    assert Acomp7(IaaCrypto("7.3")).decompress(asked) == EOVERFLOW


@pytest.mark.parametrize("kernel", list(KERNEL_DEFECTS))
def test_a_source_of_two_entries(kernel: str) -> None:
    driver = IaaCrypto(kernel)
    asked = reading(text(), 40)
    err = (Acomp612 if kernel == "6.12" else Acomp7)(driver).decompress(asked)
    got = stats_of(driver)
    if kernel in ("6.12", "6.18", "7.0"):
        assert err == EIO  # iaa_multi_sg
        assert got == {}
    elif kernel == "7.3":
        assert err == 0
        assert got == {"decomp_calls": 1, "decomp_bytes_in": TEXT_LEN}
    else:
        assert err == 0
        assert got == {"sw_decomp_calls": 1}
    assert (page_of(asked) == TEXT) == (err == 0)


def test_a_compression_of_two_entries_is_software_and_then_deflate() -> None:
    driver = IaaCrypto("7.2")
    asked = AcompRequest([Scatterlist(TEXT, 0, 100), Scatterlist(TEXT, 100)], sg_init_one(bytearray(4096)))
    assert Acomp7(driver).compress(asked) == 0
    want = compressor_for("deflate", "mainline-7.2").compress(TEXT)
    assert asked.dst_sg()[0].read(asked.dlen) == want.data
    assert stats_of(driver) == {"sw_comp_calls": 1}
    noise = AcompRequest([Scatterlist(NOISE, 0, 100), Scatterlist(NOISE, 100)], sg_init_one(bytearray(4096)))
    assert Acomp7(driver).compress(noise) == ENOSPC
    assert Acomp612(IaaCrypto("6.12")).compress(noise) == EIO


def test_the_fallbacks_window_fails_on_iaa_data() -> None:
    far = known.noise(1, 600) + bytes(2400) + known.noise(1, 600) + bytes(496)
    data = StandIn().compress(far, 4096).output
    fixed = KERNEL_DEFECTS["7.2"] - {"deflate_window"}
    cuts = range(1, len(data))
    was = [Acomp7(IaaCrypto("7.2")).decompress(reading(data, cut)) for cut in cuts]
    assert set(was) == {0, EINVAL}
    assert {Acomp7(IaaCrypto("7.2", defects=fixed)).decompress(reading(data, cut)) for cut in cuts} == {0}
    assert {Acomp7(IaaCrypto("7.3")).decompress(reading(data, cut)) for cut in cuts} == {0}  # bounced
    # 7.3 without a bounce page is 7.2 again.
    cut = was.index(EINVAL) + 1
    empty = IaaCrypto("7.3")
    empty.bounce_pages = 0
    for driver in (empty, IaaCrypto("7.3", faults=plan({"at": "bounce_alloc", "error": "ENOMEM"}))):
        assert Acomp7(driver).decompress(reading(data, cut)) == EINVAL
        assert driver.stats.counters["total_sw_decomp_calls"] == 1


def test_73_bounces_neither_long_sources_nor_several_destinations() -> None:
    stored = b"".join(b"\0\0\0\xff\xff" for _ in range(900)) + zlib.compress(TEXT, 6, -11)
    assert len(stored) > 4096
    for asked in (
        reading(stored, 9),
        reading(zlib.compress(TEXT, 6, -11), dst=[Scatterlist(bytearray(4000)), Scatterlist(bytearray(96))]),
    ):
        driver = IaaCrypto("7.3")
        assert Acomp7(driver).decompress(asked) == 0
        assert page_of(asked) == TEXT
        assert stats_of(driver) == {"sw_decomp_calls": 1}
    # A second piece of destination begins a new call of inflate too, with 2 KiB of window.
    asked = reading(text(), dst=[Scatterlist(bytearray(4000)), Scatterlist(bytearray(96))])
    assert Acomp7(IaaCrypto("7.3")).decompress(asked) == EINVAL
    assert Acomp7(IaaCrypto("7.3", defects=frozenset())).decompress(asked) == 0


def test_dma_map_failure() -> None:
    for kernel, err in (("7.0", EIO), ("7.2", 0), ("7.3", 0)):
        driver = IaaCrypto(kernel, faults=plan({"at": "dma_map", "error": "ENOMEM"}))
        assert Acomp7(driver).compress(request()) == err
        assert Acomp7(driver).decompress(reading(text())) == err
        want = {} if err else {"sw_comp_calls": 1, "sw_decomp_calls": 1}
        assert stats_of(driver) == want


# as posted: queues


def test_posted_queues_are_shared_within_a_package_and_staggered() -> None:
    topology = Topology.regular(packages=2, cores=8)
    tables = WqsV12(topology, DriverAttributes())
    assert tables.rebalance(IaaDevice.several(4, 2))
    assert [[str(wq) for wq in tables.comp[cpu].wqs] for cpu in (0, 15)] == [["wq1.1", "wq3.1"], ["wq5.1", "wq7.1"]]
    assert [table.cur_wq for table in tables.comp] == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    assert [str(table.wqs[0]) for table in tables.decomp] == [
        f"wq{device}.0" for device in (1, 3, 5, 7) for _ in range(4)
    ]
    assert [str(tables.next_comp(0)) for _ in range(3)] == ["wq1.1", "wq3.1", "wq1.1"]  # returns, then moves on
    mapped = WqsV12(topology, DriverAttributes(distribute_comps=False))
    assert mapped.rebalance(IaaDevice.several(4, 2))
    assert [str(mapped.next_comp(4)) for _ in range(2)] == ["wq3.1", "wq3.1"]


def test_posted_one_device_serves_every_package() -> None:
    tables = WqsV12(SERVER, DriverAttributes(distribute_decomps=True))
    assert tables.rebalance(IaaDevice.several(1, 1))
    assert {str(wq) for table in tables.comp + tables.decomp for wq in table.wqs} == {"wq1.0"}


def test_posted_queues_are_sorted_as_they_come() -> None:
    driver = IaaPosted("v14", IaaDevice.several(1, 3), Topology.regular(cores=1))
    own = driver.wqs.by_device[1]
    assert [wq.id for wq in own.generic] == [0]
    assert [wq.id for wq in own.comp] == [1, 2]  # the text: only the last one compresses
    at_once = WqsV12(Topology.regular(cores=1), DriverAttributes())
    at_once.rebalance(IaaDevice.several(1, 3))
    assert [wq.id for wq in at_once.by_device[1].generic] == [0, 1]


def test_posted_all_use_the_first_queue_once_one_was_removed() -> None:
    """As a kernel with v14 does: the tables are made while the driver is off."""
    device = IaaDevice.several(1, 2)[0]
    first, compress_only = device.wqs
    driver = IaaPosted("v14", [device])
    driver.remove(compress_only)
    assert driver.enabled
    tables = driver.wqs
    assert isinstance(tables, WqsV12)
    assert all(table.wqs == [first] for table in tables.comp + tables.decomp)
    assert AcompV14(driver).call(request(unit_size=4096)).err == 0
    driver.remove(first)
    assert not driver.registered


def test_posted_a_removed_queue_stays_in_the_table() -> None:
    """What is given back is sorted in once more, as far as the table has room."""
    device = IaaDevice.several(1, 2)[0]
    first, compress_only = device.wqs
    driver = IaaPosted("v14", [device])
    for entries in (2, 3, 4, 5, 6, 7, 8, 8, 8):
        driver.remove(first)
        # That one serves all CPUs now, and is gone.
        assert AcompV14(driver).call(request(unit_size=4096)).err == ENODEV
        driver.probe(first)
        assert isinstance(driver.wqs, WqsV12)
        assert len(driver.wqs.comp[0].wqs) == entries
        assert driver.wqs.comp[0].wqs[:2] == [compress_only, first]
        assert AcompV14(driver).call(request(unit_size=4096)).err == 0


def test_v8_uses_the_nearest_device_and_its_global_queues() -> None:
    topology = Topology.regular(cores=4)
    driver = IaaPosted("v8", IaaDevice.several(2, 2), topology)
    assert [str(driver.wqs.next_comp(0)) for _ in range(3)] == ["wq1.1", "wq1.0", "wq1.1"]
    shared = IaaPosted("v8", IaaDevice.several(2, 2), topology, settings=DriverAttributes(g_consec_descs_per_gwq=2))
    assert [str(shared.wqs.next_comp(0)) for _ in range(5)] == ["wq1.1", "wq1.1", "wq3.1", "wq3.1", "wq1.1"]
    assert str(shared.wqs.next_comp(3)) == "wq3.1"
    assert str(shared.wqs.next_decomp(3)) == "wq3.0"


# as posted: single pages


@pytest.mark.parametrize(("posting", "cls"), [("v12", AcompV12), ("v14", AcompV14)])
def test_posted_single_page(posting: Literal["v12", "v14"], cls: type[AcompV12] | type[AcompV14]) -> None:
    driver = IaaPosted(posting)
    tfm = cls(driver)
    assert tfm.compr_batch_size == 8
    assert tfm.call(request(unit_size=4096)) == (0, TEXT_LEN, (TEXT_LEN,))
    got = tfm.call(request(NOISE, unit_size=4096))
    assert got == (E2BIG, 2**32 + E2BIG, (E2BIG,))
    assert stats_of(driver) == {"comp_calls": 2, "comp_bytes_out": TEXT_LEN, "comp_buf_overflow_errors": 1}


def test_v12_divides_by_the_unit_size() -> None:
    with pytest.raises(KernelFault, match="divides"):
        AcompV12(IaaPosted("v12")).compress(request())
    assert AcompV14(IaaPosted("v14")).compress(request()) == 0


@pytest.mark.parametrize(("posting", "err"), [("v8", EAGAIN), ("v12", ENODEV), ("v14", ENODEV)])
def test_no_descriptor_after_a_thousand_tries(posting: Literal["v8", "v12", "v14"], err: int) -> None:
    device = IaaDevice.several(1, 1, size=4)[0]
    device.wqs[0].busy = 4
    driver = IaaPosted(posting, [device])
    tfm = {"v8": AcompV8, "v12": AcompV12, "v14": AcompV14}[posting](driver)
    assert tfm.compress(request(unit_size=4096)) == err
    assert driver.alloc_retries == 999
    asked = reading(text())
    asked.unit_size = 4096
    assert tfm.decompress(asked) == 0  # by software
    assert page_of(asked) == TEXT
    assert driver.alloc_retries == 999 + 499
    # v8 counts what software inflated as its queue's.
    assert stats_of(driver) == {"sw_decomp_calls": 1} | ({"decomp_bytes_in": asked.slen} if posting == "v8" else {})
    device.wqs[0].busy = 3
    assert tfm.compress(request(unit_size=4096)) == 0
    assert device.wqs[0].in_flight == 0


@pytest.mark.parametrize("error", ["ANALYTICS_ERROR", "ETIMEDOUT", "EOVERFLOW", "EINVAL"])
def test_posted_any_decompress_error_goes_to_software(error: str) -> None:
    driver = IaaPosted("v14", faults=plan({"at": "complete", "error": error}))
    asked = reading(text())
    assert AcompV14(driver).call(asked, comp=False) == (0, 4096, (4096,))
    assert page_of(asked) == TEXT
    assert driver.stats.counters["total_sw_decomp_calls"] == 1
    assert driver.stats.counters["total_decomp_bytes_in"] == 0


def test_posted_without_devices() -> None:
    for posting, cls in (("v8", AcompV8), ("v12", AcompV12), ("v14", AcompV14)):
        driver = IaaPosted(posting, [])  # type: ignore[arg-type]
        asked = reading(text())
        asked.unit_size = 4096
        assert cls(driver).compress(request(unit_size=4096)) == ENODEV
        assert cls(driver).decompress(asked) == (ENODEV if posting == "v8" else 0)


def test_posted_dma_map_failure_is_eio() -> None:
    driver = IaaPosted("v14", faults=plan({"at": "dma_map", "error": "ENOMEM"}))
    assert AcompV14(driver).call(request(unit_size=4096)).lengths == (EIO,)
    assert AcompV14(driver).decompress(reading(text())) == EIO


def test_posted_verifies_when_asked() -> None:
    bad = plan({"at": "verify", "page": 2, "error": "EINVAL"})
    driver = IaaPosted("v14", verify_compress=True, faults=bad)
    assert AcompV14(driver).call(request(unit_size=4096, page=2)).lengths == (EINVAL,)
    assert AcompV14(driver).call(request(unit_size=4096, page=3)).lengths == (TEXT_LEN,)
    unasked = IaaPosted("v14", faults=plan({"at": "verify", "error": "EINVAL"}))
    assert AcompV14(unasked).call(request(unit_size=4096)).lengths == (TEXT_LEN,)
    assert AcompV14(driver).decompress(reading(text())) == 0
    assert driver.faults.calls["verify"] == 2  # compressions alone


@pytest.mark.parametrize("posting", ["v12", "v14"])
@pytest.mark.parametrize("meant", [False, True])
def test_async_irq_writes_the_length_after_submission(posting: Literal["v12", "v14"], meant: bool) -> None:
    if meant and posting == "v12":
        return
    cls = AcompV12 if posting == "v12" else AcompV14Meant if meant else AcompV14
    late = cls(IaaPosted(posting, sync_mode="async_irq", meant=meant))
    assert late.call(request(unit_size=4096)) == (0, TEXT_LEN, (TEXT_LEN,))
    early = cls(IaaPosted(posting, sync_mode="async_irq", irq="early", meant=meant))
    got = early.call(request(unit_size=4096))
    assert got.err == 0
    assert got.lengths == ((TEXT_LEN,) if meant else (-115,))  # L11
    asked = reading(text())
    asked.unit_size = 4096
    assert late.decompress(asked) == 0
    assert page_of(asked) == TEXT
    assert late.call(request(NOISE, unit_size=4096)) == (EIO, 2**32 + E2BIG, (E2BIG,))


# as posted: batches


def batch(pages: list[bytes], **more: int) -> AcompRequest:
    folio = NOISE + b"".join(pages)
    dst = [Scatterlist(bytearray(4096)) for _ in pages]
    size = 4096 * len(pages)
    dst[0].length = size  # as zswap sets it
    return AcompRequest(set_src_folio(folio, 4096, size), dst, size, size, 4096, **more)  # type: ignore[arg-type]


MIX = [TEXT, PAGES["records"], NOISE, PAGES["zero"]]


def lengths_of(pages: list[bytes]) -> tuple[int, ...]:
    records = [StandIn().compress(page, 4096) for page in pages]
    return tuple(record.error or len(record.output) for record in records)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(PAGES)), min_size=1, max_size=8),
    wqs=st.integers(1, 4),
    polls=st.dictionaries(st.integers(0, 7), st.integers(1, 3)),
)
def test_a_batch_is_its_pages_one_by_one(names: list[str], wqs: int, polls: dict[int, int]) -> None:
    pages = [PAGES[name] for name in names]
    want = lengths_of(pages)
    for posting, cls in (("v12", AcompV12), ("v14", AcompV14), ("v14", AcompV14Meant)):
        driver = IaaPosted(posting, IaaDevice.several(2, wqs), meant=cls is AcompV14Meant)  # type: ignore[arg-type]
        driver.polls = polls
        singles = [cls(driver).call(request(page, unit_size=4096)).lengths[0] for page in pages]
        assert tuple(singles) == want
        asked = batch(pages)
        got = cls(driver).call(asked)
        assert got.lengths == want
        assert as_int32(got.dlen) == want[0] or posting == "v12"
        for entry, page, length in zip(asked.dst_sg(), pages, want, strict=True):
            if length > 0:
                assert entry.read(length) == StandIn().compress(page, 4096).output
        assert all(wq.in_flight == 0 for device in driver.devices for wq in device.wqs)
        if cls is not AcompV14:
            assert (got.err != 0) == any(length < 0 for length in want)
    chained = AcompV8(IaaPosted("v8", IaaDevice.several(2, wqs)))
    requests = [request(page) for page in pages]
    err = chained.compress_chain(requests)
    assert err == requests[0].chain_err
    assert tuple(r.chain_err or r.dlen for r in requests) == want


def test_l2_completion_errors_are_lost_in_v14_only() -> None:
    want = lengths_of(MIX)
    assert want[2] == E2BIG
    asked = batch(MIX)
    assert AcompV14(IaaPosted("v14")).call(asked) == (0, want[0], want)
    assert asked.slen == 2**32 - 22
    assert AcompV14Meant(IaaPosted("v14", meant=True)).call(batch(MIX)) == (EINVAL, want[0], want)
    assert AcompV12(IaaPosted("v12")).call(batch(MIX)).err == EINVAL
    # A single page returns the errno itself, so the folio's size decides.
    assert AcompV14(IaaPosted("v14")).compress(request(NOISE, unit_size=4096)) == E2BIG


def test_submission_errors_are_returned() -> None:
    device = IaaDevice.several(1, 1, size=3)[0]
    driver = IaaPosted("v14", [device])
    got = AcompV14(driver).call(batch([TEXT] * 4))
    assert got.err == EINVAL
    # Nothing is waited for while the batch is submitted: the fourth job finds the queue full of its own.
    assert got.lengths == (TEXT_LEN, TEXT_LEN, TEXT_LEN, ENODEV)
    assert device.wqs[0].in_flight == 0
    asked = [request() for _ in range(4)]
    assert AcompV8(IaaPosted("v8", [IaaDevice(1, [Wq(1, 0, 3)])])).compress_chain(asked) == 0
    assert [r.chain_err for r in asked] == [0, 0, 0, EAGAIN]


def test_v8_head_that_cannot_be_submitted_fails_the_chain() -> None:
    driver = IaaPosted("v8", faults=plan({"at": "descriptor", "page": 0, "error": "EAGAIN"}))
    asked = [request(page=n) for n in range(3)]
    assert AcompV8(driver).compress_chain(asked) == EAGAIN
    assert [r.chain_err for r in asked] == [EAGAIN] * 3
    assert stats_of(driver) == {}


def test_v8_error_of_a_chain_is_the_heads_in_async_and_the_lasts_in_sync() -> None:
    for mode, err in (("async", 0), ("sync", E2BIG), ("async_irq", E2BIG)):
        asked = [request(TEXT), request(NOISE)]
        assert AcompV8(IaaPosted("v8", sync_mode=mode)).compress_chain(asked) == err
        assert [r.chain_err for r in asked] == [0, E2BIG]


def test_faults_in_chains() -> None:
    def chain(page: int) -> tuple[int, list[int]]:
        faults = plan({"at": "compress", "page": page, "error": "EIO"})
        asked = [request(page=n) for n in range(3)]
        return AcompV8(IaaPosted("v8"), faults).compress_chain(asked), [r.chain_err for r in asked]

    assert chain(1) == (0, [0, EIO, 0])
    assert chain(0) == (EIO, [EIO] * 3)


def test_a_fault_for_a_whole_batch_writes_every_length() -> None:
    faults = plan({"at": "compress", "page": 5, "error": "EIO"})
    tfm = AcompV14(IaaPosted("v14"), faults)
    assert tfm.call(batch(MIX, page=4)).lengths == (EIO,) * 4
    assert tfm.call(batch(MIX, page=6)).lengths == lengths_of(MIX)
    stale = plan({"at": "compress", "error": "EIO", "leave_lengths": True})
    assert AcompV14(IaaPosted("v14"), stale).call(batch(MIX)).lengths == (16384, 4096, 4096, 4096)  # L3


def test_decompress_faults_write_what_the_driver_writes() -> None:
    for posting, cls, length in (("v12", AcompV12, EIO), ("v14", AcompV14, 4096), ("v8", AcompV8, 4096)):
        faults = plan({"at": "decompress", "error": "EIO"})
        got = cls(IaaPosted(posting), faults).call(reading(text()), comp=False)  # type: ignore[arg-type]
        assert (got.err, got.lengths) == (EIO, (length,))


def test_interrupt_mode_without_a_descriptor() -> None:
    for site, err in (("descriptor", ENODEV), ("submit", EIO), ("dma_map", EIO)):
        driver = IaaPosted("v14", sync_mode="async_irq", faults=plan({"at": site, "error": "EIO"}))
        assert AcompV14(driver).call(request(unit_size=4096)) == (err, 2**32 + err, (err,))
        asked = reading(text())
        assert AcompV14(driver).decompress(asked) == (EIO if site == "dma_map" else 0)
        assert (page_of(asked) == TEXT) == (site != "dma_map")
    garbage = reading(b"\xff" * 40)
    garbage.unit_size = 4096
    for posting, cls, length in (("v12", AcompV12, EINVAL), ("v14", AcompV14, 4096)):
        none = plan({"at": "descriptor", "error": "EAGAIN"})
        driver = IaaPosted(posting, sync_mode="async_irq", faults=none)  # type: ignore[arg-type]
        garbage.dlen = 4096
        got = cls(driver).call(garbage, comp=False)
        assert (got.err, got.lengths) == (EINVAL, (length,))  # nor could software read it
    # A portal write cannot fail, so this site is asked with interrupts only.
    quiet = IaaPosted("v14", faults=plan({"at": "submit", "error": "EIO"}))
    assert AcompV14(quiet).compress(request(unit_size=4096)) == 0
    for error, decompressed in (("ANALYTICS_ERROR", True), ("ETIMEDOUT", False)):
        driver = IaaPosted("v14", sync_mode="async_irq", faults=plan({"at": "complete", "error": error}))
        asked = reading(text())
        assert AcompV14(driver).decompress(asked) == (0 if decompressed else EIO)
        assert (page_of(asked) == TEXT) == decompressed


def test_topology_numbers_cpus_as_linux_does() -> None:
    topology = Topology.regular(packages=2, nodes_per_package=2, cores=4, threads=2)
    assert topology.packages == (0, 0, 0, 0, 1, 1, 1, 1) * 2
    assert topology.nodes == (0, 0, 1, 1, 2, 2, 3, 3) * 2
    assert (topology.nr_cpus, topology.nr_packages, topology.cores_per_package) == (16, 2, 4)
    assert topology.node_cpus()[1] == [2, 3, 10, 11]
    for wrong in ({"packages": 0}, {"cores": 3, "nodes_per_package": 2}):
        with pytest.raises(ValueError, match="a topology of"):
            Topology.regular(**wrong)


def test_one_job_of_a_batch_fails() -> None:
    for error, length in (("ETIMEDOUT", ETIMEDOUT), ("EINVAL", EINVAL)):
        driver = IaaPosted("v14", faults=plan({"at": "complete", "page": 11, "error": error}))
        got = AcompV14(driver).call(batch([TEXT] * 3, page=10))
        assert got == (0, TEXT_LEN, (TEXT_LEN, length, TEXT_LEN))


def test_l3_an_unregistered_algorithm_leaves_lengths_and_l3b_crashes() -> None:
    driver = IaaPosted("v14")
    driver.unregister()
    assert AcompV14(driver).call(request(unit_size=4096)) == (ENODEV, 4096, (4096,))
    with pytest.raises(KernelFault, match="L3b"):
        AcompV14(driver).compress(batch(MIX))
    meant = IaaPosted("v14", meant=True)
    meant.unregister()
    assert AcompV14Meant(meant).call(request(unit_size=4096)).lengths == (ENODEV,)
    assert AcompV14Meant(meant).call(batch(MIX)) == (ENODEV, 2**32 + ENODEV, (ENODEV,) * 4)


def test_l18_pending_is_a_length() -> None:
    rule = {"at": "complete", "page": 1, "error": "EAGAIN"}
    with pytest.raises(NeverCompletes, match="L18"):
        AcompV14(IaaPosted("v14", faults=plan(rule))).compress(batch(MIX, page=0))
    meant = IaaPosted("v14", faults=plan(rule), meant=True)
    assert AcompV14Meant(meant).call(batch(MIX, page=0)).lengths[1] == EAGAIN


def test_a_batch_of_more_than_eight_is_a_fault() -> None:
    with pytest.raises(KernelFault, match="batch of 9"):
        AcompV14(IaaPosted("v14")).compress(batch([TEXT] * 9))


def test_less_than_a_unit_holds_the_mutex() -> None:
    with pytest.raises(KernelFault, match="batch of 0"):
        AcompV14(IaaPosted("v14")).compress(request(slen=100, unit_size=4096))


def test_batches_with_interrupts() -> None:
    assert AcompV14(IaaPosted("v14", sync_mode="async_irq")).call(batch(MIX)).lengths == lengths_of(MIX)
    with pytest.raises(KernelFault, match="async_irq"):
        AcompV12(IaaPosted("v12", sync_mode="async_irq")).compress(batch(MIX))


def unbatch() -> AcompRequest:
    src = [Scatterlist(StandIn().compress(page, 4096).output) for page in (PAGES["zero"], TEXT, PAGES["records"])]
    dst = [Scatterlist(bytearray(4096)) for _ in src]
    return AcompRequest(src, dst, 0, 3 * 4096, 4096)


def test_batch_decompression_takes_the_two_largest_first() -> None:
    driver = IaaPosted("v12")
    asked = unbatch()
    asked.slen = sum(entry.length for entry in asked.src_sg())
    assert AcompV12(driver).decompress(asked) == 0
    assert page_of(asked) == PAGES["zero"] + TEXT + PAGES["records"]
    sizes = [entry.length for entry in asked.src_sg()]
    assert sizes[1] > sizes[2] > sizes[0]
    assert driver.submitted == [1, 2, 0]
    asked = unbatch()
    with pytest.raises(KernelFault, match="never releases"):
        AcompV14(IaaPosted("v14")).decompress(asked)
    full = IaaPosted("v14", faults=plan({"at": "descriptor", "call": 1, "error": "EAGAIN"}))
    asked = unbatch()
    assert full.submit_batch(full.decompress_jobs(asked), comp=False) == 0
    assert [as_int32(entry.length) for entry in asked.dst_sg()] == [EAGAIN, 4096, EAGAIN]  # the largest: software
    assert full.batch_completed(comp=False) == 0
    assert page_of(asked) == PAGES["zero"] + TEXT + PAGES["records"]
    bad = IaaPosted("v14", faults=plan({"at": "complete", "call": 1, "error": "ANALYTICS_ERROR"}))
    asked = unbatch()
    bad.submit_batch(bad.decompress_jobs(asked), comp=False)
    assert bad.batch_completed(comp=False) == EINVAL  # polled jobs do not fall back
    assert [as_int32(entry.length) for entry in asked.dst_sg()] == [EINVAL, 4096, 4096]
    posted = IaaPosted("v14")
    assert posted.submit_batch(posted.decompress_jobs(unbatch()), comp=False) == 0
    assert posted.submitted == [1, 2, 0]
    assert posted.batch_completed(comp=False) == 0


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_submit_order_is_the_two_largest_then_the_rest(slens: list[int]) -> None:
    order = submit_order(slens)
    assert sorted(order) == list(range(len(slens)))
    assert [slens[k] for k in order[:2]] == sorted(slens, reverse=True)[:2]
    assert order[2:] == sorted(order[2:])


def test_v14_classes_want_their_driver() -> None:
    with pytest.raises(ValueError, match="meant=True"):
        AcompV14Meant(IaaPosted("v14"))
    with pytest.raises(ValueError, match="meant=False"):
        AcompV14(IaaPosted("v14", meant=True))
    with pytest.raises(ValueError, match="only v14"):
        IaaPosted("v12", meant=True)


def test_mainline_batch_size_is_one() -> None:
    assert Acomp7(IaaCrypto("7.3")).compr_batch_size == 1
    assert AcompV14(compressor_for("lz4", "mainline-6.18")).compr_batch_size == 1


def test_v8_single_pages_are_synchronous_in_every_mode() -> None:
    for mode in ("sync", "async", "async_irq"):
        driver = IaaPosted("v8", sync_mode=mode, irq="early")
        asked = request()
        assert AcompV8(driver).call(asked) == (0, TEXT_LEN, (4096,))


def test_a_forward_ported_driver_maps_one_entry() -> None:
    driver = IaaPosted("v14")
    asked = reading(text(), 40)
    assert AcompV14(driver).decompress(asked) == 0
    assert page_of(asked) == TEXT
    assert stats_of(driver) == {"decomp_calls": 1, "einval_errors": 1, "sw_decomp_calls": 1}
