# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recording says of zswap's settings: memory.zswap.max and memory.zswap.writeback of cgroups, the parameters.

A setting is known where something recorded says what it is.  Where writes to it were probed, snapshots say what it was
and the writes what it became (:mod:`replay.reference.settingtracks`); each event that names a mem_cgroup then says
whose setting decides.  Recordings of before that was recorded know the settings of one cgroup, that of this project's
own workloads, which say in markers what they write.  What nothing says is not compared: the kernel's answer is taken
from the recording and counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from model.cgroups import EITHER, Cgroup, Cgroups
from model.memcg import UNLIMITED
from model.zswap import Zswap
from model.zswap_state import kstrtobool, kstrtouint
from replay.reference.settingtracks import Track, limit_of, switch_of
from traces import schema
from traces.errors import BadInput
from traces.events import with_role
from traces.recording import Recording

__all__ = ["EVENTS", "Settings"]

#: Events that say something of a setting, or of which cgroup is which; they belong to no operation.
EVENTS: Final = with_role("setting")
_CODES: Final = np.array([name in EVENTS or name == "lost_events" for name in schema.NAMES], bool)
_COLUMNS: Final = ("ts", "pid", "event", "ret", "memcg", "pool", "data", "text")
#: How this project's workloads begin their markers; they say each setting that they write.
_OWN_MARKERS: Final = ("phase ", "param ", "cgroup ")
#: Files of a cgroup that decide whether a page may be stored or written back: what they are called in the model of one
#: cgroup and of all, the event of a write to one, and how its text is read.
_FILES: Final[dict[str, tuple[str, str, str, Any]]] = {
    "memory.zswap.max": ("zswap_max", "zswap_max", "zswap_max_write", limit_of),
    "memory.zswap.writeback": ("writeback_enabled", "zswap_writeback", "zswap_writeback_write", switch_of)}
_OF_WRITE: Final = {event: (attribute, parse) for _, attribute, event, parse in _FILES.values()}
_NEW: Final[dict[str, frozenset[Any]]] = {"zswap_max": frozenset({UNLIMITED}), "zswap_writeback": frozenset({True})}
_PREFIX: Final = "zswap."
#: Parameters that decide more than one answer: where one of them changed unseen, nothing after it need be as predicted.
_DECIDING: Final = frozenset({"enabled", "max_pool_percent", "accept_threshold_percent", "compressor"})
#: Snapshots have their times in seconds of a float.
_SLACK_NS: Final = 1000
WHOSE: Final = "it is not recorded which cgroup was asked about"
UNSAID: Final = ("nothing recorded gives memory.zswap.max and memory.zswap.writeback of the cgroup that is asked "
                 "about, and of those above it")
CLOSE: Final = "other tasks were charging the cgroup at that moment, and it was at its limit"
UNCHARGED: Final = "what the cgroup was charged was not captured"
CHANGING: Final = "a setting, or a cgroup's place, changed at that moment"


class _Known:
    """A cgroup that a recording speaks of, and what it says of its settings over time."""

    def __init__(self, cgroup: Cgroup, begin: int, values: dict[str, frozenset[Any] | None],
                 certain: dict[str, bool]) -> None:
        self.cgroup = cgroup
        self.begin = begin
        self.tracks: dict[str, Track[Any]] = {attribute: Track(begin, values.get(attribute), certain[attribute])
                                              for attribute in _NEW}


