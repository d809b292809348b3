# SPDX-License-Identifier: GPL-2.0-or-later
"""The mutator: changes are valid, differ and repeat; a mutant that matters is caught, one that does not survives."""

from __future__ import annotations

import ast
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from tests.mutation.__main__ import EXTRA, QUOTAS
from tests.mutation.hook import HITS, counting
from tests.mutation.mutator import KINDS, Mutant, choose, enumerate_mutants, mutated, reading_sources, shared_names
from tests.mutation.report import Explanation, Explanations, explanations, markdown, score_lines
from tests.mutation.trial import Sample, Trial, run_all, survey

SOURCE = '''
"""A docstring."""
from model import errno

__all__ = ["f"]
SHARED = 4096
OWN: int = 7


class C:
    """Another, of 3 words."""

    __slots__ = ("a", "b")
    mirrors = "Linux 1"
    BUDGET = 1

    def __init__(self):
        self.a = 0

    def f(self, items, n: int = 2):
        """A third."""
        if n < 1:
            raise ValueError(f"{n + 1} is less than {1}")
        assert n != 5
        if self.observer is not None:
            self.observer(1)
        while items and n:
            yield ("effect", 5)
            self.a += min(n, 3) << 2
            if n in items:
                break
        yield ("f_ret", errno.ENOENT)
        return errno.ENOENT
'''


@pytest.fixture
def little(tmp_path: Path) -> Iterator[list[Mutant]]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "little.py").write_text(SOURCE)
    return enumerate_mutants(tmp_path, "model/little.py", frozenset({"SHARED"}))


@pytest.fixture(scope="module")
def shared() -> frozenset[str]:
    return shared_names(reading_sources(ROOT))


@pytest.fixture(scope="module")
def every(shared: frozenset[str]) -> list[Mutant]:
    return [mutant for path in [*QUOTAS, *EXTRA] for mutant in enumerate_mutants(ROOT, path, shared)]


def test_what_is_changed_and_what_is_left_alone(little: list[Mutant]) -> None:
    changes = [(m.function, m.kind, m.before, m.after) for m in little]
    assert changes == [
        ("(module)", "constant", "OWN: int = 7", "OWN: int = 8"),
        ("(module)", "constant", "OWN: int = 7", "OWN: int = 6"),
        ("C", "drop", "BUDGET = 1", "(dropped)"),
        ("C", "constant", "BUDGET = 1", "BUDGET = 2"),
        ("C", "constant", "BUDGET = 1", "BUDGET = 0"),
        ("C.__init__", "constant", "self.a = 0", "self.a = 1"),
        ("C.__init__", "constant", "self.a = 0", "self.a = -1"),
        ("C.f", "constant", "2", "3"),
        ("C.f", "constant", "2", "1"),
        ("C.f", "negate", "if n < 1", "if not n < 1"),
        ("C.f", "compare", "n < 1", "n <= 1"),
        ("C.f", "constant", "n < 1", "n < 2"),
        ("C.f", "constant", "n < 1", "n < 0"),
        ("C.f", "negate", "while items and n", "while not (items and n)"),
        ("C.f", "boolean", "items and n", "items or n"),
        ("C.f", "drop", "yield ('effect', 5)", "(dropped)"),
        ("C.f", "constant", "yield ('effect', 5)", "yield ('effect', 6)"),
        ("C.f", "constant", "yield ('effect', 5)", "yield ('effect', 4)"),
        ("C.f", "drop", "self.a += min(n, 3) << 2", "(dropped)"),
        ("C.f", "arithmetic", "self.a += min(n, 3) << 2", "self.a -= min(n, 3) << 2"),
        ("C.f", "arithmetic", "self.a += min(n, 3) << 2", "self.a += min(n, 3) >> 2"),
        ("C.f", "order", "self.a += min(n, 3) << 2", "self.a += max(n, 3) << 2"),
        ("C.f", "constant", "self.a += min(n, 3) << 2", "self.a += min(n, 4) << 2"),
        ("C.f", "constant", "self.a += min(n, 3) << 2", "self.a += min(n, 2) << 2"),
        ("C.f", "constant", "self.a += min(n, 3) << 2", "self.a += min(n, 3) << 3"),
        ("C.f", "constant", "self.a += min(n, 3) << 2", "self.a += min(n, 3) << 1"),
        ("C.f", "compare", "n in items", "n not in items"),
        ("C.f", "drop", "break", "(dropped)"),
        ("C.f", "drop", "yield ('f_ret', errno.ENOENT)", "(dropped)"),
        ("C.f", "errno", "yield ('f_ret', errno.ENOENT)", "yield ('f_ret', errno.EAGAIN)"),
    ]
    assert {m.kind for m in little} == set(KINDS)


