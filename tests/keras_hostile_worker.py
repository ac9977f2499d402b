"""Convert Keras files in a process of its own, under limits, and note what it does.

HDF5 has no checksum, and libhdf5 can loop, crash and swallow memory on flipped bits. So whatever
may do that runs in a forked process of a worker, which measures what it costs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from keras_hostile import LONGEST_LINE, ROOT

WORKER = """
import contextlib, io, json, os, resource, signal, sys, time
import numpy, npylstm_converters.keras
from npylstm.cli import main

def peak():  # in MB; ru_maxrss would begin with the peak of the process that forked
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if "VmHWM" in line)
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

def seconds():  # of the processor: the clock would measure how busy the machine is
    return sum(os.times()[:4])

def run(command):
    before, start, stderr = peak(), seconds(), io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        if command[0] == "waste":
            status = len(bytes(b"x") * (200 << 20))
        else:
            try:
                status = main(command)
            except Exception as error:
                status = f"{type(error).__name__}: {error}"
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return status, stderr.getvalue(), max(peak() - before, children), seconds() - start

reader = contextlib.ExitStack()
forked = len(sys.argv) > 1
if forked:  # readers are forked, which is quicker; what they cost is not seen then
    sys.path.insert(0, sys.argv[1])
    import forked_reader, pathlib
    reader.enter_context(forked_reader.installed(pathlib.Path(sys.argv[2])))
commands = json.load(sys.stdin)
if forked:
    run(["info", commands[0][1]])  # modules are imported once, here
for command in commands:
    source, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libhdf5 chats
        signal.alarm(30)
        os.write(writer, json.dumps(run(command)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(source) as stream:
        answer = stream.read()
    _, state = os.waitpid(child, 0)
    name = signal.Signals(state).name if state else ""
    print(answer or json.dumps([f"killed by {name}", "", 0.0, 6.0]), flush=True)
reader.close()
"""


class Outcome(NamedTuple):
    """What a command did and cost: exit status (or how it died), stderr, MB, seconds."""

    status: int | str
    stderr: str
    megabytes: float
    seconds: float


def run(commands: list[list[str]], forked: bool = False) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", WORKER, *([str(ROOT / "tests"), folder] if forked else [])],
            input=json.dumps(commands), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


def convert(sources: list[Path], forked: bool = False) -> list[Outcome]:
    """Convert files, each in a process of its own, and look after the folder."""
    for path in sources:
        path.with_suffix(".npz").write_bytes(b"as before")
    folder = sources[0].parent
    before = sorted(os.listdir(folder))
    outcomes = run(
        [
            ["convert", str(p), str(p.with_suffix(".npz")), "--record", "0", "--force"]
            for p in sources
        ],
        forked,
    )
    assert sorted(os.listdir(folder)) == before
    for path, outcome in zip(sources, outcomes, strict=True):
        if outcome.status != 0:
            assert path.with_suffix(".npz").read_bytes() == b"as before"
    return outcomes


def complaints(outcomes: dict[str, Outcome], allowed: tuple[int, ...]) -> list[str]:
    """Say which of them did anything but convert or refuse, in one line, cheaply."""
    found = []
    for name, (status, stderr, megabytes, seconds) in outcomes.items():
        if status not in allowed:
            found.append(f"{name}: {status}")
        elif status == 2 and not (
            stderr.startswith("npylstm: error: ") and stderr.count("\n") == 1
        ):
            found.append(f"{name}: {stderr[:200]!r}")
        elif len(stderr) > LONGEST_LINE:
            found.append(f"{name}: a message of {len(stderr)} characters")
        if megabytes > 100 or seconds > 5:
            found.append(f"{name}: {megabytes:.0f} MB, {seconds:.1f} s")
    return found
