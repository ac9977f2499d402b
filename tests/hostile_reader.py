"""A process that reads hostile files, and notes what they do.

Files are read in forked processes of a worker, which notices whatever a file may do: crash, hang,
cost, import, or leave something behind.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_pickles import NUMBERS, SOUND, SOUND_ZIP

MAX_MEGABYTES = 300
MAX_SECONDS = 6  # of the processor; tracemalloc, where it watches, makes Python twice as slow

WORKER = """
import contextlib, copyreg, json, os, resource, signal, sys, time, tracemalloc

barred = []

class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors"):
            barred.append(name)
            raise ImportError(name)

sys.meta_path.insert(0, Bar())
import numpy, npylstm
from npylstm_converters.torch.files import read_checkpoint

copyreg.add_extension("os", "mkdir", 240)
sound, *others = sys.argv[1:]
watching, events = [], []
WATCHED = {"pickle.find_class", "os.system", "os.mkdir", "os.exec", "os.posix_spawn", "os.fork",
           "subprocess.Popen", "socket.connect", "shutil.rmtree"}

def hook(event, arguments):
    if watching and (event in WATCHED or event == "open" and set(str(arguments[1])) & set("wax+")):
        events.append(f"{event} {arguments!r:.100}")

sys.addaudithook(hook)

def memory(what):  # in MB
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if what in line)
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

def shown(tensors):
    return {name: [a.dtype.str, a.shape, a.tolist() if a.size < 1000 else None]
            for name, a in tensors.items()}

