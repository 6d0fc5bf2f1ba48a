"""Refuse the network: with this folder on PYTHONPATH a Python process, and every one it starts, reaches only itself.

Loopback addresses and Unix sockets pass, because Jupyter talks to its kernels through them.
"""

import errno
import ipaddress
import socket
import sys
from typing import Any


def is_loopback(host: Any) -> bool:
    """Whether `host` (a name, an address, bytes or None) is this machine."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(name).split("%")[0]).is_loopback
    except ValueError:
        return False


def refuse(host: Any) -> None:
    """Raise OSError unless `host` is this machine."""
    if not is_loopback(host):
        raise OSError(errno.ENETUNREACH, f"the book is built without a network, but {host!r} was asked for")


def check(family: int, address: Any) -> None:
    """Raise OSError when a socket of `family` may not go to `address`."""
    if family in (socket.AF_INET, socket.AF_INET6):
        refuse(address[0])


_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def connect(self: socket.socket, address: Any) -> None:
    """`socket.connect`, to loopback only."""
    check(self.family, address)
    _connect(self, address)


def connect_ex(self: socket.socket, address: Any) -> int:
    """`socket.connect_ex`, to loopback only."""
    check(self.family, address)
    return _connect_ex(self, address)


def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
    """`socket.getaddrinfo`, of loopback names only."""
    refuse(host)
    return _getaddrinfo(host, *args, **options)


socket.socket.connect = connect
socket.socket.connect_ex = connect_ex
socket.getaddrinfo = getaddrinfo

# nbformat and Jupyter Book import jsonschema, which imports this parser of addresses if there is one, for a check that
# neither asks for. It takes two seconds in each of their processes.
sys.modules["rfc3987_syntax"] = None  # what import takes for "there is none"
