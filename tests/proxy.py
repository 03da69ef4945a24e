"""A proxy on loopback between a client and a server, which does what networks do."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

_ERROR: Final = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"


@dataclass(frozen=True)
class Request:
    """A request as the proxy sees it: its number, from 1, its first line, who signed it."""

    number: int
    line: str
    access_key: str


@dataclass(frozen=True)
class Fault:
    """What is done to a request.

    Attributes:
        status: of an error that is answered without the server.
        code: of that error.
        cut: so many bytes of the answer pass, then the connection is cut.
        rate: bytes a second at which the answer passes.
    """

    status: int = 0
    code: str = "InternalError"
    cut: int | None = None
    rate: int | None = None


class Proxy:
    """Passes requests on to ``endpoint``, each with the fault that ``rule`` gives it.

    Attributes:
        rule: is asked for every request, one at a time, before it is passed on.
        requests: that came.
        injected: how often each fault was.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname and parts.port
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lock = threading.Lock()
        self.rule: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self.injected: Counter[Fault] = Counter()

    @property
    def endpoint(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake who accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request: both sides are asked to close the connection after it."""
        with client:
            try:
                head, body = _head(client)
                if head:
                    self._answer(client, head, body)
            except OSError:
                return

    def _answer(self, client: socket.socket, head: str, body: bytes) -> None:
        first, *lines = head.split("\r\n")
        signed = next((line for line in lines if "Credential=" in line), "Credential=/")
        key = signed.split("Credential=")[1].split("/")[0]
        with self._lock:
            request = Request(len(self.requests) + 1, first, key)
            self.requests.append(request)
            fault = self.rule(request) or Fault()
        if fault.status or fault.rate:
            self.injected[fault] += 1
        if fault.status:
            content = _ERROR.format(code=fault.code).encode()
            client.sendall(
                f"HTTP/1.1 {fault.status} Injected\r\nContent-Type: application/xml\r\n"
                f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
                + content
            )
            return
        kept = [line for line in lines if not line.lower().startswith("connection:")]
        with socket.create_connection(self._target) as server:
            server.sendall("\r\n".join([first, *kept, "Connection: close", "", ""]).encode() + body)
            if _pass_on(server, client, fault):
                self.injected[fault] += 1


def _head(client: socket.socket) -> tuple[str, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = client.recv(65536)
        if not chunk:
            return "", b""
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    said = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))
    }
    # Who expects to be told to go on sends nothing before the server has said so.
    missing = 0 if "expect" in said else int(said.get("content-length", 0)) - len(body)
    while missing > 0:
        chunk = client.recv(65536)
        if not chunk:
            return "", b""
        body += chunk
        missing -= len(chunk)
    return head.decode(), body


def _pass_on(server: socket.socket, client: socket.socket, fault: Fault) -> bool:
    """Passes an answer on; returns whether it was cut."""
    passed = 0
    # Whoever is slow is slow in small pieces.
    most = 65536 if fault.rate is None else max(1, fault.rate // 20)
    while chunk := server.recv(most):
        if fault.cut is not None and passed + len(chunk) > fault.cut:
            client.sendall(chunk[: fault.cut - passed])
            return True
        client.sendall(chunk)
        passed += len(chunk)
        if fault.rate is not None:
            time.sleep(len(chunk) / fault.rate)
    return False