def test_every_change_of_every_kind_is_valid_code_that_differs(little: list[Mutant]) -> None:
    seen = {ast.dump(ast.parse(SOURCE))}
    for mutant in little:
        tree = mutated(SOURCE, mutant.number, frozenset({"SHARED"}))
        compile(tree, mutant.path, "exec")
        seen.add(ast.dump(tree))
    assert len(seen) == len(little) + 1
    with pytest.raises(IndexError):
        mutated(SOURCE, len(little), frozenset({"SHARED"}))


def test_so_is_every_kind_in_the_model(every: list[Mutant], shared: frozenset[str]) -> None:
    kinds: dict[tuple[str, str], Mutant] = {}
    for mutant in every:
        kinds[mutant.path, mutant.kind] = mutant
    assert {kind for _, kind in kinds} == set(KINDS)
    for mutant in kinds.values():
        source = (ROOT / mutant.path).read_text()
        tree = mutated(source, mutant.number, shared)
        compile(tree, mutant.path, "exec")
        assert ast.dump(tree) != ast.dump(ast.parse(source)), mutant.name


def test_a_dropped_statement_leaves_a_generator_a_generator(little: list[Mutant]) -> None:
    code = SOURCE.replace("from model import errno", "class errno: ENOENT = -2")
    space: dict[str, object] = {}
    for mutant in little:
        if mutant.kind == "drop" and mutant.before.startswith("yield"):
            exec(compile(mutated(code, mutant.number, frozenset({"SHARED"})), "little", "exec"), space)
            thing = space["C"].__new__(space["C"])  # type: ignore[attr-defined]
            assert hasattr(thing.f([]), "send")


def test_the_same_seed_gives_the_same_mutants(every: list[Mutant]) -> None:
    chosen = choose(every, QUOTAS, 1)
    assert chosen == choose(list(every), dict(reversed(QUOTAS.items())), 1)
    assert chosen != choose(every, QUOTAS, 2)
    for path, quota in QUOTAS.items():
        of_file = [m for m in chosen if m.path == path]
        possible = {m.function for m in every if m.path == path}
        assert len(of_file) == len(set(of_file)) == min(quota, sum(m.path == path for m in every))
        # In turn: no function is left out while another has two.
        assert len({m.function for m in of_file}) == min(quota, len(possible)), path


def test_names_are_unique_and_know_no_line(every: list[Mutant]) -> None:
    assert len({m.name for m in every}) == len(every)


def test_which_statements_run_is_counted() -> None:
    source = 'from __future__ import annotations\ndef f(x):\n    "doc"\n    if x:\n        return 1\n    elif not x:\n' \
             "        return 2\n    return 3\n"
    space: dict[str, object] = {}
    HITS.clear()
    exec(compile(counting("m", source), "m", "exec"), space)
    assert not HITS
    assert space["f"](0) == 2  # type: ignore[operator]
    assert {("m", 4), ("m", 6), ("m", 7)} <= HITS
    assert ("m", 5) not in HITS
    assert ("m", 8) not in HITS
    HITS.clear()


