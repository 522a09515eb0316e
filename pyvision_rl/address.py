"""Addresses that servers listen at."""

from __future__ import annotations

import socket

from pyvision_rl.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """A socket at the address, for nobody else from now on. Raises ConfigError."""
    host = host.strip("[]")
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise ConfigError(f"{host} port {port} cannot be listened at: {error.strerror}") from error
    return taken