class Settings:
    """Which settings a recording says, and from where.

    :param recording: it is read once where it names mem_cgroups or writes to settings

    ``own``: everything on the box was done by a workload of this project, in one cgroup that lies below the root, and
    its markers say each setting that it wrote.  ``whose``: events say which mem_cgroup they are about.  ``params``:
    writes to parameters were probed.  ``reasons``: why a replay cannot PASS; ``unsafe``: a parameter changed unseen.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        probes = recording.manifest["probes"]
        has = {name: frozenset(probe.get("columns", ())) for name, probe in probes.items()}
        self.own = any(text.startswith(_OWN_MARKERS) for text in recording.texts())
        self.whose = {"memcg", "pool"} <= has.get("obj_cgroup_may_zswap_ret", frozenset()) \
            and {"memcg", "data"} <= has.get("mem_cgroup_css_online", frozenset())
        self.params = "text" in has.get("param_attr_store", frozenset()) and "param_attr_store_ret" in has
        self._certain = {attribute: {"data", "text"} <= has.get(event, frozenset()) and f"{event}_ret" in has
                         for event, (attribute, _) in _OF_WRITE.items()}
        self.cgroups = Cgroups()
        #: mem_cgroup -> cgroup, and obj_cgroup -> the cgroup that it charges
        self.node_of: dict[int, Cgroup] = {}
        self.of_objcg: dict[int, Cgroup] = {}
        #: event at which a setting or the hierarchy changed last, and mem_cgroups that are going away
        self.changed = -1
        self.leaving: set[int] = set()
        self.why: dict[str, Counter[str]] = {"memcg.limit": Counter(), "memcg.writeback": Counter()}
        self.reasons: list[str] = []
        self.notes: list[str] = []
        self.unsafe = False
        self._param_values: dict[str, frozenset[str] | None] = {}
        self._actions: dict[int, list[tuple[Any, ...]]] = {}
        self._start: list[tuple[Any, ...]] = []
        #: obj_cgroup -> cgroup at the start
        self._charged: dict[int, Cgroup] = {}
        self._applied = -1
        if self.whose or self.params:
            try:
                _Scan(self, has).run()
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as problem:
                raise BadInput(recording.path, "", f"what it records of settings is inconsistent "
                               f"({type(problem).__name__}: {problem})", "import or cut it again") from None
        elif not self.own:
            changed = [text for text in recording.manifest.get("derived_params", ())
                       if str(text).partition("=")[0] in _DECIDING]
            if changed:
                self.unsafe = True
                self.notes.append(f"parameters changed between two snapshots, nothing says when: {', '.join(changed)}")

    # ---- the model of one cgroup, as older recordings have it -------------------------------------------------

    def begin(self, model: Zswap, phase: str | None = None) -> None:
        """Leave in a model only the settings that are known when the recording begins.

        :param phase: of the workload, that a start state has
        """
        self.own = self.own or phase is not None
        model.cgroups = self.cgroups
        if self.whose or not self.own:
            model.zswap_max = model.writeback_enabled = None
            if not self.params:
                model.shrinker_enabled = None
        elif not self.recording.document("state"):
            model.zswap_max = model.writeback_enabled = None
            if self._first_is_before():
                self.reading(model, 0)
        self.rewind(-1, self._charged)
        for action in self._start:
            self._do(action, model)

    def _first_is_before(self) -> bool:
        """True where the first snapshot was taken before the first event."""
        snapshots, segments = self.recording.snapshots, self.recording.manifest["segments"]
        return bool(snapshots and segments and snapshots[0]["ts"] <= segments[0].get("first_ts", 0))

    def reading(self, model: Zswap, number: int) -> None:
        """Take from a snapshot what nothing said before."""
        if not self.own or self.whose:
            return
        files: Any = self.recording.snapshot(number).get("memcg")
        for name, (attribute, _, _, _) in _FILES.items():
            if isinstance(files, dict) and name in files and getattr(model, attribute) is None:
                try:
                    model.set_param(name, str(files[name]))
                except ValueError:
                    continue

    def takes(self, kind: str) -> bool:
        """True where a marker or snapshot may say a setting, as no probe does; ``kind``: ``param`` or ``cgroup``."""
        return not (self.params if kind == "param" else self.whose)

    # ---- all cgroups ---------------------------------------------------------------------------------------

    def at(self, event: int, model: Zswap) -> None:
        """An event of :data:`EVENTS` has come: what it says holds from now on."""
        for action in self._actions.get(event, ()):
            self._do(action, model)
        self._applied = event

    def switches(self, event: int, model: Zswap) -> bool:
        """True where an event makes another pool the current one."""
        return any(action[0] == "param" and action[2] == "compressor" and action[3] is not None
                   and action[3] != {model.pools[0].tfm_name} and len(action[3]) == 1
                   for action in self._actions.get(event, ()))

    def _do(self, action: tuple[Any, ...], model: Zswap | None) -> None:
        kind, event, *rest = action
        if kind == "named":
            self.node_of[rest[0]] = rest[1]
            return
        self.changed = max(self.changed, event)
        if kind == "leaving":
            self.leaving.add(rest[0])
        elif kind == "set":
            setattr(rest[0], rest[1], rest[2])
        elif kind == "online":
            self._online(*rest)
        elif kind == "offline":
            self._offline(rest[0])
        elif kind == "param":
            name, values = rest
            self._param_values[name] = values
            if model is not None:
                self._write(model, name, values)

    def _online(self, cgroup: Cgroup, pointer: int) -> None:
        before = self.cgroups.by_id.get(cgroup.id)
        if before is not None and before is not cgroup:
            before.online = False
        self.cgroups.by_id[cgroup.id] = cgroup
        cgroup.online = True
        if cgroup.parent is not None and cgroup not in cgroup.parent.children:
            cgroup.parent.children.append(cgroup)
        if pointer:
            self.node_of[pointer] = cgroup

    def _offline(self, pointer: int) -> None:
        """What it was charged with is its parent's now."""
        self.leaving.discard(pointer)
        cgroup = self.node_of.pop(pointer, None)
        if cgroup is None:
            return
        self.cgroups.offline(cgroup)
        for objcg, charged in list(self.of_objcg.items()):
            if charged is cgroup:
                if cgroup.parent is None:
                    del self.of_objcg[objcg]
                else:
                    self.of_objcg[objcg] = cgroup.parent

    @staticmethod
    def _write(model: Zswap, name: str, values: frozenset[str] | None) -> None:
        """Give the model a parameter's value; while it is being written, or where nothing says, the old one stays."""
        if name == "shrinker_enabled" and (values is None or len(values) > 1):
            model.shrinker_enabled = None
        elif values is not None and len(values) == 1:
            try:
                model.set_param(name, next(iter(values)))
            except ValueError:
                return

    def kept(self) -> tuple[int, dict[int, Cgroup]]:
        """Return what :meth:`rewind` needs to come back to now."""
        return self._applied, dict(self.of_objcg)

    def rewind(self, applied: int, of_objcg: dict[int, Cgroup]) -> None:
        """Go back to what was known behind event ``applied``; the caller restores the model's parameters."""
        self.cgroups.by_id.clear()
        self.node_of.clear()
        self.of_objcg = dict(of_objcg)
        self.changed = -1
        self.leaving.clear()
        for cgroup in {id(action[2]): action[2] for actions in (self._start, *self._actions.values())
                       for action in actions if action[0] == "online"}.values():
            cgroup.children.clear()
            cgroup.online = False
            cgroup.zswap_max = cgroup.zswap_writeback = None
        for action in self._start:
            self._do(action, None)
        for event in sorted(self._actions):
            if event > applied:
                break
            for action in self._actions[event]:
                self._do(action, None)
        self.of_objcg = dict(of_objcg)
        self._applied = applied

    def cgroup_of(self, objcg: int, memcg_of: dict[int | None, int]) -> Cgroup | None:
        """Return the cgroup that an obj_cgroup charges, None where nothing says."""
        found = self.of_objcg.get(objcg)
        return found if found is not None else self.node_of.get(memcg_of.get(objcg, 0))

    def enabled(self, model: Zswap) -> frozenset[bool]:
        """Return whether zswap may be on: both while it is being switched."""
        values = self._param_values.get("enabled")
        return EITHER if values is not None and len(values) > 1 else frozenset({model.enabled})

    def static(self, cgroup: Cgroup, model: Zswap) -> tuple[int, int]:
        """Return what a cgroup's settings alone decide, of memory.zswap.max and of memory.zswap.writeback.

        Each is 1 (allowed), 0 (forbidden), -1 (not known), or -2 where the moment decides.
        """
        limits = [at.zswap_max for at in cgroup.up() if not at.is_root]
        moment = any(limit is not None and limit - {UNLIMITED, 0} for limit in limits)
        may = -2 if moment else _only(self.cgroups.may_zswap(cgroup, lambda at: (0, 0)))
        unsure = len(self.enabled(model)) > 1
        return may, -2 if unsure else _only(self.cgroups.writeback_enabled(cgroup))

    # ---- a cut's start -------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Return what is known now, for the start state of a cut."""
        numbers: dict[Cgroup, int] = {}
        for cgroup in (*self.cgroups.by_id.values(), *self.node_of.values(), *self.of_objcg.values()):
            # Parents before their children.
            for at in reversed(list(cgroup.up())):
                numbers.setdefault(at, len(numbers))
        return {"cgroups": [[at.id, at.path, at.is_root, at.online, -1 if at.parent is None else numbers[at.parent],
                             _listed(at.zswap_max), _listed(at.zswap_writeback)] for at in numbers],
                "named": [[pointer, numbers[cgroup]] for pointer, cgroup in self.node_of.items()],
                "charged": [[objcg, numbers[cgroup]] for objcg, cgroup in self.of_objcg.items()],
                "leaving": sorted(self.leaving),
                "params": {name: _listed(values) for name, values in self._param_values.items()}}

    def not_told(self, check: str, count: int, nobody: int) -> None:
        """Count comparisons of a check that compiled code could not make.

        :param nobody: those for which nothing records whose setting it is
        """
        if not self.whose and check == "memcg.writeback" and self.own:
            nobody = count
        for why, number in ((WHOSE, nobody), (UNSAID, count - nobody)):
            if number:
                self.why[check][why] += number

    def said_why(self, check: str) -> str:
        """Say why comparisons of a check could not be made, the commonest reason first."""
        return "; ".join(reason for reason, _ in self.why[check].most_common()) or UNSAID


