"""Ports on loopback for a server whose services each have a gRPC port beside their own."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.errors import StorageError

HOST: Final = "127.0.0.1"
_GRPC: Final = 10_000
# Below the range that systems take clients' ports from, for the port and for its gRPC twin.
_PORTS: Final = range(12_000, 22_000)


def ports_for(services: Iterable[str]) -> dict[str, int]:
    """A free port for each service, whose gRPC twin is free too."""
    candidates = random.SystemRandom().sample(_PORTS, len(_PORTS))
    free = (port for port in candidates if _is_free(port) and _is_free(port + _GRPC))
    return {service: next(free) for service in services}


def check_free(ports: Mapping[str, int]) -> None:
    """Makes sure that the ports are still free, and their gRPC twins.

    Raises:
        StorageError: another program has one of them.
    """
    for port in ports.values():
        for one in (port, port + _GRPC):
            if not _is_free(one):
                raise StorageError(
                    f"port {one}, which the S3 server had before, is taken by another program: "
                    "end that one first"
                )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
