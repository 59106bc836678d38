"""A guard that lets no socket of a Python process reach beyond loopback.

`install` guards this process. A child process is guarded where `FOLDER` is on its PYTHONPATH, which conftest.py and
nbval_plugin.py see to: Python runs the sitecustomize.py in it at start-up.
"""

import ipaddress
import os
import socket
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "guard"
START_UP = f"import runpy\nrunpy.run_path({str(FOLDER / 'sitecustomize.py')!r})\n"  # for a start-up file of one's own


class RefusedConnection(ConnectionRefusedError):
    """Someone wanted to talk to the world. To the code under test it is what a missing network is."""


def _is_near(host) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(event: str, arguments: tuple) -> None:
    """Python's audit hook: called before every look-up and every connection, whatever the library."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_near(address[0]):  # another kind of address is a file's
            raise RefusedConnection(f"a connection to {address[0]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not _is_near(arguments[0]):
        raise RefusedConnection(f"a look-up of {arguments[0]}")


def install() -> None:
    """Put the guard in place for the rest of this process's life. pip alone may fetch: it is no part of the code."""
    if not any(Path(part).name in ("pip", "__pip-runner__.py") for part in sys.orig_argv[1:3]):
        sys.addaudithook(_check)


def guard_children() -> None:
    """Have every Python process started from here guarded, and find this checkout's package first."""
    folders = [str(FOLDER), str(Path(__file__).parent.parent)]
    kept = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder not in ("", *folders)]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders + kept)
