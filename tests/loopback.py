"""A guard that lets no socket of this process reach beyond loopback."""

import ipaddress
import socket


class RefusedConnection(Exception):
    """Someone wanted to talk to the world."""


def _is_near(host) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guarded(connect):
    def checked(self, address):
        if isinstance(address, tuple) and not _is_near(address[0]):
            raise RefusedConnection(f"a connection to {address[0]}")
        return connect(self, address)

    return checked


def _guarded_lookup(lookup):
    def checked(host, *arguments, **options):
        if not _is_near(host):
            raise RefusedConnection(f"a look-up of {host}")
        return lookup(host, *arguments, **options)

    return checked


def install(patch=setattr) -> None:
    """Put the guard in place for this process; `patch` may be a monkeypatch's setattr, to take it away again."""
    patch(socket.socket, "connect", _guarded(socket.socket.connect))
    patch(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
    patch(socket, "getaddrinfo", _guarded_lookup(socket.getaddrinfo))
