# SPDX-License-Identifier: GPL-2.0-or-later
"""A browser driven by the DevTools protocol over two pipes: no port is opened, and no package is needed."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Final

__all__ = ["Devtools"]

_PATIENCE: Final = 60.0
_START: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Devtools:
    """A running browser with one page.

    :param command: the browser with its options
    """

    def __init__(self, command: list[str]) -> None:
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        # The browser reads from 3 and writes to 4: neither of these may be the other's place.
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (reads, writes)]
        self._process = subprocess.Popen([sys.executable, "-c", _START, *map(str, theirs), *command,
                                          "--remote-debugging-pipe", "about:blank"], pass_fds=theirs,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for each in (reads, writes, *theirs):
            os.close(each)
        self._rest = b""
        self._number = 0
        self._session = ""
        #: What came without being asked for.
        self.events: list[dict[str, Any]] = []
        target = next(each for each in self.ask("Target.getTargets")["targetInfos"] if each["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Accessibility", "DOM"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Devtools:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Have the browser do something and return its answer; AssertionError where it refuses."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self._in, 1 << 20) if ready else b""
            assert piece, "the browser says nothing"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, address: str) -> None:
        """Open a page and await its end."""
        self.events.clear()
        self.ask("Page.navigate", url=address)
        while not any(each.get("method") == "Page.loadEventFired" for each in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """Return what a script's expression comes to, in this browser's own world, whatever the page's policy says."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def key(self, name: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more)

    def tree(self) -> list[dict[str, Any]]:
        """Return what a screen reader gets, in the page's order: dicts of role, name, description, properties."""
        nodes = {each["nodeId"]: each for each in self.ask("Accessibility.getFullAXTree")["nodes"]}
        todo = [next(name for name, each in nodes.items() if "parentId" not in each)]
        found = []
        while todo:
            each = nodes[todo.pop()]
            todo += [name for name in reversed(each.get("childIds", ())) if name in nodes]
            if not each.get("ignored"):
                found.append({"role": each["role"]["value"], "name": each.get("name", {}).get("value", ""),
                             "description": each.get("description", {}).get("value", ""),
                             **{part["name"]: part["value"].get("value") for part in each.get("properties", ())}})
        return found
