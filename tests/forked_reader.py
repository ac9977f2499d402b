"""One HDF5 reader that forks for each file: starting a new Python for each takes most of the time.

The reading itself is unchanged: each file is read by a process of its own, under the same limits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from npylstm_converters.keras import hdf5

SERVER = """
import os, signal, socket, sys
sys.path.insert(0, sys.argv[2])
import hdf5_reader
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(8)
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    if os.fork():
        connection.close()
        continue
    server.close()
    with connection.makefile("rb") as requests, connection.makefile("wb") as answers:
        answers.write(os.getpid().to_bytes(8, "little"))
        answers.flush()
        path = requests.readline().rstrip(b"\\n").decode()
        hdf5_reader.serve(path, requests, answers)
    os._exit(0)
"""


class Connection:
    """What the importer uses of a process: two pipes, and an end."""

    def __init__(self, address: str, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        self.stdin, self.stdout = self._socket.makefile("wb"), self._socket.makefile("rb")
        self._pid = int.from_bytes(self.stdout.read(8), "little")
        self.stdin.write(f"{path}\n".encode())
        self.stdin.flush()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def communicate(self) -> None:
        with contextlib.suppress(OSError):
            self.stdin.close()
        self.stdout.close()
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            while True:  # it holds a lock on the file until it is gone; the server reaps it
                os.kill(self._pid, 0)
                time.sleep(0.0005)


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Start the server, and let the importer of this process use it."""
    address = str(folder / "hdf5.socket")
    source = str(Path(hdf5.__file__).parent)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, address, source],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def start(self: Any, path: Path, label: str) -> None:
        self._label = label
        self._process = Connection(address, Path(path).absolute())
        self._clock = threading.Timer(60, self._process.kill)
        self._clock.daemon = True
        self._clock.start()

    usual = hdf5._Reader.__init__
    hdf5._Reader.__init__ = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        hdf5._Reader.__init__ = usual  # type: ignore[method-assign]
        server.kill()
        server.communicate()