def test_trials_on_a_sample(every: list[Mutant], shared: frozenset[str], samples: dict[str, Path],
                            tmp_path: Path) -> None:
    wanted = {
        # caught by a check
        "model/zswap.py Zswap.zswap_compress: self.RAW_PAGES and (ret or not dlen or dlen >= PAGE_SIZE) -> "
        "self.RAW_PAGES and (ret or not dlen or dlen > PAGE_SIZE)": "caught",
        # a read that would begin before its object's handle
        "model/zsmalloc.py ZsPool.locate: return (start // PAGE_SIZE, start % PAGE_SIZE + (0 if geometry.huge else "
        "HANDLE_SIZE)) -> return (start // PAGE_SIZE, start % PAGE_SIZE - (0 if geometry.huge else HANDLE_SIZE))": "caught",
        # a default that nothing takes: whether decompression succeeded is always recorded
        "model/zswap.py Zswap.zswap_decompress: ret, dlen = answer if answer is not None else (0, PAGE_SIZE) -> "
        "ret, dlen = answer if answer is not None else (1, PAGE_SIZE)": "survived",
        # cannot even begin
        "model/list_lru.py ListLru.add: listed is None -> listed is not None": "exception",
        # nothing writes back in this sample
        "model/zswap_writeback.py ZswapWriteback.shrink_worker: failures += 1 -> (dropped)": "survived",
    }
    mutants = [m for m in every if m.name in wanted]
    assert {m.name for m in mutants} == set(wanted)
    before = {path: hashlib.sha256((ROOT / path).read_bytes()).digest() for path in QUOTAS}
    path = shutil.copytree(samples["7.2-lz4-edge"], tmp_path / "7.2-lz4-edge")
    modules = {p.removesuffix(".py").replace("/", "."): str(ROOT / p) for p in QUOTAS}
    found = survey([Sample(str(path))], modules, 2)
    assert found[0].events > 1000
    assert any(module == "model.zswap" for module, _ in found[0].reached)
    trials = run_all(mutants, found, ROOT, shared, 2)
    assert {t.mutant.name: t.outcome for t in trials} == wanted
    checks = [t.check for t in trials if (t.outcome, t.sample, t.event is not None) == ("caught", "7.2-lz4-edge", True)]
    assert len(checks) == 2
    assert "sg.shape" in checks
    assert next(t for t in trials if "shrink_worker" in t.mutant.name).tried == []
    assert before == {path: hashlib.sha256((ROOT / path).read_bytes()).digest() for path in QUOTAS}


def test_a_sample_that_is_not_pass_shows_nothing(samples: dict[str, Path], tmp_path: Path) -> None:
    path = shutil.copytree(samples["7.2-lz4-edge"], tmp_path / "7.2-lz4-edge")
    with pytest.raises(RuntimeError, match="is FAIL against the unchanged model"):
        survey([Sample(str(path), "v14")], {}, 1)


def test_every_explanation_is_of_a_mutant_there_is(every: list[Mutant]) -> None:
    names, functions = {m.name for m in every}, {f"{m.path} {m.function}" for m in every}
    for explanation in explanations().all:
        assert explanation.text
        assert set(explanation.mutants) <= names, set(explanation.mutants) - names
        assert set(explanation.functions) <= functions, set(explanation.functions) - functions


def test_out_of_reach_explains_nothing_that_is_reached(every: list[Mutant]) -> None:
    mutant = every[0]
    function = f"{mutant.path} {mutant.function}"
    known = Explanations([Explanation("not reached", "far", functions=(function,)),
                          Explanation("not distinguished", "near", mutants=(mutant.name,))])
    far, near = known.find(Trial(mutant)), known.find(Trial(mutant, reaching=["a"]))
    assert (far and far.text, near and near.text) == ("far", "near")
    known = Explanations([Explanation("not reached", "far", functions=(function,)),
                          Explanation("equivalent", "same", mutants=(mutant.name,))])
    far, near = known.find(Trial(mutant)), known.find(Trial(mutant, reaching=["a"]))
    assert (far and far.text, near and near.text) == ("same", "same"), "by its name before by its function"


def test_the_report_counts_what_there_is(every: list[Mutant]) -> None:
    trials = [Trial(every[0], "caught", "store.result", "a", 5, reaching=["a"]), Trial(every[1], reaching=["a"]),
              Trial(every[2])]
    assert score_lines(trials) == [
        "3 mutants: 1 caught by a check (33.3 %), 0 exception, 0 refused, 0 timeout, 2 survived",
        "2 of them change code that some sample runs: 1 caught by a check (50.0 %), 1 survived"]
    text = markdown([("shipped samples", trials, [Sample("x/a", events=7)], 30)], Explanations([]), 1)
    assert "Not explained: 2" in text
    assert "`store.result` in a, event 5" in text
