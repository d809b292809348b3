# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that is the guest's IAA devices.

    python -m traces.lab.iaa.server --socket iaa0.sock --options devices=1,wqs=1 --log jobs.jsonl

A socket a device, for QEMU's vfio-user-pci; one portal for all, to which the plugin that plays MOVDIR64B sends
datagrams of 72 bytes: a guest address and a descriptor.  It prints ``listening`` when QEMU may connect, and ends when
its clients have gone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import stat
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from traces.lab.errors import LabError
from traces.lab.iaa.config import PORTALS_SIZE
from traces.lab.iaa.descriptors import DESCRIPTOR_SIZE
from traces.lab.iaa.device import EmulatedIaa
from traces.lab.iaa.faults import IaaFaultPlan
from traces.lab.iaa.guestmemory import GuestMemory
from traces.lab.iaa.joblog import JobLog
from traces.lab.iaa.options import IaaOptions
from traces.lab.iaa.vfiouser import Connection, commands

__all__ = ["IaaServer", "main"]

_DATAGRAM: Final = 8 + DESCRIPTOR_SIZE
#: Milliseconds without news after which what the log holds is written.
_QUIET: Final = 200


class IaaServer:
    """All devices of a guest.

    :param sockets: one path a device
    :raises LabError: when a socket cannot be made
    """

    def __init__(
        self, sockets: list[Path], options: IaaOptions, plan: IaaFaultPlan, log: JobLog, portal: Path | None = None
    ) -> None:
        self.log = log
        self.devices: list[EmulatedIaa] = []
        self.connections: dict[int, Connection] = {}  # by the socket's descriptor
        self.counts: Counter[int] = Counter()
        self.strays = 0
        self._paths: list[Path] = []
        self._listeners: dict[int, tuple[socket.socket, EmulatedIaa]] = {}
        self._portal: socket.socket | None = None
        self._poll = select.poll()
        self._met = 0
        try:
            for number, path in enumerate(sockets):
                listener = self._bind(path, socket.SOCK_STREAM)
                listener.listen(1)
                device = EmulatedIaa(number, options, GuestMemory(), _deaf, plan, log)
                self.devices.append(device)
                self._listeners[listener.fileno()] = listener, device
                self._poll.register(listener, select.POLLIN)
            if portal is not None:
                self._portal = self._bind(portal, socket.SOCK_DGRAM)
                self._portal.setblocking(False)
                self._portal.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                self._poll.register(self._portal, select.POLLIN)
        except BaseException:
            self.close()
            raise
        for device in self.devices:
            device.operations.warm()

    def _bind(self, path: Path, kind: socket.SocketKind) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, kind)
        try:
            if path.exists():
                if not stat.S_ISSOCK(path.stat().st_mode):
                    raise LabError(f"{path}: is not a socket; name one that does not exist")
                with socket.socket(socket.AF_UNIX, kind) as probe:
                    in_use = True
                    try:
                        probe.connect(str(path))
                    except ConnectionRefusedError:
                        in_use = False
                    if in_use:
                        raise LabError(f"{path}: is in use; end what uses it or name another")
                path.unlink()
            made.bind(str(path))
        except LabError:
            made.close()
            raise
        except OSError as problem:
            made.close()
            raise LabError(f"{path}: cannot be a socket ({problem.strerror or problem}); name another place") from None
        self._paths.append(path)
        return made

    def close(self) -> None:
        """Close everything, and remove the sockets."""
        for connection in list(self.connections.values()):
            connection.close()
        self.connections.clear()
        for listener, _ in self._listeners.values():
            listener.close()
        self._listeners.clear()
        if self._portal is not None:
            self._portal.close()
            self._portal = None
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()
        self.log.close()

    def serve(self) -> None:
        """Serve until every client that came has gone."""
        portal = self._portal.fileno() if self._portal is not None else -1
        while not self._met or self.connections:
            ready = self._poll.poll(self._wait())
            if not ready:
                self.log.flush()
                continue
            # What was submitted before a message was sent is before it.
            if portal >= 0:
                self._drain()
            # A client that has gone makes room for one that comes.
            for fd, _ in ready:
                connection = self.connections.get(fd)
                if connection is not None and not connection.receive(self._drain if portal >= 0 else None):
                    self._leave(fd)
            for fd, _ in ready:
                if fd in self._listeners:
                    self._meet(fd)

    def _wait(self) -> int:
        """Let happen what is due; returns how many milliseconds nothing will be."""
        wait = _QUIET
        for device in self.devices:
            due = device.advance()
            if due is not None:
                # A wait lasts whole milliseconds: the rest of the time is spent looking.
                wait = min(wait, max(0, due - device.clock()) // 1_000_000)
        return wait

    def _drain(self) -> None:
        """Take what waits at the portal."""
        assert self._portal is not None
        receive = self._portal.recv
        try:
            while True:
                message = receive(_DATAGRAM + 1)
                if len(message) == _DATAGRAM:
                    self.submit(int.from_bytes(message[:8], "little"), message[8:])
                else:
                    self.strays += 1
        except BlockingIOError:
            pass

    def submit(self, address: int, raw: bytes) -> None:
        """64 bytes were written to a guest address: the device whose portals it lies in takes them."""
        for device in self.devices:
            base = device.config.portals
            if base and base <= address < base + PORTALS_SIZE:
                device.direct(address - base, raw)
                return
        self.strays += 1

    def _meet(self, fd: int) -> None:
        listener, device = self._listeners[fd]
        client, _ = listener.accept()
        if any(one.device is device for one in self.connections.values()):
            client.close()
            return
        connection = Connection(client, device, device.memory)
        device.interrupt = connection.interrupt
        self.connections[client.fileno()] = connection
        self._poll.register(client, select.POLLIN)
        self._met += 1

    def _leave(self, fd: int) -> None:
        connection = self.connections.pop(fd)
        self._poll.unregister(fd)
        self.counts += connection.counts
        device = connection.device
        assert isinstance(device, EmulatedIaa)
        device.interrupt = _deaf
        device.reset()
        connection.close()


def _deaf(vector: int) -> bool:
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m traces.lab.iaa.server", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--socket",
        action="append",
        required=True,
        type=Path,
        metavar="PATH",
        help="where QEMU connects to a device; once for each, in their order",
    )
    parser.add_argument("--portal", type=Path, metavar="PATH", help="where descriptors arrive that MOVDIR64B wrote")
    parser.add_argument("--options", default="", metavar="TEXT", help="what --iaa says, devices=2,wqs=2,...")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="a fault plan")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write a line for each descriptor")
    parser.add_argument("--contents", action="store_true", help="the log also has checksums and first bytes of results")
    parser.add_argument("--pages", type=Path, metavar="FILE", help="keep each page that is to be compressed")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the server; 2 with one sentence when it cannot begin."""
    given = _parser().parse_args(arguments)
    log = None
    try:
        options = IaaOptions.parse(given.options)
        if len(given.socket) != options.devices:
            raise LabError(
                f"--socket is given {len(given.socket)} times for devices={options.devices}; give each device one"
            )
        plan = IaaFaultPlan.read(given.faults, options.devices) if given.faults is not None else IaaFaultPlan()
        about: dict[str, Any] = {
            "options": options.text(),
            "monotonic": time.monotonic_ns(),
            "realtime": time.time_ns(),
            "rules": len(plan.rules),
        }
        try:
            log = JobLog(given.log, about, given.contents, given.pages)
        except OSError as problem:
            raise LabError(f"{problem.filename}: cannot be written ({problem.strerror}); name another place") from None
        server = IaaServer(given.socket, options, plan, log, given.portal)
    except LabError as problem:
        print(problem, file=sys.stderr)
        return 2

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(0)

    # Also where SIGINT is ignored, as in what a shell runs in the background.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    print("listening", flush=True)
    try:
        server.serve()
    finally:
        server.close()
        with contextlib.suppress(OSError):
            print(
                f"{sum(device.jobs for device in server.devices)} descriptors, {server.strays} elsewhere, "
                f"{time.process_time():.2f} s of CPU, {commands(server.counts)}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