def _listed(values: frozenset[Any] | None) -> list[Any] | None:
    return None if values is None else sorted(values)


def _only(answers: frozenset[bool]) -> int:
    return -1 if len(answers) > 1 else int(True in answers)


class _Scan:
    """One reading of a recording for what :class:`Settings` has to know beforehand.

    A snapshot that contradicts the writes says that what was taken for known was not, also before it: so everything is
    read before anything is compared.
    """

    def __init__(self, settings: Settings, has: dict[str, frozenset[str]]) -> None:
        self.settings = settings
        self.recording = settings.recording
        self.has = has
        self.known: list[_Known] = []
        self.by_id: dict[int, _Known] = {}
        self.by_pointer: dict[int, _Known] = {}
        self.params: dict[str, Track[str]] = {}
        self.writing: dict[int, Track[Any]] = {}
        #: mem_cgroups that were there from the beginning, and those created below one not known by then
        self.first: dict[int, _Known] = {}
        self.without_parent: list[tuple[_Known, int]] = []
        self.actions = settings._actions
        self.said_first = self._said(0) if self.recording.snapshots else None
        self.readings = [(round(float(said["t"]) * 1e9) - _SLACK_NS, round(float(said["t_end"]) * 1e9) + _SLACK_NS,
                          snapshot["label"], said)
                         for number, snapshot in enumerate(self.recording.snapshots)
                         if (said := self._said(number)) is not None]

    def _said(self, number: int) -> dict[str, Any] | None:
        """Return a snapshot's settings; None where it has none, or they make no sense."""
        said = self.recording.snapshot(number).get("settings")
        if not isinstance(said, dict) or not all(isinstance(said.get(name), int | float) for name in ("t", "t_end")) \
                or not isinstance(said.get("params"), dict) or not isinstance(said.get("cgroups"), list):
            return None
        return said

    def run(self) -> None:
        """Read the recording, and leave what it says in the settings."""
        settings = self.settings
        if settings.params:
            self.params = {name: Track(0, None, True) for name in self.recording.manifest["config"].get("params", {})}
        self._begin()
        for base, batch in self.recording.batches(_COLUMNS):
            rows = np.flatnonzero(_CODES[batch["event"]])
            stamps = batch["ts"]
            ends = [(base + int(np.searchsorted(stamps, reading[1], "right")), reading) for reading in self.readings
                    if stamps.size and reading[1] < stamps[-1]]
            for _, reading in ends:
                self.readings.remove(reading)
            for row in rows.tolist():
                while ends and ends[0][0] <= base + row:
                    self._read(*ends.pop(0))
                if not self._event(base + row, {name: batch[name][row] for name in _COLUMNS}):
                    # What was lost may have been a write.
                    self._end()
                    return
            for end in ends:
                self._read(*end)
        for reading in self.readings:
            self._read(len(self.recording), reading)
        self._end()

    # ---- what there is when the recording begins -------------------------------------------------------------

    def _resume(self, state: dict[str, Any]) -> None:
        """Begin where a recording was cut."""
        settings = self.settings
        made: list[_Known] = []
        for number, path, is_root, online, parent, limits, writeback in state["cgroups"]:
            if parent >= len(made):
                raise ValueError(f"cgroup {path} stands before its parent")
            known = self._make(int(number), made[parent].cgroup if parent >= 0 else None, 0,
                               {"zswap_max": None if limits is None else frozenset(map(int, limits)),
                                "zswap_writeback": None if writeback is None else frozenset(map(bool, writeback))},
                               is_root=bool(is_root), path=str(path))
            made.append(known)
            if online:
                settings._start.append(("online", -1, known.cgroup, 0))
            else:
                del self.by_id[known.cgroup.id]
        for pointer, number in state["named"]:
            self._named(int(pointer), made[number])
        settings._charged = {int(objcg): made[number].cgroup for objcg, number in state["charged"]}
        for pointer in state["leaving"]:
            settings._start.append(("leaving", -1, int(pointer)))
        for name, texts in state["params"].items():
            self.params[name] = Track(0, None if texts is None else frozenset(map(str, texts)), True)

    def _begin(self) -> None:
        state = (self.recording.document("state") or {}).get("settings")
        if state is not None:
            self._resume(state)
            return
        by_path: dict[str, _Known] = {}
        said = self.said_first
        rows = [row for row in (said["cgroups"] if said is not None and self.settings.whose else ())
                if isinstance(row, dict) and isinstance(row.get("id"), int) and isinstance(row.get("path"), str)]
        # Ids are given out in ascending order: so were the cgroups made.
        for row in sorted(rows, key=lambda row: (row["path"].rstrip("/").count("/"), row["id"])):
            path = row["path"].rstrip("/")
            above = by_path.get(path.rpartition("/")[0]) if path else None
            known = self._make(row["id"], above.cgroup if above is not None else None, 0, {},
                               is_root=bool(row.get("root")), path=path or "/")
            by_path[path] = known
            self.settings._start.append(("online", -1, known.cgroup, 0))

    def _make(self, number: int, parent: Cgroup | None, begin: int, values: dict[str, frozenset[Any] | None],
              is_root: bool = False, path: str = "") -> _Known:
        cgroup = Cgroup(number, None, is_root=is_root, path=path)
        cgroup.parent = parent
        known = _Known(cgroup, begin, values, self.settings._certain)
        self.known.append(known)
        self.by_id[number] = known
        return known

    # ---- events -------------------------------------------------------------------------------------------------

    def _act(self, event: int, *action: Any) -> None:
        self.actions.setdefault(event, []).append((action[0], event, *action[1:]))

    def _event(self, event: int, row: dict[str, Any]) -> bool:
        name = schema.NAMES[row["event"]]
        if name == "lost_events":
            return False
        ts, task = int(row["ts"]), int(row["pid"])
        if name in _OF_WRITE:
            attribute, parse = _OF_WRITE[name]
            known = self.by_id.get(int(row["data"]))
            if known is not None:
                track = self.writing[task] = known.tracks[attribute]
                track.enter(event, ts, task, parse(row["text"]) if "text" in self.has[name] else None)
        elif name == "param_attr_store":
            setting, given, value = row["text"].partition("=")
            if setting.startswith(_PREFIX):
                param = self.params.setdefault(setting[len(_PREFIX):], Track(0, None, True))
                self.writing[task] = param
                param.enter(event, ts, task, _shown(setting[len(_PREFIX):], value) if given else None)
        elif name.endswith(("_write_ret", "_store_ret")):
            if task in self.writing:
                self.writing.pop(task).leave(event, ts, task, int(row["ret"]) >= 0)
        elif self.settings.whose:
            self._hierarchy(name, event, ts, row)
        return True

    def _hierarchy(self, name: str, event: int, ts: int, row: dict[str, Any]) -> None:
        pointer = int(row["memcg"])
        known = self.by_pointer.get(pointer)
        if name == "mem_cgroup_css_online":
            above = self.by_pointer.get(int(row["pool"]))
            known = self._make(int(row["data"]), above.cgroup if above is not None else None, event, dict(_NEW))
            if above is None:
                self.without_parent.append((known, int(row["pool"])))
            self.by_pointer[pointer] = known
            self._act(event, "online", known.cgroup, pointer)
        elif name == "zswap_current_read_ret":
            found = self.by_id.get(int(row["data"]))
            if known is None and found is not None and found.begin == 0:
                # It was there from the beginning, and under this name.
                self._named(pointer, found)
                above = next((known for known in self.known if known.cgroup is found.cgroup.parent), None)
                if above is not None and int(row["pool"]) not in self.by_pointer:
                    self._named(int(row["pool"]), above)
        elif known is not None and name == "mem_cgroup_css_reset":
            for track in known.tracks.values():
                track.forget(event, ts)
        elif known is not None and name == "mem_cgroup_css_offline":
            # From here until it returns, either of the two may be asked about.
            self._act(event, "leaving", pointer)
            if "mem_cgroup_css_offline_ret" not in self.has:
                self._gone(event, pointer, known)
        elif known is not None and name == "mem_cgroup_css_offline_ret":
            self._gone(event, pointer, known)

    def _named(self, pointer: int, known: _Known) -> None:
        """A mem_cgroup that was there from the beginning is this cgroup."""
        self.by_pointer[pointer] = self.first[pointer] = known
        self.settings._start.append(("named", -1, pointer, known.cgroup))

    def _find_parents(self) -> None:
        """Put cgroups below a mem_cgroup that was named only later, or that can only be the root.

        The recorder reads memory.zswap.current of all that there are, and the root has no such file.
        """
        said = self.said_first
        whole = said is not None and "left_out" not in said
        root = next((known for known in self.known if known.cgroup.is_root), None)
        for known, pointer in self.without_parent:
            above = self.first.get(pointer) or (root if whole else None)
            if above is not None:
                if above is root and pointer not in self.first:
                    self._named(pointer, above)
                known.cgroup.parent = above.cgroup
        for known in self.known:
            parent = known.cgroup.parent
            if not known.cgroup.path and parent is not None:
                known.cgroup.path = f"{parent.path.rstrip('/')}/#{known.cgroup.id}"

    def _gone(self, event: int, pointer: int, known: _Known) -> None:
        del self.by_pointer[pointer]
        if self.by_id.get(known.cgroup.id) is known:
            del self.by_id[known.cgroup.id]
        self._act(event, "offline", pointer)

    # ---- snapshots ----------------------------------------------------------------------------------------------

    def _read(self, event: int, reading: tuple[int, int, str, dict[str, Any]]) -> None:
        began, _, label, said = reading
        for name, value in said["params"].items():
            if name in self.params:
                self.params[name].read(event, began, str(value).strip(), label)
        for row in said["cgroups"]:
            known = self.by_id.get(row.get("id", -1)) if isinstance(row, dict) else None
            if known is None or known.begin > event:
                continue
            for file, (_, attribute, _, parse) in _FILES.items():
                if isinstance(row.get(file), str):
                    known.tracks[attribute].read(event, began, parse(row[file]), label)

    def _end(self) -> None:
        settings = self.settings
        self._find_parents()
        for known in self.known:
            for attribute, track in known.tracks.items():
                if track.contradiction is not None:
                    settings.reasons.append(
                        f"memory.{attribute.replace('_', '.')} of cgroup {known.cgroup.path} in snapshot "
                        f"'{track.contradiction}' contradicts the recorded writes: none of its answers were compared")
                for event, values in track.steps():
                    if event == 0 or known.begin == 0 == event:
                        settings._start.append(("set", -1, known.cgroup, attribute, values))
                    else:
                        self._act(event, "set", known.cgroup, attribute, values)
        for name, param in self.params.items():
            if param.contradiction is not None:
                settings.reasons.append(f"parameter {name} in snapshot '{param.contradiction}' contradicts the "
                                        "recorded writes")
                settings.unsafe = settings.unsafe or name in _DECIDING
            for event, texts in param.steps():
                if event == 0:
                    settings._start.append(("param", -1, name, texts))
                else:
                    self._act(event, "param", name, texts)
        # At one event the hierarchy comes first.
        for actions in self.actions.values():
            actions.sort(key=lambda action: action[0] == "set")


def _shown(name: str, text: str) -> str:
    """Return what is read of a parameter that a text is written to."""
    text = text.strip()
    if name in ("enabled", "shrinker_enabled"):
        try:
            return "Y" if kstrtobool(text) else "N"
        except ValueError:
            return text
    if name in ("max_pool_percent", "accept_threshold_percent"):
        try:
            return str(kstrtouint(text))
        except ValueError:
            return text
    return text
