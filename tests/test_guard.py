"""Nothing under test reaches beyond loopback: not a test, not a process that it starts, not a notebook's kernel."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest

from kdhelpers import workshop

ROOT = Path(__file__).parent.parent
TRY = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


def refused(what: str):
    """By the guard of this process, whether conftest.py put it in place or, in a parallel worker, Python's start-up."""
    return pytest.raises(ConnectionRefusedError, match=f"^{what} (of|to) ")


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.com", b"example.com"])
def test_the_world_is_refused(host):
    with refused("a look-up"):
        socket.create_connection((host, 80), timeout=1)
    with refused("a look-up"):
        socket.gethostbyname("example.com")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream, refused("a connection"):
        stream.connect(("192.0.2.1", 80))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain, refused("a connection"):
        plain.sendto(b"hello", ("192.0.2.1", 53))


def test_loopback_is_let_through():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: server.accept()[0].close())
        thread.start()
        socket.create_connection(server.getsockname(), timeout=5).close()
        thread.join()
    assert socket.getaddrinfo("localhost", 80)


def test_a_child_process_is_guarded_too():
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True)
    assert "RefusedConnection" in done.stderr


def test_a_guarded_machine_looks_like_one_without_a_network():
    (hub,) = [finding for finding in workshop.doctor() if finding.name == "Hub"]
    assert hub.text.startswith("not reached")


def test_a_notebooks_kernel_is_guarded(tmp_path):
    """The notebook's cell passes only where its kernel is refused, run the way `make test` runs notebooks."""
    attempt = f"try:\n    {TRY}\nexcept OSError as error:\n    print(type(error).__name__)\nelse:\n    print('reached')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(attempt, execution_count=1)])
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="RefusedConnection\n")]
    nbformat.write(notebook, tmp_path / "world.ipynb")
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.nbval_plugin", "--nbval", "--nbval-current-env",
         "--rootdir", str(tmp_path), "-c", os.devnull, str(tmp_path / "world.ipynb")],
        cwd=ROOT, env=outside, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 passed" in done.stdout