def obey(path, key):
    if path == "waste":
        return shown({"w": numpy.zeros(800 << 20, "u1")[:9]})
    if path == "touch":
        return shown({"w": numpy.ones(400 << 20, "u1")[:9]})
    if path == "hang":
        resource.setrlimit(resource.RLIMIT_CPU, (1, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        while True:
            pass
    if path == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path == "hash":
        deep = ()
        for _ in range(5_000):
            deep = (deep,)
        hash(deep)
    if path == "disobey":
        import pickle
        try:
            pickle.loads(b"cos\\nmkdir\\n(X\\x08\\x00\\x00\\x00executedtR0\\x80\\x02cposix\\nsystem\\n.")
        finally:
            with open("written", "w"):
                pass
    return shown(read_checkpoint(path, key=key).tensors)

def attempt(path, key=None, patience=150, trace=True):
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")  # the peak of what was read before is forgotten
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 12, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.alarm(patience)
    loaded, names, before, start = set(sys.modules), os.listdir(), memory("VmHWM"), time.process_time()
    if trace:  # which sees memory that is asked for but never touched, and takes its time
        tracemalloc.start()
    watching.append(True)
    error, text, tensors = [], "", None
    try:
        tensors = obey(path, key)
    except BaseException as caught:
        error, text = [c.__name__ for c in type(caught).__mro__], str(caught)
    watching.clear()
    traced, overhead = tracemalloc.get_traced_memory()[1] / 2**20, tracemalloc.get_tracemalloc_memory() / 2**20
    tracemalloc.stop()
    seconds, megabytes = time.process_time() - start, max(traced, memory("VmHWM") - before - 2 * overhead)
    left = sorted(set(os.listdir()) - set(names))
    for name in left:
        (os.rmdir if os.path.isdir(name) else os.unlink)(name)
    hostile = {"torch", "npylstm_evil", "antigravity", "this", "webbrowser", "ctypes", "pdb", "code"}
    news = sorted(hostile & (set(sys.modules) - loaded)) + barred
    try:
        again = shown(read_checkpoint(sound).tensors) == first
    except BaseException as caught:
        again = False
    answer = dict(error=error, text=text[:100_000], tensors=tensors, megabytes=megabytes, seconds=seconds,
                  left=left, events=events[:9], modules=news, poisoned=not again)
    events.clear()
    barred.clear()
    return answer

def forked(orders):
    # In one process: an answer to each order, until it dies.
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize")) + 4096 << 20,) * 2)
        resource.setrlimit(resource.RLIMIT_STACK, (256 << 10,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(writer, "w") as stream:
            for order in orders:
                stream.write(json.dumps(attempt(**order)) + "\\n")
                stream.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        yield from stream
    _, state = os.waitpid(child, 0)
    if state:
        name = signal.Signals(state & 127).name if state & 127 else f"status {state >> 8}"
        yield json.dumps(dict(error=[f"killed: {name}"], text="", tensors=None, megabytes=0.0,
                              seconds=0.0, left=[], events=[], modules=[], poisoned=False)) + "\\n"

first = shown(read_checkpoint(sound).tensors)
for path in others:
    read_checkpoint(path)  # what is imported late is imported now
print("ready", flush=True)
for line in sys.stdin:
    orders = json.loads(line)
    while orders:
        answers = list(forked(orders))
        sys.stdout.write("".join(answers))
        orders = orders[len(answers):]
    sys.stdout.flush()
"""


@dataclass(frozen=True)
class Outcome:
    """What reading gave, cost and did."""

    error: list[str]  # the exception's class and its ancestors; empty: it was read
    text: str
    tensors: dict[str, Any] | None
    megabytes: float
    seconds: float
    left: list[str]  # in the working directory
    events: list[str]  # that an audit hook saw: globals looked up, programs run, files written
    modules: list[str]  # imported
    poisoned: bool  # whether the next file was read otherwise than before

    def misbehaviour(self) -> list[str]:
        found = [*self.left, *self.events, *self.modules]
        if self.error and "NpylstmError" not in self.error:
            found.append(f"{self.error[0]}: {self.text[:200]}")
        if self.error and not self.text:
            found.append("an error without a word")
        if self.megabytes > MAX_MEGABYTES or self.seconds > MAX_SECONDS:
            found.append(f"{self.megabytes:.0f} MB, {self.seconds:.1f} s")
        return found + ["the next file was misread"] * self.poisoned


class Reader:
    """Reads files in processes of their own, in an empty directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: dict[Any, dict[Any, Outcome]] = {}
        self.evil, desk = folder / "evil", folder / "desk"
        for made in (self.evil, desk):
            made.mkdir()
        (self.evil / "npylstm_evil.py").write_text("import os\nos.mkdir('executed')\nf = len\n")
        sound = {name: folder / name for name in ("zip", "by hand", "legacy")}
        for path, data in zip(sound.values(), (SOUND_ZIP, *SOUND.values()), strict=True):
            path.write_bytes(data)
        self._worker = subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", WORKER, str(sound.pop("zip")), *map(str, sound.values())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=desk,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(self.evil), *sys.path])},
        )  # fmt: skip
        assert self._worker.stdout
        assert self._worker.stdout.readline() == "ready\n"

    def close(self) -> None:
        assert self._worker.stdin
        assert self._worker.stdout
        self._worker.stdin.close()
        self._worker.wait(60)
        self._worker.stdout.close()

    def told(self, orders: Sequence[dict[str, Any]]) -> list[Outcome]:
        assert self._worker.stdin
        assert self._worker.stdout
        self._worker.stdin.write(json.dumps(orders) + "\n")
        self._worker.stdin.flush()
        return [Outcome(**json.loads(self._worker.stdout.readline())) for _ in orders]

    def read(self, data: bytes | Path, **options: Any) -> Outcome:
        if isinstance(data, Path):
            return self.told([{"path": str(data), **options}])[0]
        return self.read_all([data], **options)[0]

    def row(
        self, table: Callable[[], Iterable[tuple[Any, bytes]]], name: Any, **options: Any
    ) -> Outcome:
        """One of a table of files, all of which are read when the first is asked for."""
        if table not in self._tables:
            names, contents = zip(*table(), strict=True)
            self._tables[table] = dict(zip(names, self.read_all(contents, **options), strict=True))
        return self._tables[table][name]

    def read_all(self, contents: Iterable[bytes], **options: Any) -> list[Outcome]:
        """Read some at a time in one process; another one takes over from one that dies."""
        outcomes, rest = [], iter(contents)
        while some := list(itertools.islice(rest, 30)):
            orders = []
            for number, data in enumerate(some):
                path = self.folder / f"{number}.pt"
                path.unlink(missing_ok=True)
                path.write_bytes(data)
                orders.append({"path": str(path), **options})
            outcomes += self.told(orders)
        return outcomes


def refused(outcome: Outcome, kind: str = "NpylstmError", message: str = "") -> None:
    assert outcome.misbehaviour() == []
    assert kind in outcome.error, outcome
    assert re.search(message, outcome.text, re.DOTALL), outcome.text


def refused_or_harmless(*outcomes: Outcome) -> None:
    for outcome in outcomes:
        assert outcome.misbehaviour() == []
        assert outcome.error or outcome.tensors == PLAIN


PLAIN = {"w": ["<f4", [3, 4], NUMBERS.reshape(3, 4).tolist()]}
