"""Damaged, lying and malicious PyTorch files: read, or refused cheaply, and never obeyed.

A pickle is a program. Ours are written opcode by opcode (see the comments of ``pickletools``), put
where ``torch.save`` puts its own, and read in forked processes of a worker, which notices whatever
a file may do: crash, hang, cost, import, or leave something behind.
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import itertools
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from npylstm_converters.torch.files import read_checkpoint
from torch import nn

import npylstm
from npylstm.cli import main

MB = 1 << 20
MAX_MEGABYTES = 300
MAX_SECONDS = 6  # of the processor; tracemalloc, where it watches, makes Python twice as slow

# --- a pickle assembler ---------------------------------------------------------------------------


class Ops(bytes):
    """Opcodes, to stand in a value as they are."""


MARK, STOP, NONE, REDUCE, BUILD, PERSID = b"(", b".", b"N", b"R", b"b", b"Q"


def whole(number: int) -> bytes:
    """LONG1 or LONG4, of any length."""
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    short = len(data) < 256
    return (
        b"\x8a" + bytes([len(data)]) if short else b"\x8b" + struct.pack("<i", len(data))
    ) + data


def code(value: Any) -> bytes:
    """Opcodes that push a value."""
    match value:
        case Ops():
            return bytes(value)
        case bool():
            return b"\x88" if value else b"\x89"
        case None:
            return NONE
        case int():
            return whole(value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(data)) + data
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return MARK + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}(" + b"".join(map(code, itertools.chain(*value.items()))) + b"u"
    raise TypeError(value)


def named(path: str) -> Ops:
    """GLOBAL: the thing of a name, such as ``os.system``."""
    module, _, name = path.rpartition(".")
    return Ops(b"c" + module.encode() + b"\n" + name.encode() + b"\n")


def stack_named(module: Any, name: Any) -> Ops:
    """STACK_GLOBAL: module and name are values."""
    return Ops(code(module) + code(name) + b"\x93")


def call(function: Any, *arguments: Any) -> Ops:
    """REDUCE: call a thing."""
    thing = named(function) if isinstance(function, str) else function
    return Ops(code(thing) + code(arguments) + REDUCE)


def joined(*parts: bytes) -> Ops:
    return Ops(b"".join(parts))


def program(value: Any, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + code(value) + STOP


NUMBERS = np.arange(12, dtype="<f4") - 3.5
DATA = NUMBERS.tobytes()
FLOATS = named("torch.FloatStorage")
ORDERED = named("collections.OrderedDict")
NO_HOOKS = call(ORDERED)


class Framing:
    """One of the two ways in which PyTorch wraps its pickles."""

    def __init__(self, name: str) -> None:
        self.name = name

    def pid(
        self, kind: Any = FLOATS, key: Any = "0", location: Any = "cpu",
        count: Any = 12, word: Any = "storage",
    ) -> tuple[Any, ...]:  # fmt: skip
        """The persistent id of a storage; that of legacy files ends with its view."""
        return (word, kind, key, location, count, *([None] if self.name == "legacy" else []))

    def tensor(
        self, size: Any = (3, 4), stride: Any = (4, 1), offset: Any = 0, storage: Any = None,
        function: str = "torch._utils._rebuild_tensor_v2", rest: tuple[Any, ...] = (False, NO_HOOKS),
        **pid: Any,
    ) -> Ops:  # fmt: skip
        if storage is None:
            storage = joined(code(self.pid(**pid)), PERSID)
        return call(function, storage, offset, size, stride, *rest)

    def state(self, **others: Any) -> dict[str, Any]:
        return {"w": self.tensor(), **others}

    def file(self, pickled: bytes, data: bytes = DATA) -> bytes:
        return self.files(pickled, {"0": data})

    def files(self, pickled: bytes, data: Mapping[str, bytes]) -> bytes:
        if self.name == "zip":
            return archive(pickled, {f"data/{key}": part for key, part in data.items()})
        stored = [struct.pack("<q", len(part) // 4) + part for part in data.values()]
        return legacy(pickled, program(list(data), 2), b"".join(stored))


def saved(thing: Any, framing: str = "zip") -> bytes:
    stream = io.BytesIO()
    torch.save(thing, stream, _use_new_zipfile_serialization=framing == "zip")
    return stream.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def zipped(parts: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as target:
        for name, data in parts.items():
            target.writestr(name, data)
    return stream.getvalue()


SOUND_ZIP = saved({"w": torch.from_numpy(NUMBERS.reshape(3, 4).copy())})
SOUND_LEGACY = saved({"w": torch.from_numpy(NUMBERS.reshape(3, 4).copy())}, "legacy")
PREAMBLE = (program(0x1950A86A20F9469CFC6C, 2), program(1001, 2), program(
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, 2
))  # fmt: skip


def archive(
    pickled: bytes | None = None, others: Mapping[str, bytes | None] | None = None,
    method: int = zipfile.ZIP_STORED,
) -> bytes:  # fmt: skip
    """What torch.save made, with another ``data.pkl`` or other members; None: left out."""
    parts: dict[str, bytes | None] = dict(members(SOUND_ZIP))
    if pickled is not None:
        parts["archive/data.pkl"] = pickled
    parts |= {f"archive/{name}": data for name, data in (others or {}).items()}
    return zipped({name: data for name, data in parts.items() if data is not None}, method)


def legacy(
    pickled: bytes, keys: bytes | None = None, data: bytes | None = None,
    preamble: tuple[bytes, ...] = PREAMBLE,
) -> bytes:  # fmt: skip
    """Five pickles, then the storages, each after its count of elements."""
    keys = program(["0"], 2) if keys is None else keys
    data = struct.pack("<q", 12) + DATA if data is None else data
    return b"".join(preamble) + pickled + keys + data


ZIP, LEGACY = Framing("zip"), Framing("legacy")
FRAMINGS = {"zip": ZIP, "legacy": LEGACY}
SOUND = {name: f.file(program(f.state())) for name, f in FRAMINGS.items()}

# --- the worker ------------------------------------------------------------------------------------

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


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    made = Reader(tmp_path_factory.mktemp("hostile"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("order", "sign"),
    [("waste", "800 MB"), ("hang", "SIGXCPU"), ("crash", "SIGSEGV"), ("hash", "SIGSEGV"),
     ("disobey", "find_class"), ("disobey", "executed"), ("disobey", "os.mkdir"), ("disobey", "written")],
)  # fmt: skip
def test_the_worker_notices(order: str, sign: str, reader: Reader) -> None:
    assert sign in "\n".join(reader.read(Path(order)).misbehaviour())


def test_the_worker_notices_without_a_trace(reader: Reader) -> None:
    assert re.match(r"4\d\d MB", "\n".join(reader.read(Path("touch"), trace=False).misbehaviour()))


def refused(outcome: Outcome, kind: str = "NpylstmError", message: str = "") -> None:
    assert outcome.misbehaviour() == []
    assert kind in outcome.error, outcome
    assert re.search(message, outcome.text, re.DOTALL), outcome.text


def refused_or_harmless(*outcomes: Outcome) -> None:
    for outcome in outcomes:
        assert outcome.misbehaviour() == []
        assert outcome.error or outcome.tensors == PLAIN


# --- what is written by hand is sound ---------------------------------------------------------------

PLAIN = {"w": ["<f4", [3, 4], NUMBERS.reshape(3, 4).tolist()]}


@pytest.mark.parametrize("data", [SOUND_ZIP, SOUND_LEGACY, *SOUND.values()],
                         ids=["zip", "legacy", "zip by hand", "legacy by hand"])  # fmt: skip
def test_a_sound_file_is_not_refused(data: bytes, reader: Reader) -> None:
    """Every refusal below would otherwise prove nothing."""
    found = torch.load(io.BytesIO(data), weights_only=False)
    np.testing.assert_array_equal(found["w"], NUMBERS.reshape(3, 4))
    outcome = reader.read(data)
    assert outcome.misbehaviour() == []
    assert outcome.tensors == PLAIN


# --- programs: refused by name, never run -----------------------------------------------------------

EXECUTED = "__import__('os').mkdir('executed')"
MKDIR = call("os.mkdir", "executed")

# Each makes a folder under plain pickle; the message must name these.
EXECUTABLE: dict[str, tuple[Ops, str]] = {
    "os.mkdir": (MKDIR, "os.mkdir"),
    "os.system": (call("os.system", "mkdir executed"), "os.system"),
    "posix.system": (call("posix.system", "mkdir executed"), "posix.system"),
    "subprocess.Popen": (call("subprocess.Popen", ["mkdir", "executed"]), "subprocess.Popen"),
    "subprocess.run": (call("subprocess.run", ["mkdir", "executed"]), "subprocess.run"),
    "builtins.eval": (call("builtins.eval", EXECUTED), "builtins.eval"),
    "builtins.exec": (call("builtins.exec", EXECUTED), "builtins.exec"),
    "of Python 2": (call("__builtin__.eval", EXECUTED), "(__builtin__|builtins).eval"),
    "getattr": (call(call("builtins.getattr", call("builtins.__import__", "os"), "mkdir"), "executed"), "builtins.getattr"),
    "partial": (call(call("functools.partial", named("os.mkdir")), "executed"), "functools.partial"),
    "runpy": (call("runpy._run_code", call("builtins.compile", EXECUTED, "a", "exec"), {}), "runpy._run_code"),
    "timeit": (call("timeit.timeit", EXECUTED, "pass", named("time.time"), 1), "timeit.timeit"),
    "a pickle in it": (call("pickle.loads", program(MKDIR)), "pickle.loads"),
    "a pickle in C in it": (call("_pickle.loads", program(MKDIR)), "_pickle.loads"),
    "a checkpoint in it": (
        call("torch.storage._load_from_bytes", LEGACY.file(program(MKDIR))), "torch.storage._load_from_bytes"),
    "import of a module": (named("npylstm_evil.f"), "npylstm_evil.f"),
    "call of a module": (call("npylstm_evil.f", "abc"), "npylstm_evil.f"),
    "STACK_GLOBAL": (call(stack_named("os", "mkdir"), "executed"), "os.mkdir"),
    "dots": (call(stack_named("shutil", "os.mkdir"), "executed"), "shutil.os.mkdir"),
    "dots in GLOBAL": (call(Ops(b"cshutil\nos.mkdir\n"), "executed"), "shutil.os.mkdir"),
    "dots through torch": (
        call(stack_named("torch.serialization", "os.mkdir"), "executed"), "torch.serialization.os.mkdir"),
    "dots through what is allowed": (
        call(stack_named("torch._utils", "logging.os.mkdir"), "executed"), "torch._utils.logging.os.mkdir"),
    "memo": (joined(named("os.mkdir"), b"q\x07", b"0", b"h\x07", code(("executed",)), REDUCE), "os.mkdir"),
    "INST": (joined(MARK, code("executed"), b"ios\nmkdir\n"), "os.mkdir"),
    "OBJ": (joined(MARK, named("os.mkdir"), code("executed"), b"o"), "os.mkdir"),
    "NEWOBJ": (joined(named("npylstm_evil.f"), b")\x81"), "npylstm_evil.f"),
    "NEWOBJ_EX": (joined(named("npylstm_evil.f"), b")}\x92"), "npylstm_evil.f"),
    "EXT1": (joined(b"\x82\xf0", code(("executed",)), REDUCE), ""),
    "EXT2": (joined(b"\x83\xf0\x00", code(("executed",)), REDUCE), ""),
    "EXT4": (joined(b"\x84\xf0\x00\x00\x00", code(("executed",)), REDUCE), ""),
    "thrown away": (joined(MKDIR, b"0", NONE), "os.mkdir"),
    "deep in an argument": (call(ORDERED, [("a", [MKDIR])]), "os.mkdir"),
}  # fmt: skip


def protocol_of(name: str) -> int:
    """Only protocol 2 translates names of Python 2; only 4 allows dots in names."""
    return 2 if "Python 2" in name else 4


@pytest.fixture
def extension() -> Iterator[None]:
    copyreg.add_extension("os", "mkdir", 240)
    yield
    copyreg.remove_extension("os", "mkdir", 240)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", EXECUTABLE)
def test_that_plain_pickle_would_run_it(
    name: str, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the refusals below would prove nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(reader.evil)
    monkeypatch.delitem(sys.modules, "npylstm_evil", raising=False)
    with contextlib.suppress(Exception):
        result = pickle.loads(program(EXECUTABLE[name][0], protocol_of(name)))
        if isinstance(result, subprocess.Popen):
            result.wait()
    assert os.listdir(tmp_path) == ["executed"]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", EXECUTABLE)
def test_not_executed(name: str, framing: str, reader: Reader) -> None:
    payload, message = EXECUTABLE[name]
    f = FRAMINGS[framing]
    things = [
        f.state(x=payload), payload, {"w": payload}, {"x": payload, "model": f.state()},
        {"x": [(payload, 3)], "model": f.state()}, {"model": f.state(), (payload, 3): 4},
        {"model": f.state(), payload: 3}, [f.state(), payload],
    ]  # fmt: skip
    outcomes = reader.read_all(f.file(program(x, protocol_of(name))) for x in things)
    for thing, outcome in zip(things, outcomes, strict=True):
        apart = isinstance(thing, list) or (isinstance(thing, dict) and "model" in thing)
        refused_or_harmless(outcome)
        if not apart:  # the weights themselves hold it
            # The other legacy files list a storage that nothing in them names.
            alone = framing == "legacy" and not (isinstance(thing, dict) and "x" in thing)
            refused(outcome, "NpylstmError", "" if alone else message)


@pytest.mark.parametrize("field", ["kind", "key", "location", "count", "word", "size", "stride",
                                   "offset", "storage", "rest", "rest 2", "whole id"])  # fmt: skip
@pytest.mark.parametrize("framing", FRAMINGS)
def test_not_executed_within_a_tensor(field: str, framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    match field:
        case "rest":
            tensor = f.tensor(rest=(MKDIR, NO_HOOKS))
        case "rest 2":
            tensor = f.tensor(rest=(False, MKDIR))
        case "whole id":
            tensor = f.tensor(storage=joined(MKDIR, PERSID))
        case _:
            tensor = f.tensor(**{field: MKDIR})
    outcome = reader.read(f.file(program({"w": tensor})))
    if field in ("location", "rest", "rest 2"):  # devices and hooks are not read
        refused_or_harmless(outcome)
    else:
        refused(outcome)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("value", [MKDIR, named("npylstm_evil.f"), [MKDIR], {"x": MKDIR}])
def test_not_executed_around_the_legacy_pickle(at: int, value: Any, reader: Reader) -> None:
    """The magic number, the version, the machine and the list of storages are pickles, too."""
    around = [*PREAMBLE, program(["0"], 2)]
    around[at] = program(value)
    data = legacy(program(LEGACY.state()), keys=around[3], preamble=tuple(around[:3]))
    refused_or_harmless(reader.read(data))


def tarred(pickled: bytes) -> bytes:
    """The format before torch 0.1.10: a tar of four pickles."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            tar.addfile(member, io.BytesIO(pickled))
    return stream.getvalue()


@pytest.mark.parametrize("name", ["os.system", "STACK_GLOBAL", "import of a module", "INST"])
def test_not_executed_in_other_files(name: str, reader: Reader) -> None:
    payload = program(EXECUTABLE[name][0])
    others = [payload, payload[2:], tarred(payload), payload + SOUND_LEGACY,
              zipped({"data.pkl": payload}), PREAMBLE[0] + payload]  # fmt: skip
    for outcome in reader.read_all(others):
        refused(outcome)
    names = ("constants.pkl", "attributes.pkl", "version", ".format_version", "debug.pkl")
    beside = [archive(None, {name: payload}) for name in names]
    refused_or_harmless(*reader.read_all([*beside, SOUND_ZIP + payload, SOUND_LEGACY + payload]))


def exported() -> dict[str, bytes]:
    """The members of a program that torch.export saved."""
    stream = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 3), (torch.ones(1, 2),)), stream)
    return members(stream.getvalue())


@pytest.mark.filterwarnings("ignore")  # torch's own, about what it cannot load
def test_not_executed_in_exported_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file chooses by its names that torch.export.load reads it, which falls back to pickle."""
    monkeypatch.chdir(tmp_path)
    parts, path, ran = exported(), tmp_path / "model.pt", []
    for name in parts:
        for payload in (
            program(MKDIR, 2),
            archive(program(MKDIR, 2)),
            LEGACY.file(program(MKDIR, 2)),
        ):
            path.write_bytes(zipped(parts | {name: payload}))
            for command in (
                ["info", str(path)],
                ["convert", str(path), "out.npz", "--record", "0"],
            ):
                main(command)
                if os.path.exists("executed"):
                    os.rmdir("executed")
                    ran.append(f"{command[0]}: {name}")
    capsys.readouterr()
    assert ran == []


# Names that no state_dict needs. Those with dots inside could lead from what is allowed to all.
NAMES = [
    "os.system", "posix.system", "nt.system", "builtins.eval", "builtins.exec", "builtins.getattr",
    "builtins.setattr", "builtins.__import__", "builtins.compile", "builtins.open", "builtins.type",
    "builtins.object", "builtins.globals", "builtins.print", "builtins.breakpoint", "builtins.map",
    "__builtin__.eval", "__builtin__.getattr", "subprocess.Popen", "io.open", "_io.FileIO",
    "pathlib.PosixPath", "argparse.Namespace", "types.FunctionType", "types.CodeType",
    "importlib.import_module", "operator.attrgetter", "pydoc.locate", "webbrowser.open",
    "antigravity.geohash", "ctypes.CDLL", "socket.socket", "shutil.rmtree", "pickle.loads",
    "codecs.encode", "codecs.decode", "copyreg._reconstructor", "copy_reg._reconstructor",
    "collections.namedtuple", "functools.partial", "itertools.count", "logging.config.listen",
    "numpy.load", "numpy.fromfile", "numpy.memmap", "numpy.testing._private.utils.runstring",
    "torch.load", "torch.hub.load", "torch.jit.load", "torch.serialization.load", "torch.classes.load_library",
    "torch.nn.modules.rnn.LSTM", "torch.nn.Module",
    "torch.utils.cpp_extension.load", "torch.set_default_device", "torch.from_file",
    "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_tensor_v9", "torch._utils.exec",
    "torch._tensor._rebuild_from_type_v3", "__main__.Net", "__torch__.Net", "net.Net", "Net.Net",
    "dill._dill._create_function", "cloudpickle.cloudpickle._make_function",
    "os.FloatStorage", "torch.NoStorage", "torch.floatStorage", "Torch.FloatStorage",
    "torch.nn.FloatStorage", "collections.abc.OrderedDict", "collections.ordereddict",
]  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", NAMES)
def test_refused_by_name(name: str, framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    module, _, attribute = name.rpartition(".")
    things = [
        named(name), stack_named(module, attribute), call(name), call(name, "a", [3]),
        joined(named(name), b")\x81"), joined(named(name), code({"a": 3}), BUILD),
        joined(MARK, code("a"), b"i", module.encode(), b"\n", attribute.encode(), b"\n"),
    ]  # fmt: skip
    spelled = re.escape(name).replace("__builtin__", "(__builtin__|builtins)")
    spelled = spelled.replace("copy_reg", "(copy_reg|copyreg)")  # Python 2's name, or 3's
    for outcome in reader.read_all(f.file(program(f.state(x=thing))) for thing in things):
        refused(outcome, "UnsupportedError", spelled)


DOTTED = [
    ("torch", "FloatStorage.from_file"), ("torch", "FloatStorage.__init__.__globals__"),
    ("collections", "OrderedDict.fromkeys"), ("collections", "OrderedDict.__class__"),
    ("collections", "_sys.modules"), ("collections", "OrderedDict.__reduce__"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("torch._utils", "sys.modules"),
    ("torch", "_utils._rebuild_tensor_v2"), ("torch", "serialization.load"), ("torch", "Size.__new__"),
    ("torch.Size", "__new__"), ("", "eval"), ("torch", ""), ("", ""), ("torch ", "FloatStorage"),
    ("torch", "FloatStorage\x00"), ("torch", "FloatStorage\nos\nsystem"), ("t\u00f6rch", "FloatStorage"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), DOTTED)
def test_refused_by_a_name_that_resembles(module: str, name: str, reader: Reader) -> None:
    thing = stack_named(module, name)
    values = (ZIP.state(x=thing), ZIP.state(x=call(thing, 3)), {"w": ZIP.tensor(kind=thing)})
    for outcome in reader.read_all(ZIP.file(program(value)) for value in values):
        refused(outcome)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_refused_name_at_once(framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    names = (
        "os.system",
        "posix.mkdir",
        "builtins.exec",
        "net.Net",
        "argparse.Namespace",
        "a.kind",
        "a.b",
    )
    thing = {
        "a": call("os.system", "mkdir executed"), "w": f.tensor(),
        "b": [joined(call("net.Net"), code({"x": call("posix.mkdir", "a")}), BUILD)],
        "c": joined(call("builtins.exec", "a"), b"0", NONE), "d": (named("argparse.Namespace"),),
        "v": f.tensor(kind=named("a.kind")), "e": joined(MARK, code(3), b"ia\nb\n"),
    }  # fmt: skip
    outcome = reader.read(f.file(program(thing)))
    refused(outcome, "UnsupportedError")
    assert [name for name in names if name not in outcome.text] == []
    outcome = reader.read(f.file(program({"model": f.state(), **thing})), key="model")
    assert outcome.tensors == PLAIN  # nothing of it is needed, and nothing was run
    assert outcome.misbehaviour() == []


# --- objects that are dressed up ---------------------------------------------------------------------

INSIDES = [
    "__class__", "__reduce__", "__dict__", "__init__", "__iter__", "__len__", "__getitem__", "items",
    "keys", "values", "get", "name", "module", "shape", "size", "stride", "dtype", "data", "key",
    "offset", "storage", "args", "function", "state", "array", "count", "numel", "location", "tensor",
    "_tensor", "kind", "value", "path",
]  # fmt: skip
BUILDABLE: dict[str, Callable[[Framing], Any]] = {
    "a tensor": lambda f: f.tensor(),
    "a parameter": lambda f: call("torch._utils._rebuild_parameter", f.tensor(), True, NO_HOOKS),
    "a storage": lambda f: joined(code(f.pid()), PERSID),
    "an ordered dict": lambda f: call(ORDERED),
    "a class": lambda f: ORDERED,
    "a function": lambda f: named("torch._utils._rebuild_tensor_v2"),
    "a kind of storage": lambda f: named("torch.FloatStorage"),
    "a size": lambda f: call("torch.Size", (3, 4)),
    "a dict": lambda f: {},
    "a list": lambda f: [],
    "a text": lambda f: "abc",
    "a number": lambda f: 3,
    "a tuple": lambda f: (3, 4),
    "nothing": lambda f: None,
}
STATES: dict[str, Any] = {
    "inside": dict.fromkeys(INSIDES, 3),
    "inside of slots": (None, dict.fromkeys(INSIDES, 3)),
    "inside of both": (dict.fromkeys(INSIDES, ORDERED), {key: [] for key in INSIDES}),
    "class": {"__class__": ORDERED},
    "reduce": {"__reduce__": ORDERED, "__setstate__": ORDERED, "__del__": ORDERED},
    "numbers for keys": {3: 4, None: 5},
    "a number": 3,
    "a text": "abc",
    "nothing": None,
    "a pair": (3, 4),
    "a triple": (None, {}, {}),
    "itself": Ops(b"2"),
}


@pytest.mark.parametrize("name", BUILDABLE)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_build_changes_nothing(name: str, framing: str, reader: Reader) -> None:
    """BUILD sets attributes: of an instance, or, of a class, of the whole process."""
    f = FRAMINGS[framing]
    after = [f.tensor(), call(ORDERED), call("torch.Size", (3,)), f.tensor()]
    values: list[Any] = []
    for state in STATES.values():
        thing = joined(code(BUILDABLE[name](f)), code(state), BUILD)
        values.append({"model": f.state(), "x": [thing, *after]})
        if name in ("a tensor", "a parameter"):
            values.append({"w": thing})
    refused_or_harmless(*reader.read_all(f.file(program(value)) for value in values))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_state_of_the_state_dict_itself(framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    metadata = {"_metadata": call(ORDERED, [("", {"version": 1})])}
    outcomes = reader.read_all(
        f.file(
            program(joined(call(ORDERED), MARK, code("w"), f.tensor(), b"u", code(state), BUILD))
        )
        for state in (metadata, *STATES.values())
    )
    assert outcomes[0].tensors == PLAIN
    refused_or_harmless(*outcomes)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", BUILDABLE)
def test_only_functions_are_called(name: str, framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    ends = (REDUCE, b"\x81", code({"a": 3}) + b"\x92")
    values = [
        {"model": f.state(), "x": joined(code(BUILDABLE[name](f)), code(arguments), end)}
        for arguments in ((), (3,), ([("w", 3)],), "abc", None, [3]) for end in ends
    ]  # fmt: skip
    refused_or_harmless(*reader.read_all(f.file(program(value)) for value in values))


# --- pickles that are damaged ------------------------------------------------------------------------


def short(value: Any) -> bytes:
    """A program without its last byte."""
    return program(value)[:-1]


Pickled = Callable[[Framing], bytes]
DAMAGED: dict[str, Pickled] = {
    "nothing": lambda f: b"",
    "only a protocol": lambda f: b"\x80\x02",
    "only a stop": lambda f: b".",
    "protocol and stop": lambda f: b"\x80\x02.",
    "no stop": lambda f: short(f.state()),
    "protocol of the future": lambda f: program(f.state(), 6),
    "protocol 255": lambda f: program(f.state(), 255),
    "opcode 0xff": lambda f: short(f.state()) + b"\xff.",
    "opcode 0": lambda f: b"\x80\x02\x00" + program(f.state())[2:],
    "opcode of a letter": lambda f: short(f.state()) + b"z.",
    "pop of nothing": lambda f: b"\x80\x020" + program(f.state())[2:],
    "pop to no mark": lambda f: b"\x80\x021" + program(f.state())[2:],
    "dup of nothing": lambda f: b"\x80\x022" + program(f.state())[2:],
    "tuple of no mark": lambda f: short(f.state()) + b"t.",
    "list of no mark": lambda f: short(f.state()) + b"l.",
    "dict of no mark": lambda f: short(f.state()) + b"d.",
    "items of no mark": lambda f: short(f.state()) + b"u.",
    "appends of no mark": lambda f: short([f.tensor()]) + b"e.",
    "set of no mark": lambda f: b"\x80\x04\x8f" + code(f.tensor()) + b"\x90.",
    "frozen set of no mark": lambda f: short(f.state()) + b"\x91.",
    "object of no mark": lambda f: short(f.state()) + b"o.",
    "object of nothing": lambda f: short(f.state()) + b"(o.",
    "tuple of one of none": lambda f: b"\x80\x02\x85.",
    "tuple of two of one": lambda f: short(f.state()) + b"\x86.",
    "tuple of three of two": lambda f: short(f.state()) + b"N\x87.",
    "tuple across a mark": lambda f: short(f.state()) + b"(\x85.",
    "reduce of nothing": lambda f: b"\x80\x02R" + program(f.state())[2:],
    "reduce of one": lambda f: short(f.state()) + b"R.",
    "reduce across a mark": lambda f: b"\x80\x02" + ORDERED + b"()R.",
    "new object of one": lambda f: short(f.state()) + b"\x81.",
    "new object of two": lambda f: short(f.state()) + b"N\x92.",
    "build of one": lambda f: short(f.state()) + b"b.",
    "build across a mark": lambda f: short(f.state()) + b"(}b.",
    "item of one": lambda f: short(f.state()) + b"s.",
    "item of two": lambda f: short(f.state()) + b"Ns.",
    "odd items": lambda f: short(f.state()) + b"(" + code("a") + b"u.",
    "odd dict": lambda f: b"\x80\x02(" + code("a") + b"d.",
    "append to nothing": lambda f: short(f.state()) + b"a.",
    "id of nothing": lambda f: b"\x80\x02Q.",
    "memoize of nothing": lambda f: b"\x80\x04\x94" + program(f.state())[2:],
    "put of nothing": lambda f: b"\x80\x04q\x01" + program(f.state())[2:],
    "stop at a mark": lambda f: short(f.state()) + b"(.",
    "stop at a mark above nothing": lambda f: b"\x80\x02(.",
    "append to a tuple": lambda f: short(()) + code(f.tensor()) + b"a.",
    "append to a dict": lambda f: short(f.state()) + b"Na.",
    "append to a tensor": lambda f: short(f.tensor()) + b"Na.",
    "append to a text": lambda f: short("abc") + b"Na.",
    "append to None": lambda f: short(None) + b"Na.",
    "appends to a tuple": lambda f: short(()) + b"(Ne.",
    "appends to a number": lambda f: short(3) + b"(Ne.",
    "appends to a class": lambda f: short(ORDERED) + b"(Ne.",
    "item in a list": lambda f: short([f.tensor()]) + code(0) + b"Ns.",
    "items in a list": lambda f: short([f.tensor()]) + b"(" + code(0) + b"Nu.",
    "items in a tuple": lambda f: short((f.tensor(),)) + b"(" + code(0) + b"Nu.",
    "items in a tensor": lambda f: short(f.tensor()) + b"(" + code(0) + code(0) + b"u.",
    "items in a text": lambda f: short("abc") + b"(" + code(0) + code(0) + b"u.",
    "items in None": lambda f: short(None) + b"(" + code(0) + code(0) + b"u.",
    "items in a class": lambda f: short(ORDERED) + b"(" + code("a") + code(0) + b"u.",
    "additems to a list": lambda f: short([]) + b"(N\x90.",
    "additems to a dict": lambda f: short({}) + b"(N\x90.",
    "a list for a key": lambda f: program({"w": f.tensor(), Ops(b"]"): 3}),
    "a dict for a key": lambda f: program({"w": f.tensor(), Ops(b"}"): 3}),
    "a set for a key": lambda f: program({"w": f.tensor(), Ops(b"\x8f"): 3}),
    "an ordered dict for a key": lambda f: program({"w": f.tensor(), call(ORDERED): 3}),
    "a list in a tuple for a key": lambda f: program({"w": f.tensor(), (1, Ops(b"]")): 3}),
    "a bytearray for a key": lambda f: program({"w": f.tensor(), Ops(b"\x96" + struct.pack("<Q", 1) + b"a"): 3}, 5),
    "a list for a member": lambda f: program({"w": f.tensor(), "x": Ops(b"\x8f(]\x90")}),
    "a list in a frozen set": lambda f: program({"w": f.tensor(), "x": Ops(b"(]\x91")}),
    "get of nothing put": lambda f: short(f.state()) + b"0h\xfe.",
    "long get of nothing put": lambda f: short(f.state()) + b"0j\xfe\xff\xff\xff.",
    "text get of nothing put": lambda f: short(f.state()) + b"0g99\n.",
    "text get of letters": lambda f: short(f.state()) + b"0gabc\n.",
    "text get of nothing": lambda f: short(f.state()) + b"0g\n.",
    "text put of letters": lambda f: short(f.state()) + b"pabc\n.",
    "text put below 0": lambda f: short(f.state()) + b"p-1\n.",
    "text beyond the end": lambda f: b"\x80\x02X\xff\xff\xff\xffabc.",
    "text of 2^63": lambda f: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"abc.",
    "text of 2^64 - 1": lambda f: b"\x80\x04\x8d" + b"\xff" * 8 + b"abc.",
    "short text beyond the end": lambda f: b"\x80\x04\x8c\xffabc.",
    "bytes beyond the end": lambda f: b"\x80\x03B\xff\xff\xff\x7fabc.",
    "bytes of 2^63": lambda f: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 63) + b"abc.",
    "bytes of 2^33": lambda f: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"abc.",
    "short bytes beyond the end": lambda f: b"\x80\x04C\xffabc.",
    "bytearray of 2^62": lambda f: b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"abc.",
    "bytearray of 2^31": lambda f: b"\x80\x05\x96" + struct.pack("<Q", 1 << 31) + b"abc.",
    "string of -1": lambda f: b"\x80\x02T\xff\xff\xff\xffabc.",
    "string of 2^31 - 1": lambda f: b"\x80\x02T\xff\xff\xff\x7fabc.",
    "string without quotes": lambda f: b"\x80\x02Sabc\n.",
    "string of one quote": lambda f: b"\x80\x02S'\n.",
    "string of half an escape": lambda f: b"\x80\x02S'\\x4'\n.",
    "line without end": lambda f: b"\x80\x02V" + b"a" * 999,
    "global without end": lambda f: b"\x80\x02ctorch\nFloatStorage",
    "global of one line": lambda f: b"\x80\x02ctorch\n",
    "text not UTF-8": lambda f: b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "global not UTF-8": lambda f: b"\x80\x02c\xff\xfe\n\xff\n.",
    "half an escape": lambda f: b"\x80\x02V\\u12\n.",
    "int of letters": lambda f: b"\x80\x02Iabc\n.",
    "int of nothing": lambda f: b"\x80\x02I\n.",
    "int of too many digits": lambda f: b"\x80\x02I" + b"9" * 100_000 + b"\n.",
    "long of letters": lambda f: b"\x80\x02LabcL\n.",
    "long of too many digits": lambda f: b"\x80\x02L" + b"9" * 100_000 + b"L\n.",
    "float of letters": lambda f: b"\x80\x02Fabc\n.",
    "half a float": lambda f: b"\x80\x02G\x00\x00",
    "half an int": lambda f: b"\x80\x02J\x00",
    "no byte of an int": lambda f: b"\x80\x02K",
    "long beyond the end": lambda f: b"\x80\x02\x8a\xff\x01.",
    "long of 2^31 - 1": lambda f: b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "long of -1": lambda f: b"\x80\x02\x8b\xff\xff\xff\xff\x01.",
    "long of -2^31": lambda f: b"\x80\x02\x8b\x00\x00\x00\x80\x01.",
    "frame of 2^63": lambda f: b"\x80\x04\x95" + struct.pack("<Q", 1 << 63),
    "half a frame": lambda f: b"\x80\x04\x95\x00\x00",
    "a buffer out of band": lambda f: short(f.state()) + b"0\x97.",
    "a read-only buffer of nothing": lambda f: b"\x80\x05\x98.",
    "names that are numbers": lambda f: program({"w": f.tensor(), "x": stack_named(3, 4)}),
    "names that are None": lambda f: program({"w": f.tensor(), "x": stack_named(None, None)}),
    "names that are lists": lambda f: program({"w": f.tensor(), "x": stack_named([], {})}),
    "names that are tensors": lambda f: program({"w": f.tensor(), "x": stack_named(f.tensor(), f.tensor())}),
    "names that are globals": lambda f: program({"w": f.tensor(), "x": stack_named(ORDERED, ORDERED)}),
    "one name": lambda f: b"\x80\x04" + code("torch") + b"\x93.",
    "arguments a list": lambda f: program({"w": f.tensor(), "x": Ops(ORDERED + b"]R")}),
    "arguments None": lambda f: program({"w": f.tensor(), "x": Ops(ORDERED + b"NR")}),
    "arguments a text": lambda f: program({"w": f.tensor(), "x": Ops(ORDERED + code("ab") + b"R")}),
    "call of a text": lambda f: program(f.state(x=call(Ops(code("os.system")), "a"))),
    "call of a number": lambda f: program(f.state(x=call(Ops(code(3)), "a"))),
    "call of a list": lambda f: program(f.state(x=call(Ops(b"]"), "a"))),
    "call of a tensor": lambda f: program(f.state(x=call(f.tensor(), "a"))),
    "call of a tuple": lambda f: program(f.state(x=call(Ops(code(("os", "system"))), "a"))),
    "call of a result": lambda f: program(f.state(x=call(call(ORDERED), "a"))),
    "ordered dict of numbers": lambda f: program(f.state(x=call(ORDERED, [1, 2]))),
    "ordered dict of a number": lambda f: program(f.state(x=call(ORDERED, 3))),
    "ordered dict of texts": lambda f: program(f.state(x=call(ORDERED, ["abc"]))),
    "ordered dict of lists for keys": lambda f: program(f.state(x=call(ORDERED, [[[], 1]]))),
    "ordered dict of too much": lambda f: program(f.state(x=call(ORDERED, [], [], []))),
    "size of texts": lambda f: program(f.state(x=call("torch.Size", ("a",)))),
    "size of a number": lambda f: program(f.state(x=call("torch.Size", 3))),
    "size of two": lambda f: program(f.state(x=call("torch.Size", (3,), (4,)))),
}  # fmt: skip

# Of these, nonsense in what no tensor needs, a reader may make nothing and go on.
NONSENSE = re.compile(
    "ordered dict of|size of|call of|arguments|additems|string of half|half an escape|protocol|for a member|frozen set$|an ordered dict for"
)


def damaged_files() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(DAMAGED.items(), FRAMINGS.items()):
        yield (name, framing), f.file(made(f))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickle(name: str, framing: str, reader: Reader) -> None:
    outcome = reader.row(damaged_files, (name, framing))
    refused(outcome, "NpylstmError" if NONSENSE.match(name) else "FormatError")


# What may be read, for nothing is wrong with the tensor: but then as it is.
HARMLESS: dict[str, Pickled] = {
    "memo of 2^31": lambda f: short(f.state()) + b"r\x00\x00\x00\x80.",
    "memo of 2^32 - 1": lambda f: short(f.state()) + b"r\xff\xff\xff\xff0j\xff\xff\xff\xff.",
    "memo of 2^70": lambda f: short(f.state()) + b"p%d\n." % 2**70,
    "memo of a million digits": lambda f: short(f.state()) + b"p" + b"1" * 1_000_000 + b"\n.",
    "memo by line": lambda f: short(f.state()) + b"p7\n0g7\n.",
    "put again and again": lambda f: short(f.state()) + b"q\x01" * 9999 + b".",
    "protocol twice": lambda f: b"\x80\x02\x80\x04" + program(f.state())[2:],
    "no protocol": lambda f: program(f.state())[2:],
    "things below": lambda f: b"\x80\x02NNN](" + program(f.state())[2:],
    "bytes behind": lambda f: program(f.state()),
    "frame too long": lambda f: b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + program(f.state())[2:],
    "frame too short": lambda f: b"\x80\x04\x95" + struct.pack("<Q", 3) + program(f.state())[2:],
    "frames": lambda f: b"\x80\x04" + (b"\x95" + bytes(8)) * 999 + program(f.state())[2:],
    "dup": lambda f: b"\x80\x02" + code(f.state()) + b"20.",
    "bytes": lambda f: program({"m": f.state(), "x": b"ab\xff"}),
    "bytearray": lambda f: program({"m": f.state(), "x": Ops(b"\x96" + struct.pack("<Q", 2) + b"ab")}, 5),
    "read-only": lambda f: program({"m": f.state(), "x": Ops(b"\x96" + struct.pack("<Q", 2) + b"ab\x98")}, 5),
    "sets": lambda f: program({"m": f.state(), "x": Ops(b"\x8f(" + code(3) + b"\x90"), "y": Ops(b"(" + code(3) + b"\x91")}),
    "a tuple for a key": lambda f: program({"m": f.state(), (1, (2, "a")): 3}),
    "a tensor for a key": lambda f: program({"m": f.state(), f.tensor(): 3}),
    "a nan for a key": lambda f: program({"m": f.state(), float("nan"): 3}),
    "a key of half a character": lambda f: program({"m": f.state(), "\ud800": 3}),
    "text in every old form": lambda f: program({"m": f.state(), "x": Ops(b"Va\\u0041b\n0S'a\\x41'\n0T\x01\x00\x00\x00a0U\x01a")}),
    "numbers in every old form": lambda f: program({"m": f.state(), "x": Ops(b"I1\n0I01\n0I00\n0L5L\n0F1.5\n0Fnan\n0I-3\n")}),
    "old list and dict": lambda f: program({"m": f.state(), "x": Ops(b"((lp0\nI1\na0(dp1\nI1\nI2\ns0N1N")}),
    "allowed but not called": lambda f: program({"m": f.state(), "x": [ORDERED, named("torch._utils._rebuild_tensor_v2")]}),
    "a bare storage": lambda f: program({"m": f.state(), "x": joined(code(f.pid()), PERSID)}),
    "numbers of 20,000 digits": lambda f: program({"m": f.state(), "x": -(1 << 66_000), 1 << 66_000: 3}),
    "written by Python 2": lambda f: program({"w": f.tensor(word=Ops(b"U\x07storage"), key=Ops(b"U\x010"), location=Ops(b"U\x03cpu"))}, 2),
    "names by Python 2": lambda f: b"\x80\x02}U\x01w" + f.tensor() + b"s.",
    "of torch 0.1": lambda f: program({"w": f.tensor(function="torch._utils._rebuild_tensor", rest=())}),
    "old parameter": lambda f: program({"w": call("torch._utils._rebuild_parameter", f.tensor(), True, NO_HOOKS)}),
    "without hooks": lambda f: program({"w": f.tensor(rest=(False, None))}),
    "hooks": lambda f: program({"w": f.tensor(rest=(False, call(ORDERED, [(0, 3)])))}),
    "hooks are a dict": lambda f: program({"w": f.tensor(rest=(False, {}))}),
    "requires_grad of no sense": lambda f: program({"w": f.tensor(rest=("yes", NO_HOOKS))}),
    "metadata of no sense": lambda f: program({"w": f.tensor(rest=(False, NO_HOOKS, {"a": 3}))}),
    "metadata none": lambda f: program({"w": f.tensor(rest=(False, NO_HOOKS, None))}),
    "size is a list": lambda f: program({"w": f.tensor(size=[3, 4], stride=[4, 1])}),
    "size is a torch.Size": lambda f: program({"w": f.tensor(size=call("torch.Size", (3, 4)))}),
    "size is a torch.Size of a list": lambda f: program({"w": f.tensor(size=call("torch.Size", [3, 4]))}),
    "fewer arguments": lambda f: program({"w": f.tensor(rest=())}),
    "more arguments": lambda f: program({"w": f.tensor(rest=(False, NO_HOOKS, None, None, None, None))}),
    "offset is false": lambda f: program({"w": f.tensor(offset=False)}),
    "CUDA's class": lambda f: program({"w": f.tensor(kind=named("torch.cuda.FloatStorage"), location="cuda:0")}),
    "location a number": lambda f: program({"w": f.tensor(location=3)}),
    "location nowhere": lambda f: program({"w": f.tensor(location="../../etc/passwd")}),
    "location of codes": lambda f: program({"w": f.tensor(location="\x1b[2J\n" * 999)}),
    "location none": lambda f: program({"w": f.tensor(location=None)}),
    "NumPy object array": lambda f: program({"m": f.state(), "x": array_of("O8", (2,), b"\x00" * 16)}),
    "NumPy object list": lambda f: program({"m": f.state(), "x": array_of("O8", (2,), [1, MARKED])}),
    "NumPy array": lambda f: program({"m": f.state(), "x": array_of("f4", (2,), b"\x00" * 8)}),
    "NumPy array too short": lambda f: program({"m": f.state(), "x": array_of("f4", (2,), b"\x00" * 7)}),
    "NumPy array too large": lambda f: program({"m": f.state(), "x": array_of("f4", (1 << 61,), b"\x00" * 8)}),
    "NumPy array of 2^29": lambda f: program({"m": f.state(), "x": array_of("f4", (1 << 29,), b"\x00" * 8)}),
    "NumPy array negative": lambda f: program({"m": f.state(), "x": array_of("f4", (-2,), b"\x00" * 8)}),
    "NumPy array of records": lambda f: program({"m": f.state(), "x": array_of("V1000000000", (9,), b"")}),
    "NumPy made large": lambda f: program({"m": f.state(), "x": call("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (1 << 29,), b"f")}),
    "NumPy scalar of an object": lambda f: program({"m": f.state(), "x": call("numpy._core.multiarray.scalar", call("numpy.dtype", "O8", False, True), MARKED)}),
    "NumPy scalar": lambda f: program({"m": f.state(), "x": call("numpy.core.multiarray.scalar", call("numpy.dtype", "f8", False, True), b"\x00" * 8)}),
    "NumPy dtype of no sense": lambda f: program({"m": f.state(), "x": call("numpy.dtype", "f4," * 99_999, False, True)}),
    "NumPy of a class of its own": lambda f: program({"m": f.state(), "x": call("numpy._core.multiarray._reconstruct", ORDERED, (0,), b"b")}),
    "bytes by codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "ab", "latin1")}),
    "bytes by a slow codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "\u0627" * 200_000, "idna")}),
    "bytes by no codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "ab", "npylstm_evil")}),
    "bytes by a text codec": lambda f: program({"m": f.state(), "x": call("_codecs.encode", "ab", "zlib_codec")}),
    "bytes of no text": lambda f: program({"m": f.state(), "x": call("_codecs.encode", [], {})}),
    "a large bytearray": lambda f: program({"m": f.state(), "x": call("builtins.bytearray", 1 << 30)}),
    "a large range": lambda f: program({"m": f.state(), "x": call("builtins.range", 1 << 60), "y": call("builtins.list", call("builtins.range", 1 << 28))}),
    "a large set": lambda f: program({"m": f.state(), "x": call("builtins.set", call("builtins.range", 1 << 27))}),
    "a counter": lambda f: program({"m": f.state(), "x": call("collections.Counter", {"a": 3})}),
    "a default dict": lambda f: program({"m": f.state(), "x": call("collections.defaultdict", named("builtins.list"))}),
    "type of type of type": lambda f: program({"m": f.state(), "x": types_of_types(f, 3000)}),
    "tensor of a type": lambda f: program({"w": types_of_types(f, 1)}),
    "a device": lambda f: program({"m": f.state(), "x": call("torch.device", "cuda", 0), "y": call("torch.device", [])}),
    "a dtype": lambda f: program({"m": f.state(), "x": named("torch.float32")}),
    "a dtype that is called": lambda f: program({"m": f.state(), "x": call("torch.float32", 3)}),
}  # fmt: skip
MARKED = MKDIR


def types_of_types(f: Framing, depth: int) -> Ops:
    """Torch's way of pickling a subclass: a function and its arguments, which may be the same."""
    again, kind = named("torch._tensor._rebuild_from_type_v2"), named("torch.Tensor")
    arguments = code((joined(code(f.pid()), PERSID), 0, (3, 4), (4, 1), False, NO_HOOKS))
    inner = MARK + named("torch._utils._rebuild_tensor_v2") + kind + arguments + b"}t"
    return joined(again, (MARK + again + kind) * (depth - 1), inner, b"}t" * (depth - 1), REDUCE)


def array_of(dtype: str, shape: tuple[int, ...], data: Any) -> Ops:
    """NumPy's way of pickling an array."""
    made = call("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (0,), b"b")
    kind = joined(
        call("numpy.dtype", dtype, False, True), code((3, "<", None, None, None, -1, -1, 0)), BUILD
    )
    return joined(made, code((1, shape, kind, False, data)), BUILD)


def harmless_files() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(HARMLESS.items(), FRAMINGS.items()):
        yield (name, framing), f.file(made(f))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", HARMLESS)
def test_refused_or_read_as_it_is(name: str, framing: str, reader: Reader) -> None:
    refused_or_harmless(reader.row(harmless_files, (name, framing)))


def test_a_lazy_sign_is_not_lost(reader: Reader) -> None:
    """Torch writes {"neg": True} behind a view that is to be negated, {"conj": True} likewise."""
    for flag in ("neg", "conj"):
        for f in FRAMINGS.values():
            tensor = f.tensor(rest=(False, NO_HOOKS, {flag: True}))
            outcome = reader.read(f.file(program({"w": tensor})))
            assert outcome.misbehaviour() == []
            if not outcome.error:
                assert flag == "neg"
                assert outcome.tensors == {"w": ["<f4", [3, 4], (-NUMBERS.reshape(3, 4)).tolist()]}


# --- tensors that lie ---------------------------------------------------------------------------------

LONG = 1 << 66_000  # Python refuses to print it
LIES: dict[str, dict[str, Any]] = {
    "count of 2^60": {"count": 1 << 60},
    "count of 2^60, all seen": {"count": 1 << 60, "size": (1 << 60,), "stride": (1,)},
    "count of 2^29, all seen": {"count": 1 << 29, "size": (1 << 29,), "stride": (1,)},
    "count of 2^62": {"count": 1 << 62},
    "count of 2^64 + 12": {"count": (1 << 64) + 12},
    "count of 2^62 + 12": {"count": (1 << 62) + 12},
    "count of 20,000 digits": {"count": LONG},
    "count negative": {"count": -12},
    "count zero": {"count": 0},
    "count one more": {"count": 13},
    "count one less": {"count": 11, "size": (11,), "stride": (1,)},
    "count a float": {"count": 12.5},
    "count nan": {"count": float("nan")},
    "count a text": {"count": "12"},
    "count none": {"count": None},
    "count a list": {"count": [12]},
    "count a tensor": {"count": ZIP.tensor()},
    "doubles": {"kind": named("torch.DoubleStorage")},
    "longs": {"kind": named("torch.LongStorage")},
    "kind a text": {"kind": "FloatStorage"},
    "kind none": {"kind": None},
    "kind a number": {"kind": 4},
    "kind a list": {"kind": []},
    "kind a function": {"kind": named("torch._utils._rebuild_tensor_v2")},
    "kind a class": {"kind": ORDERED},
    "kind an ordered dict": {"kind": NO_HOOKS},
    "key of no data": {"key": "1"},
    "key empty": {"key": ""},
    "key a path": {"key": "../data/0"},
    "key a root": {"key": "/etc/passwd"},
    "key of many": {"key": "0" * MB},
    "key of half a character": {"key": "\ud800"},
    "key of a null": {"key": "0\x00"},
    "key of codes": {"key": "\x1b[2J"},
    "key none": {"key": None},
    "key a list": {"key": []},
    "key a dict": {"key": {}},
    "key a tuple": {"key": ("0",)},
    "key of 20,000 digits": {"key": LONG},
    "word another": {"word": "Storage"},
    "word none": {"word": None},
    "word a list": {"word": []},
    "word a number": {"word": LONG},
    "word empty": {"word": ""},
    "offset one": {"offset": 1},
    "offset at the end": {"offset": 12},
    "offset beyond": {"offset": 13, "size": (), "stride": ()},
    "offset negative": {"offset": -1},
    "offset negative, all there": {"offset": -4, "size": (2, 4)},
    "offset of -2^63": {"offset": -(1 << 63)},
    "offset of 2^62": {"offset": 1 << 62},
    "offset of 2^64": {"offset": 1 << 64},
    "offset of 20,000 digits": {"offset": LONG},
    "offset a float": {"offset": 0.5},
    "offset a text": {"offset": "0"},
    "offset none": {"offset": None},
    "offset a list": {"offset": []},
    "one row more": {"size": (4, 4)},
    "one column more": {"size": (3, 5)},
    "one number more": {"size": (13,), "stride": (1,)},
    "rows negative": {"size": (-3, 4)},
    "columns negative": {"size": (3, -4)},
    "both negative": {"size": (-3, -4)},
    "one negative of none": {"size": (0, -4)},
    "size of 2^62": {"size": (1 << 62,), "stride": (1,)},
    "size of 2^63": {"size": (1 << 63,), "stride": (1,)},
    "size of 2^64 + 3": {"size": ((1 << 64) + 3, 4)},
    "size of 20,000 digits": {"size": (LONG, 4)},
    "size overflows to 0": {"size": (1 << 32, 1 << 32), "stride": (1, 1)},
    "size overflows to 12": {"size": ((1 << 62) + 3, 4), "stride": (4, 1)},
    "product of steps of 0 overflows": {"size": (1 << 32, 1 << 32), "stride": (0, 0)},
    "size of steps of 0 of 2^64": {"size": (1 << 64,), "stride": (0,)},
    "step too wide": {"stride": (5, 1)},
    "step of columns too wide": {"stride": (4, 2)},
    "step negative": {"stride": (-4, 1)},
    "step negative from the end": {"stride": (-4, 1), "offset": 8},
    "step of -1 from the end": {"size": (12,), "stride": (-1,), "offset": 11},
    "steps that even out": {"size": (3, 4), "stride": (-4, 4)},
    "step of 2^62": {"stride": (1 << 62, 1)},
    "step that overflows to 0": {"size": (5, 4), "stride": (1 << 62, 1)},
    "bytes that overflow to 0": {"size": (5, 4), "stride": (1 << 60, 1)},
    "step of -2^63": {"stride": (-(1 << 63), 1)},
    "step of 20,000 digits": {"stride": (LONG, 1)},
    "fewer steps": {"stride": (4,)},
    "more steps": {"stride": (4, 1, 1)},
    "no steps": {"stride": ()},
    "no size": {"size": ()},
    "size a number": {"size": 12, "stride": 1},
    "size none": {"size": None},
    "size a text": {"size": "34", "stride": "41"},
    "size bytes": {"size": b"\x03\x04", "stride": b"\x04\x01"},
    "size a dict": {"size": {3: 0, 4: 0}},
    "size of floats": {"size": (3.0, 4.0)},
    "size of nan": {"size": (float("nan"), 4)},
    "size of texts": {"size": ("3", "4")},
    "size of none": {"size": (None, None)},
    "size of tuples": {"size": ((3,), (4,))},
    "step none": {"stride": None},
    "step of floats": {"stride": (4.0, 1.0)},
    "step of texts": {"stride": ("4", "1")},
    "storage none": {"storage": Ops(NONE)},
    "storage a number": {"storage": Ops(code(0))},
    "storage a text": {"storage": Ops(code("0"))},
    "storage bytes": {"storage": Ops(code(DATA))},
    "storage a dict": {"storage": Ops(b"}")},
    "storage an id": {"storage": Ops(code(ZIP.pid()))},
    "storage a class": {"storage": named("torch.FloatStorage")},
    "storage an ordered dict": {"storage": NO_HOOKS},
    "storage a tensor": {"storage": ZIP.tensor()},
    "id none": {"storage": Ops(NONE + PERSID)},
    "id a text": {"storage": Ops(code("storage") + PERSID)},
    "id a number": {"storage": Ops(code(LONG) + PERSID)},
    "id a list": {"storage": Ops(code(list(ZIP.pid())) + PERSID)},
    "id a dict": {"storage": Ops(code({}) + PERSID)},
    "id a tensor": {"storage": Ops(ZIP.tensor() + PERSID)},
    "id empty": {"storage": Ops(b")" + PERSID)},
    "id of a word": {"storage": Ops(code(("storage",)) + PERSID)},
    "id of four": {"storage": Ops(code(ZIP.pid()[:4]) + PERSID)},
    "id of nine": {"storage": Ops(code((*ZIP.pid(), None, None, None, None)) + PERSID)},
    "id by line": {"storage": Ops(b"Pstorage\n")},
    "id by line of nothing": {"storage": Ops(b"P\n")},
    "id of a module": {"storage": Ops(code(("module", ORDERED, "a.py", "import os")) + PERSID)},
    "parameter of a storage": {"function": "torch._utils._rebuild_parameter"},
}  # fmt: skip


def liars() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(LIES.items(), FRAMINGS.items()):
        yield (name, framing), f.file(program({"w": f.tensor(**made)}))


def liars_beside() -> Iterator[tuple[Any, bytes]]:
    for (name, made), (framing, f) in itertools.product(LIES.items(), FRAMINGS.items()):
        yield (name, framing), f.file(program(f.state(v=f.tensor(**made))))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", LIES)
def test_tensors_that_lie(name: str, framing: str, reader: Reader) -> None:
    refused(reader.row(liars, (name, framing)), "FormatError")
    refused(reader.row(liars_beside, (name, framing)), "FormatError")


DOUBTFUL: dict[str, dict[str, Any]] = {  # torch might take these: refused, or of the shape they say
    "none of 2^62": {"size": (0, 1 << 62), "stride": (1, 1)},
    "none of many": {"size": (1 << 40, 0, 1 << 40), "stride": (1, 1, 1)},
    "none, from afar": {"size": (0,), "stride": (1,), "offset": 1 << 62},
    "none, steps of 2^62": {"size": (0, 3), "stride": (1 << 62, 1 << 62)},
    "one, step of 2^62": {"size": (1,), "stride": (1 << 62,)},
    "many of one": {"size": (1 << 20, 1 << 20), "stride": (0, 0)},
    "many of four": {"size": (1 << 40, 4), "stride": (0, 1)},
    "64 axes": {"size": (1,) * 64, "stride": (1,) * 64},
    "65 axes": {"size": (1,) * 65, "stride": (1,) * 65},
    "20,000 axes": {"size": (1,) * 20_000, "stride": (1,) * 20_000},
    "64 axes of 2": {"size": (2,) * 64, "stride": (0,) * 64},
    "axes of true": {"size": (True, True), "stride": (True, True)},
    "axes of whole floats": {"size": (1.0,), "stride": (1.0,)},
}


@pytest.mark.parametrize("kind", ["Float", "Half"])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", DOUBTFUL)
def test_tensors_that_are_odd(name: str, framing: str, kind: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    count = 12 if kind == "Float" else 24
    tensor = f.tensor(**DOUBTFUL[name], kind=named(f"torch.{kind}Storage"), count=count)
    data = DATA if framing == "zip" or kind == "Float" else None
    made = f.file(program({"w": tensor}), DATA)
    if data is None:  # 24 halves in the 48 bytes
        made = legacy(program({"w": tensor}), data=struct.pack("<q", 24) + DATA)
    outcome = reader.read(made)
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors
        assert outcome.tensors["w"][1] == list(DOUBTFUL[name]["size"])


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_lie_does_not_vouch_for_another_tensor(framing: str, reader: Reader) -> None:
    """Much shown of little is measured by what the file holds, not by what others claim."""
    f = FRAMINGS[framing]
    many = {"size": (1 << 14, 1 << 14), "stride": (0, 0)}
    for lie in (
        {"count": 1 << 60},
        {"count": 1 << 60, "key": "1"},
        {"count": 1 << 60, "key": "data"},
    ):
        for other in ({}, {"size": (0,), "stride": (1,)}, {"size": (1 << 60,), "stride": (1,)}):
            tensors = [("v", f.tensor(**many)), ("w", f.tensor(**{**other, **lie}))]
            for order in (tensors, tensors[::-1]):
                refused(reader.read(f.file(program(dict(order)))))


def test_one_storage_of_two_kinds(reader: Reader) -> None:
    """Torch refuses to write that, and reads it as whatever came first."""
    for f in FRAMINGS.values():
        other = f.tensor(kind=named("torch.IntStorage"))
        outcome = reader.read(f.file(program({"w": f.tensor(), "v": other})))
        assert outcome.misbehaviour() == []
        if not outcome.error:
            assert outcome.tensors
            assert outcome.tensors["w"] == PLAIN["w"]


# How NumPy sees the types that the third form of a tensor may name, and how many fit 48 bytes.
TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2", "int64": "<i8",
         "int32": "<i4", "int16": "<i2", "int8": "i1", "uint8": "u1", "bool": "?"}  # fmt: skip
STORAGES = {"torch.FloatStorage": 12, "torch.HalfStorage": 24, "torch.BFloat16Storage": 24,
            "torch.LongStorage": 6, "torch.BoolStorage": 48, "torch.storage.UntypedStorage": 48}  # fmt: skip


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_type_that_is_not_of_the_storage(framing: str, name: str, reader: Reader) -> None:
    """The third form of a tensor says its type itself: as torch sees those bytes, or refused."""
    f, kind = FRAMINGS[framing], TYPES[name]
    cases, made = list(itertools.product(STORAGES.items(), (0, 1))), []
    data = b"\x01\x00" * 24  # in every type a number, and a truth
    for (storage, count), offset in cases:
        size = 48 // np.dtype(kind).itemsize - offset
        tensor = f.tensor(
            (size,), (1,), offset, kind=named(storage), count=count,
            function="torch._utils._rebuild_tensor_v3",
            rest=(False, NO_HOOKS, named(f"torch.{name}"), None),
        )  # fmt: skip
        pickled = program({"w": tensor})
        stored = struct.pack("<q", count) + data
        made.append(f.file(pickled, data) if framing == "zip" else legacy(pickled, data=stored))
    for ((storage, _), offset), outcome in zip(cases, reader.read_all(made), strict=True):
        assert outcome.misbehaviour() == []
        if not outcome.error:
            assert outcome.tensors
            plain = np.frombuffer(data, kind)[offset:]
            if name == "bfloat16":
                plain = (plain.astype("u4") << 16).view("f4")
            assert (
                outcome.tensors["w"][2]
                == plain.astype("f4" if name == "float16" else plain.dtype).tolist()
            ), storage


NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 12, 1 << 31, 1 << 63, -(1 << 63), 1 << 64, LONG, 0.5, 3.0, "", "0",
    "storage", "a/b", "\ud800", b"", b"0", (), (0,), (3, 4), (1, 1), (1 << 40, 1 << 40), ((),), [], [1], {},
    {"a": 1}, ORDERED, NO_HOOKS, named("torch.FloatStorage"), named("torch.ByteStorage"),
    named("torch.BFloat16Storage"), call("torch.Size", (3, 4)), ZIP.tensor(),
    joined(code(ZIP.pid()), PERSID), joined(code(LEGACY.pid()), PERSID), Ops(b"\x8f"),
]  # fmt: skip
FIELDS = ("kind", "key", "location", "count", "word", "size", "stride", "offset", "storage", "rest")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_any_two_fields_replaced(framing: str, reader: Reader) -> None:
    f, rng, made = FRAMINGS[framing], random.Random(11), []
    todo = [(field, value) for field in FIELDS for value in range(len(NASTY))]
    for field, value in todo:
        also, other = rng.choice(todo)
        fields = {field: NASTY[value], **({also: NASTY[other]} if rng.random() < 0.3 else {})}
        if "rest" in fields:
            fields["rest"] = (fields["rest"], NASTY[other])
        if "storage" in fields:
            fields["storage"] = joined(code(fields["storage"]), PERSID * rng.choice([0, 1]))
        made.append(f.file(program({"w": f.tensor(**fields)})))
    outcomes = zip(made, reader.read_all(made), strict=True)
    assert [(data, found) for data, outcome in outcomes if (found := outcome.misbehaviour())] == []


# --- zips ---------------------------------------------------------------------------------------------


def patched(
    data: bytes, pattern: bytes, change: Callable[[bytearray, int], None], which: int = 0
) -> bytes:
    """Change bytes near the occurrence of a pattern."""
    places = [match.start() for match in re.finditer(re.escape(pattern), data)]
    changed = bytearray(data)
    change(changed, places[which])
    return bytes(changed)


def put(at: int, value: bytes) -> Callable[[bytearray, int], None]:
    def change(data: bytearray, start: int) -> None:
        data[start + at : start + at + len(value)] = value

    return change


def entry(name: bytes, at: int, value: bytes) -> bytes:
    """Change a field of the central directory's entry of a member of the sound zip."""
    start = SOUND["zip"].rindex(name) - 46
    assert SOUND["zip"][start : start + 4] == b"PK\x01\x02"
    return SOUND["zip"][: start + at] + value + SOUND["zip"][start + at + len(value) :]


def twice(name: str, first: bytes, second: bytes) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as target:
        warnings.simplefilter("ignore")
        for key, data in members(SOUND["zip"]).items():
            for part in (first, second) if key == name else (data,):
                target.writestr(key, part)
    return stream.getvalue()


PICKLED = members(SOUND["zip"])["archive/data.pkl"]
OTHER = (NUMBERS + 1).tobytes()
ZIPS: dict[str, tuple[bytes, str]] = {  # name: the file, the error
    "magic only": (b"PK\x03\x04", "FormatError"),
    "magic and noise": (b"PK\x03\x04" + random.Random(0).randbytes(999), "FormatError"),
    "an empty zip": (zipped({}), "FormatError"),
    "no pickle": (archive(None, {"data.pkl": None}), "FormatError"),
    "no data": (archive(None, {"data/0": None}), "FormatError"),
    "no data, but elsewhere": (zipped({**members(archive(None, {"data/0": None})), "other/data/0": DATA}), "FormatError"),
    "data empty": (archive(None, {"data/0": b""}), "FormatError"),
    "data short by a byte": (archive(None, {"data/0": DATA[:-1]}), "FormatError"),
    "data short by a number": (archive(None, {"data/0": DATA[:-4]}), "FormatError"),
    "data long by a byte": (archive(None, {"data/0": DATA + b"a"}), "FormatError"),
    "data long by a number": (archive(None, {"data/0": DATA + DATA[:4]}), "FormatError"),
    "data twice as long": (archive(None, {"data/0": DATA * 2}), "FormatError"),
    "pickle empty": (archive(b""), "FormatError"),
    "pickle of text": (archive(b"import torch\n" * 9), "FormatError"),
    "pickle is a zip": (archive(SOUND_ZIP), "FormatError"),
    "pickle is JSON": (archive(b'{"w": 3}'), "FormatError"),
    "byte order unknown": (archive(None, {"byteorder": b"middle"}), "FormatError"),
    "byte order empty": (archive(None, {"byteorder": b""}), "FormatError"),
    "byte order not text": (archive(None, {"byteorder": b"\xff\xfe"}), "FormatError"),
    "byte order long": (archive(None, {"byteorder": b"little" * MB}), "FormatError"),
    "two archives": (zipped({**members(SOUND["zip"]), "b/data.pkl": PICKLED, "b/data/0": OTHER}), "NpylstmError"),
    "two pickles": (twice("archive/data.pkl", PICKLED, program(MKDIR)), "FormatError"),
    "two pickles the other way": (twice("archive/data.pkl", program(MKDIR), PICKLED), "FormatError"),
    "two data": (twice("archive/data/0", DATA, OTHER), "FormatError"),
    "two byte orders": (twice("archive/byteorder", b"little", b"big"), "FormatError"),
    "checksum of data": (entry(b"archive/data/0", 16, b"abcd"), "FormatError"),
    "checksum of pickle": (entry(b"archive/data.pkl", 16, b"abcd"), "FormatError"),
    "a number changed": (SOUND["zip"].replace(DATA, OTHER), "FormatError"),
    "a name in the pickle changed": (SOUND["zip"].replace(PICKLED, PICKLED.replace(b"_v2", b"_v3")), "FormatError"),
    "encrypted": (entry(b"archive/data/0", 8, b"\x01\x00"), "NpylstmError"),
    "packed unknown": (entry(b"archive/data/0", 10, b"\x63\x00"), "NpylstmError"),
    "packed, so it says": (entry(b"archive/data/0", 10, b"\x08\x00"), "FormatError"),
    "data of 4 GB": (entry(b"archive/data/0", 20, b"\xfe\xff\xff\xff" * 2), "FormatError"),
    "data of 2 GB": (entry(b"archive/data/0", 24, b"\x00\x00\x00\x80"), "FormatError"),
    "data packed to 2 GB": (entry(b"archive/data/0", 20, b"\x00\x00\x00\x80"), "FormatError"),
    "pickle packed to 2 GB": (entry(b"archive/data.pkl", 20, b"\x00\x00\x00\x80"), "FormatError"),
    "pickle of 2 GB": (entry(b"archive/data.pkl", 24, b"\x00\x00\x00\x80"), "FormatError"),
    "data packed to nothing": (entry(b"archive/data/0", 20, bytes(4)), "FormatError"),
    "data smaller": (entry(b"archive/data/0", 20, struct.pack("<2L", 44, 44)), "FormatError"),
    "data of a size to come": (entry(b"archive/data/0", 20, b"\xff" * 8), "FormatError"),
    "data elsewhere": (entry(b"archive/data/0", 42, b"\x00\x00\x00\x00"), "FormatError"),
    "data beyond the end": (entry(b"archive/data/0", 42, b"\xff\xff\xff\x7f"), "FormatError"),
    "pickle beyond the end": (entry(b"archive/data.pkl", 42, b"\xff\xff\xff\x7f"), "FormatError"),
    "name not text": (entry(b"archive/data/0", 46, b"\xff\xfe"), "FormatError"),
    "a name of nobody": (entry(b"archive/data/0", 46, b"another"), "FormatError"),
    "extra fields beyond": (entry(b"archive/data/0", 30, b"\xff\xff"), "FormatError"),
    "end: no entries": (SOUND["zip"][:-14] + bytes(4) + SOUND["zip"][-10:], "NpylstmError"),
    "end: directory of 4 GB": (SOUND["zip"][:-10] + b"\xfe\xff\xff\xff" + SOUND["zip"][-6:], "FormatError"),
    "end: directory elsewhere": (SOUND["zip"][:-6] + b"\xff\xff\xff\x7f" + SOUND["zip"][-2:], "FormatError"),
}  # fmt: skip


def zip_files() -> Iterator[tuple[Any, bytes]]:
    return ((name, data) for name, (data, _) in ZIPS.items())


@pytest.mark.parametrize("name", ZIPS)
def test_damaged_zip(name: str, reader: Reader) -> None:
    outcome, kind = reader.row(zip_files, name), ZIPS[name][1]
    if name == "end: no entries":  # zipfile does not look at the number
        refused_or_harmless(outcome)
    else:
        refused(outcome, kind)


ODD_ZIPS: dict[str, bytes] = {
    "deflated": archive(None, {}, zipfile.ZIP_DEFLATED),
    "bzip2": archive(None, {}, zipfile.ZIP_BZIP2),
    "lzma": archive(None, {}, zipfile.ZIP_LZMA),
    "no folder": zipped({k.removeprefix("archive/"): v for k, v in members(SOUND["zip"]).items()}),
    "two folders": zipped({f"a/{k}": v for k, v in members(SOUND["zip"]).items()}),
    "folder above": zipped({f"../{k}": v for k, v in members(SOUND["zip"]).items()}),
    "bytes before": b"#!/bin/sh\n" + SOUND["zip"],
    "bytes behind": SOUND["zip"] + b"\x00" * 99,
    "a comment": SOUND["zip"][:-2] + b"\x05\x00abcde",
    "version of the future": archive(None, {"version": b"99\n"}),
    "version of no sense": archive(None, {"version": b"\xff" * 99}),
    "no version": archive(None, {"version": None}),
    "more members": archive(None, {"notes.txt": b"a", "../../evil.py": b"import os", "data/": b""}),
    "data nobody needs": archive(None, {"data/1": DATA, "data/evil": b""}),
}


@pytest.mark.parametrize("name", ODD_ZIPS)
def test_odd_zip(name: str, reader: Reader) -> None:
    refused_or_harmless(reader.read(ODD_ZIPS[name]))


# --- legacy files -------------------------------------------------------------------------------------


def around(**changes: Any) -> bytes:
    """A legacy file whose magic number, version, machine or list of storages is another."""
    values: dict[str, Any] = {"keys": ["0"]} | changes
    preamble = [program(values[name], 2) if name in values else PREAMBLE[k]
                for k, name in enumerate(["magic", "version", "machine"])]  # fmt: skip
    return legacy(program(LEGACY.state()), program(values["keys"], 2), preamble=tuple(preamble))


def stored(count: int, data: bytes = DATA) -> bytes:
    return legacy(program(LEGACY.state()), data=struct.pack("<q", count) + data)


LEGACIES: dict[str, bytes] = {
    "another magic": around(magic=0x1950A86A20F9469CFC6D),
    "magic a text": around(magic="torch"),
    "magic of 20,000 digits": around(magic=LONG),
    "magic a list": around(magic=[]),
    "magic a list of itself": legacy(program(LEGACY.state()), preamble=(b"\x80\x02]q\x01h\x01a.", *PREAMBLE[1:])),
    "magic alone": PREAMBLE[0],
    "magic twice": PREAMBLE[0] + SOUND_LEGACY,
    "preamble alone": b"".join(PREAMBLE),
    "version of the future": around(version=1002),
    "version none": around(version=None),
    "version of 20,000 digits": around(version=LONG),
    "keys none": around(keys=None),
    "keys a number": around(keys=3),
    "keys empty": around(keys=[]),
    "keys of numbers": around(keys=[0]),
    "keys of lists": around(keys=[[]]),
    "keys unknown": around(keys=["1"]),
    "keys one more": around(keys=["0", "1"]),
    "no keys": b"".join(PREAMBLE) + program(LEGACY.state()),
    "keys of many": legacy(program(LEGACY.state()), program(["0"] * 100_000, 2)),
    "no data": stored(12, b""),
    "half a count": legacy(program(LEGACY.state()), data=b"\x0c\x00"),
    "data short by a byte": stored(12, DATA[:-1]),
    "data short by a number": stored(12, DATA[:-4]),
    "count of data one less": stored(11),
    "count of data one more": stored(13),
    "count of data one more, and there": stored(13, DATA + b"abcd"),
    "count of data 0": stored(0),
    "count of data -1": stored(-1),
    "count of data -12": stored(-12),
    "count of data 2^62": stored(1 << 62),
    "count of data 2^62 + 12": stored((1 << 62) + 12),
    "count of data 2^29": stored(1 << 29),
    "count of bytes": stored(48),
}  # fmt: skip


@pytest.mark.parametrize("name", LEGACIES)
def test_damaged_legacy_file(name: str, reader: Reader) -> None:
    refused(reader.row(LEGACIES.items, name), "FormatError")


def view(f: Framing, third: Any, data: bytes = DATA, **options: Any) -> bytes:
    """The sixth entry of a legacy id, (key, offset, size): a part of a storage, by torch 0.x."""
    count = len(data) // 4
    pid = (*f.pid(count=count)[:5], third)
    return f.file(program({"w": f.tensor(storage=joined(code(pid), PERSID), **options)}), data)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_views_of_storages(framing: str, reader: Reader) -> None:
    """Two offsets add up: what looks into a storage must not look beyond it into our memory."""
    f = FRAMINGS[framing]
    refused_or_harmless(reader.read(view(f, ("0v", 0, 12))))
    beyond = [("0v", 1, 12), ("0v", 12, 12), ("0v", 11, 12), ("0v", 0, 13), ("0v", 0, 11), ("0v", -1, 12),
              ("0v", -12, 12), ("0v", 0, -1), ("0v", 1 << 62, 12), ("0v", -(1 << 62), 12), ("0v", 12, 0),
              ("0v", 0, 1 << 60), ("0v", LONG, 12), ("0v", 0.5, 12), ("0v", None, 12), ("0v", 0, "12")]  # fmt: skip
    for outcome in reader.read_all(view(f, third) for third in beyond):
        refused(outcome)
    large, everything = bytes(4 * MB), {"size": (MB,), "stride": (1,)}
    for outcome in reader.read_all(
        view(f, ("0v", start, count), large, **everything)
        for start, count in [(1, MB), (MB, MB), (MB // 2, MB), (1 << 40, MB), (MB, 1 << 30)]
    ):
        refused(outcome)
    odd = (3, (), ("0v",), ("0v", 0), "abc", [], {}, ("0v", 0, 12, 0), ([], 0, 12), (None, 0, 12))
    refused_or_harmless(*reader.read_all(view(f, third) for third in odd))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_part_of_a_storage(framing: str, reader: Reader) -> None:
    """As torch.load reads it, or not at all."""
    f = FRAMINGS[framing]
    for start, count in [(0, 6), (6, 6), (1, 6), (2, 8)]:
        outcome = reader.read(view(f, ("0v", start, count), size=(2, 3), stride=(3, 1)))
        assert outcome.misbehaviour() == []
        if not outcome.error:
            part = NUMBERS[start : start + 6].reshape(2, 3).tolist()
            assert outcome.tensors == {"w": ["<f4", [2, 3], part]}


def test_odd_legacy_files(reader: Reader) -> None:
    twice = legacy(
        program(LEGACY.state()), program(["0", "0"], 2), (struct.pack("<q", 12) + DATA) * 2
    )
    odd = (
        twice, SOUND_LEGACY + b"\x00" * 99, SOUND_LEGACY * 2, around(machine={}), around(machine=None),
        around(machine={"little_endian": False}), around(machine=[LONG]), around(keys=("0",)),
        around(keys={"0": 3}), around(version=1001.0), around(version=True),
    )  # fmt: skip
    refused_or_harmless(*reader.read_all(odd))


# --- safetensors --------------------------------------------------------------------------------------

W = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}


def safe(header: Any, data: bytes = DATA, length: int | None = None) -> bytes:
    """8 bytes of length, then JSON, then numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changes: Any) -> bytes:
    """Of one tensor, with other entries; ``...``: left out."""
    return safe({"w": {k: v for k, v in (W | changes).items() if v is not ...}})


def two(first: list[int], second: list[int], shape: tuple[int, ...] = (6,)) -> bytes:
    entries = {
        k: W | {"shape": list(shape), "data_offsets": at} for k, at in [("w", first), ("v", second)]
    }
    return safe(entries)


SAFE = safe({"__metadata__": {"format": "pt"}, "w": W})
SAFETENSORS: dict[str, bytes] = {
    "half a length": SAFE[:4],
    "only a length": SAFE[:8],
    "length 0": safe(b"", length=0),
    "length of 2^63": safe({"w": W}, length=1 << 63),
    "length of 2^64 - 1": safe({"w": W}, length=(1 << 64) - 1),
    "length of 2^31": safe({"w": W}, length=1 << 31),
    "length to the end": safe({"w": W}, length=len(SAFE)),
    "length one less": SAFE[:0] + struct.pack("<Q", len(SAFE) - 8 - 48 - 1) + SAFE[8:],
    "length one more": struct.pack("<Q", len(SAFE) - 8 - 48 + 1) + SAFE[8:],
    "header empty text": safe(b'""'),
    "header a list": safe(b"[]" + b" " * 60),
    "header null": safe(b"null"),
    "header a number": safe(b"3"),
    "header cut": safe(json.dumps({"w": W}).encode()[:-1]),
    "header twice": safe(json.dumps({"w": W}).encode() * 2),
    "header not JSON": safe(b"{w: 3}" + b" " * 60),
    "header of quotes": safe(repr({"w": W}).encode()),
    "header not UTF-8": safe(b'{"\xff": ' + json.dumps(W).encode() + b"}"),
    "header in UTF-16": safe(json.dumps({"w": W}).encode("utf-16")),
    "header very deep": safe(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "header very deep, of objects": safe(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "header of a long number": safe(b'{"w": ' + b"9" * 100_000 + b"}"),
    "header with nan": safe(b'{"w": NaN}'),
    "names twice": safe(b'{"w": %s, "w": %s}' % ((json.dumps(W).encode(),) * 2)),
    "fields twice": safe(b'{"w": {"dtype": "F64", "dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}'),
    "metadata twice": safe(b'{"__metadata__": {}, "__metadata__": {}, "w": %s}' % json.dumps(W).encode()),
    "tensor a list": safe({"w": [3]}),
    "tensor null": safe({"w": None}),
    "tensor a text": safe({"w": "F32"}),
    "tensor empty": safe({"w": {}}),
    "no type": one(dtype=...),
    "no shape": one(shape=...),
    "no place": one(data_offsets=...),
    "type a number": one(dtype=3),
    "type null": one(dtype=None),
    "type a list": one(dtype=["F32"]),
    "type an object": one(dtype={}),
    "wider type": one(dtype="F64"),
    "narrower type": one(dtype="F16"),
    "bytes": one(dtype="U8"),
    "shape a number": one(shape=12),
    "shape null": one(shape=None),
    "shape a text": one(shape="34"),
    "shape an object": one(shape={"3": 4}),
    "shape of floats": one(shape=[3.0, 4.0]),
    "shape of texts": one(shape=["3", "4"]),
    "shape of nulls": one(shape=[None]),
    "shape of lists": one(shape=[[3], [4]]),
    "shape of true": one(shape=[True, 12]),
    "shape negative": one(shape=[-3, -4]),
    "shape negative and none": one(shape=[0, -4]),
    "shape larger": one(shape=[4, 4]),
    "shape smaller": one(shape=[2, 4]),
    "shape none": one(shape=[0]),
    "no axes": one(shape=[]),
    "shape of 2^64 + 3": one(shape=[(1 << 64) + 3, 4]),
    "shape overflows to 0": safe({"w": W | {"shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]}}, b""),
    "shape overflows to 12": one(shape=[(1 << 62) + 3, 4]),
    "bytes overflow to 48": one(shape=[(1 << 62) + 12]),
    "shape of 5,000 digits": one(shape=[10**4200, 4]),
    "shape of 2^29": one(shape=[1 << 29], data_offsets=[0, 1 << 31]),
    "place a number": one(data_offsets=48),
    "place null": one(data_offsets=None),
    "place of one": one(data_offsets=[48]),
    "place of three": one(data_offsets=[0, 48, 48]),
    "place of floats": one(data_offsets=[0.0, 48.0]),
    "place of texts": one(data_offsets=["0", "48"]),
    "place negative": one(data_offsets=[-48, 0]),
    "place negative from the end": one(data_offsets=[0, -1]),
    "place backwards": one(data_offsets=[48, 0]),
    "place beyond": one(data_offsets=[48, 96]),
    "place partly beyond": one(data_offsets=[1, 49]),
    "place of 2^64": one(data_offsets=[1 << 64, (1 << 64) + 48]),
    "place of 4,000 digits": one(data_offsets=[0, 10**4200]),
    "place in the header": one(data_offsets=[-8, 40]),
    "shorter by a byte": SAFE[:-1],
    "longer by a byte": SAFE + b"a",
    "longer by a number": SAFE + b"abcd",
    "longer by a file": SAFE * 2,
    "overlapping": two([0, 24], [12, 36]),
    "overlapping wholly": two([0, 24], [0, 24]),
    "a hole": two([0, 20], [28, 48], (5,)),
    "a hole at the start": one(shape=[11], data_offsets=[4, 48]),
    "a hole at the end": one(shape=[11], data_offsets=[0, 44]),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_damaged_safetensors(name: str, reader: Reader) -> None:
    refused(reader.row(SAFETENSORS.items, name), "FormatError")


@pytest.mark.parametrize(
    "dtype",
    ["f32", "F33", "", "float32", "F8_E4M3", "F8_E5M2", "U16", "U64", "C64", "O", "<f4", "F32 "],
)
def test_element_types_of_safetensors_that_are_not_read(dtype: str, reader: Reader) -> None:
    for size in (1, 2, 4, 8):
        outcome = reader.read(one(dtype=dtype, shape=[48 // size]))
        assert outcome.misbehaviour() == []
        if not outcome.error:  # of a size to compare, and of whole numbers
            assert dtype in ("U16", "U64", "C64")
    refused(reader.read(one(dtype=dtype)))


def test_odd_safetensors(reader: Reader) -> None:
    assert reader.read(SAFE).tensors == PLAIN
    header = json.dumps({"w": W}).encode()
    names = ("\ud800", "\x1b[2J", "__metadata__x", "../w", "a" * 9999, "")
    metadata = ([], 3, {"a": 3}, {"a": {"b": {}}}, {}, None)
    refused_or_harmless(*reader.read_all(safe({"__metadata__": data, "w": W}) for data in metadata))
    refused_or_harmless(*reader.read_all([one(stride=[1, 4]), one(data_offsets=[False, 48])]))
    for data in (safe(header + b" " * 7), safe(b" " + header), safe(header + b"\n"), safe(header + b"\x00"),
                 safe({"w": W, "__metadata__": {}}), safe({"w": W, "v": W | {"shape": [0], "data_offsets": [48, 48]}}),
                 *(safe({name: W}) for name in names)):  # fmt: skip
        outcome = reader.read(data)
        assert outcome.misbehaviour() == []
        if not outcome.error:
            assert outcome.tensors
            assert next(iter(outcome.tensors.values())) == PLAIN["w"]


# --- bombs --------------------------------------------------------------------------------------------


def laughs(leaf: Any = 3, opcode: bytes = b"\x86", levels: int = 60, base: int = 1000) -> Ops:
    """A pair of a pair of a pair ..., each pair twice the same: 2^levels leaves in 700 bytes."""

    def get(k: int) -> bytes:
        return b"j" + struct.pack("<I", base + k)

    def put(k: int) -> bytes:
        return b"r" + struct.pack("<I", base + k) + b"0"

    before, after = (b"", opcode) if opcode == b"\x86" else (opcode + b"(", b"e")
    parts = [code(leaf), put(0)]
    for k in range(levels):
        parts += [before, get(k), get(k), after, put(k + 1)]
    return joined(*parts, get(levels))


def tower(leaf: Any, levels: int = 40) -> Ops:
    """Dicts that hold the next under two names: 2^levels paths."""
    parts = [code(leaf), b"r\x00\x10\x00\x000"]
    for k in range(levels):
        get = b"j" + struct.pack("<I", 0x1000 + k)
        parts += [
            b"}(",
            code("a"),
            get,
            code("b"),
            get,
            b"ur" + struct.pack("<I", 0x1001 + k) + b"0",
        ]
    return joined(*parts, b"j" + struct.pack("<I", 0x1000 + levels))


def deep_tuple(depth: int) -> Ops:
    return Ops(b")" + b"\x85" * depth)


def deep_list(depth: int) -> Ops:
    return Ops(b"]" * depth + b"a" * (depth - 1))


def deep_dict(depth: int, leaf: Any) -> Ops:
    return Ops((b"}" + code("a")) * depth + code(leaf) + b"s" * depth)


def itself(opcode: bytes, item: bytes) -> Ops:
    """A list or dict that holds itself."""
    return Ops(opcode + b"r\x00\x10\x00\x00" + item)


CYCLES = {
    "list": itself(b"]", b"j\x00\x10\x00\x00a"),
    "dict": itself(b"}", code("self") + b"j\x00\x10\x00\x00s"),
    "ordered dict": itself(call(ORDERED), code("self") + b"j\x00\x10\x00\x00s"),
    "list in a tuple": itself(b"]", b"j\x00\x10\x00\x00\x85a"),
    "two lists": Ops(b"]r\x00\x10\x00\x00]r\x01\x10\x00\x00j\x00\x10\x00\x00aa"),
    "state": itself(b"}", b"j\x00\x10\x00\x00" + code({"__class__": 3}) + b"b0"),
}
HEAVY: dict[str, Any] = {
    "laughs of tuples": laughs(), "laughs of lists": laughs(opcode=b"]"), "laughs of texts": laughs("a" * 9999),
    "tower": tower({}), "tuples 5,000 deep": deep_tuple(5_000), "lists 5,000 deep": deep_list(5_000),
    "dicts 5,000 deep": deep_dict(5_000, 3), **{f"cycle of a {k}": v for k, v in CYCLES.items()},
    "a long number": 1 << 2_000_000, "a long text": "a" * MB, "an odd text": "\x1b[2J\ud800" * 9999,
}  # fmt: skip
PLACES: dict[str, Callable[[Framing, Any], bytes]] = {
    "beside": lambda f, x: program({"model": f.state(), "x": x}),
    "beside a tensor": lambda f, x: program({"w": f.tensor(), "x": x}),
    "alone": lambda f, x: program(x),
    "key": lambda f, x: program({"model": f.state(), x: 3}),
    "key twice": lambda f, x: program({"model": f.state(), "x": Ops(b"}(" + (code(x) + code(3)) * 2 + b"u")}),
    "key in a set": lambda f, x: program({"model": f.state(), "x": joined(b"\x8f(", code(x), b"\x90")}),
    "key in a frozen set": lambda f, x: program({"model": f.state(), "x": joined(b"(", code(x), b"\x91")}),
    "key in a tuple": lambda f, x: program({"model": f.state(), (x, 3): 3}),
    "key of a tensor": lambda f, x: program({x: f.tensor()}),
    "id": lambda f, x: program({"w": f.tensor(storage=joined(code(x), PERSID))}),
    "kind": lambda f, x: program({"w": f.tensor(kind=x)}),
    "storage's key": lambda f, x: program({"w": f.tensor(key=x)}),
    "location": lambda f, x: program({"w": f.tensor(location=x)}),
    "count": lambda f, x: program({"w": f.tensor(count=x)}),
    "word": lambda f, x: program({"w": f.tensor(word=x)}),
    "size": lambda f, x: program({"w": f.tensor(size=x)}),
    "sizes": lambda f, x: program({"w": f.tensor(size=(x, x))}),
    "stride": lambda f, x: program({"w": f.tensor(stride=x)}),
    "offset": lambda f, x: program({"w": f.tensor(offset=x)}),
    "storage": lambda f, x: program({"w": f.tensor(storage=Ops(code(x)))}),
    "hooks": lambda f, x: program({"w": f.tensor(rest=(x, x))}),
    "metadata": lambda f, x: program({"w": f.tensor(rest=(False, NO_HOOKS, x))}),
    "function": lambda f, x: program({"model": f.state(), "x": joined(code(x), b")R")}),
    "arguments": lambda f, x: program({"model": f.state(), "x": joined(ORDERED, code(x), REDUCE)}),
    "argument": lambda f, x: program({"model": f.state(), "x": call(ORDERED, x)}),
    "sizes of torch": lambda f, x: program({"model": f.state(), "x": call("torch.Size", x)}),
    "refused argument": lambda f, x: program({"model": f.state(), "x": call("net.Net", x)}),
    "build": lambda f, x: program({"model": f.state(), "x": joined(call(ORDERED), code(x), BUILD)}),
    "refused build": lambda f, x: program({"model": f.state(), "x": joined(call("net.Net"), code(x), BUILD)}),
    "module": lambda f, x: program({"model": f.state(), "x": stack_named(x, "a")}),
    "name": lambda f, x: program({"model": f.state(), "x": stack_named("a", x)}),
}  # fmt: skip


def heavy_files() -> Iterator[tuple[Any, bytes]]:
    for (name, value), (place, made) in itertools.product(HEAVY.items(), PLACES.items()):
        yield (name, place), ZIP.file(made(ZIP, value))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_values_anywhere(name: str, place: str, reader: Reader) -> None:
    """Whoever hashes, compares, copies, prints or walks them in full never comes back."""
    outcome = reader.row(heavy_files, (name, place), trace=False)
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors is not None
        assert [*outcome.tensors.values()] == [*PLAIN.values()]


AROUND: dict[str, Callable[[Any], bytes]] = {
    "magic": lambda x: around(magic=x), "version": lambda x: around(version=x),
    "machine": lambda x: around(machine=x), "keys": lambda x: around(keys=x), "key": lambda x: around(keys=[x]),
}  # fmt: skip


def heavy_around() -> Iterator[tuple[Any, bytes]]:
    for (name, value), (place, made) in itertools.product(HEAVY.items(), AROUND.items()):
        yield (name, place), made(value)


@pytest.mark.parametrize("place", AROUND)
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_values_around_the_legacy_pickle(name: str, place: str, reader: Reader) -> None:
    outcome = reader.row(heavy_around, (name, place), trace=False)
    assert outcome.misbehaviour() == []
    if place in ("magic", "keys", "key"):
        refused(outcome, "FormatError")


def many(count: int, item: bytes) -> bytes:
    """A list of as many, made 1000 at a time as pickle does."""
    return b"](" + (item * 1000 + b"e(") * (count // 1000) + b"e"


def memoized(value: Any, index: int = 500) -> bytes:
    return code(value) + b"r" + struct.pack("<I", index) + b"0"


def got(index: int = 500) -> Ops:
    return Ops(b"j" + struct.pack("<I", index))


def over_and_over(value: Any, item: Callable[[Ops], Any], count: int) -> bytes:
    """A program with one value that is used many times."""
    body = b"".join(code(f"t{k}") + code(item(got())) for k in range(count))
    return b"\x80\x04" + memoized(value) + b"}(" + body + b"u."


def views(f: Framing, kind: str) -> bytes:
    """A thousand tensors of one storage of 8 MB; widened or copied they take gigabytes."""
    count = 2 * MB if kind == "Float" else 4 * MB
    storage = joined(code(f.pid(kind=named(f"torch.{kind}Storage"), count=count)), PERSID)
    body = b"".join(
        code(f"t{k}") + f.tensor((count - k,), (1,), k, storage=got()) for k in range(1000)
    )
    pickled = b"\x80\x04" + memoized(storage) + b"}(" + body + b"u."
    if f.name == "zip":
        return f.file(pickled, bytes(8 * MB))
    return legacy(pickled, data=struct.pack("<q", count) + bytes(8 * MB))


def candidates(f: Framing) -> bytes:
    """Thirty thousand names of one state_dict of five thousand tensors."""
    entries = b"".join(code(f"t{k}") + got(501) for k in range(5000))
    state = Ops(b"}(" + entries + b"u")
    body = b"".join(code(f"c{k}") + got() for k in range(30_000))
    return b"\x80\x04" + memoized(f.tensor(), 501) + memoized(state) + b"}(" + body + b"u."


def nearly(f: Framing) -> bytes:
    """The same, but none is a state_dict: the last entry of each is a number."""
    entries = b"".join(code(f"t{k}") + got(501) for k in range(5000)) + code("last") + code(3)
    state = Ops(b"}(" + entries + b"u")
    body = b"".join(code(f"c{k}") + got() for k in range(30_000))
    return b"\x80\x04" + memoized(f.tensor(), 501) + memoized(state) + b"}(" + body + b"u."


def long_path(leaf: Any) -> Ops:
    """Twenty-five dictionaries, one in the other, with names of 1000 characters."""
    return Ops((b"}" + code("a" * 1000)) * 25 + code(leaf) + b"s" * 25)


def filler(opcode: bytes, count: int) -> Pickled:
    return lambda f: b"\x80\x04" + opcode * count + program(f.state())[2:]


BOMBS: dict[str, Pickled] = {  # pickles
    "empty lists": filler(b"]", 24 * MB),

    "marks": filler(b"(", 24 * MB),
    "a hundred thousand marks": filler(b"(", 100_000),
    "floats": filler(b"G" + bytes(8), 4 * MB),
    "texts": filler(b"X\x02\x00\x00\x00\xc3\xb6", 4 * MB),
    "tuples": filler(b"N\x85", 15 * MB),

    "put and get": filler(b"]\x940", 10 * MB),
    "marks and tuples on a long stack": lambda f: b"\x80\x04" + b"N" * 100_000 + b"(t0" * 100_000 + program(f.state())[2:],
    "pops to marks on a long stack": lambda f: b"\x80\x04" + b"N" * 100_000 + b"(1" * 100_000 + program(f.state())[2:],
    "marks closed": lambda f: b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b"0" + program(f.state())[2:],
    "ordered dicts of one list": lambda f: over_and_over(
        [*(Ops(code((f"k{k}", 3))) for k in range(20_000))], lambda x: call(ORDERED, x), 2000),
    "sizes of one tuple": lambda f: over_and_over((3,) * 20_000, lambda x: call("torch.Size", x), 20_000),
    "tensors of one long size": lambda f: over_and_over(
        (1,) * 20_000, lambda x: f.tensor(size=x, stride=x), 20_000),
    "builds of one dict": lambda f: over_and_over(
        {f"k{k}": 3 for k in range(20_000)}, lambda x: joined(call(ORDERED), x, BUILD), 2000),
    "sets of one list": lambda f: over_and_over([*range(20_000)], lambda x: call("builtins.set", x), 2000),
    "one text for a hundred thousand names": lambda f: over_and_over(
        "a" * MB, lambda x: stack_named(x, "b"), 1000),
    "a thousand names of a megabyte": lambda f: b"\x80\x04" + memoized("a" * MB) + b"".join(
        stack_named(got(), f"b{k}") + b"0" for k in range(1000)) + program(f.state())[2:],
    "thirty thousand names": lambda f: b"\x80\x04" + b"".join(
        named(f"os.system{k}") + b"0" for k in range(30_000)) + program(f.state())[2:],
    "a path 20,000 long": lambda f: program(deep_dict(20_000, f.state())),
    "a path of long names": lambda f: b"\x80\x04" + memoized("a" * 99_999) + b"".join(
        b"}" + got() for _ in range(900)) + code(f.state()) + b"s" * 900 + b".",
    "2^40 paths": lambda f: program(tower(f.state())),
    "2^40 paths to nothing": lambda f: program(tower(3)),
    "paths of 2^40 beside": lambda f: program({"model": f.state(), "x": tower({"w": 3})}),
    "a list of 2^40": lambda f: program({"model": f.state(), "x": laughs(f.state(), b"]", 40)}),
    "many candidates": candidates,
    "many that are nearly": nearly,
    "ordered dicts of one list, by their type": lambda f: over_and_over(
        [*(Ops(code((f"k{k}", 3))) for k in range(20_000))], lambda x: call(
            "torch._tensor._rebuild_from_type_v2", ORDERED, named("torch.Tensor"), (x,), {}), 2000),
    "one hundred thousand arguments": lambda f: over_and_over(
        (3,) * 100_000, lambda x: joined(named("torch.device"), x, REDUCE), 10_000),
    "integers of one hash for keys": lambda f: program(
        {"model": f.state(), "x": Ops(b"}(" + b"".join(
            whole(k * ((1 << 61) - 1)) + NONE for k in range(60_000)) + b"u")}),
    "integers of one hash in a set": lambda f: program(
        {"model": f.state(), "x": Ops(b"\x8f(" + b"".join(
            whole(k * ((1 << 61) - 1)) for k in range(60_000)) + b"\x90")}),
    "a long path to many": lambda f: program({"model": f.state(), "x": long_path(
        Ops(b"}(" + b"".join(code(f"{k}") + got() for k in range(60_000)) + b"u"))}).replace(
            b"\x80\x04", b"\x80\x04" + memoized([]), 1),
    "a long integer, pushed often": lambda f: over_and_over(1 << 80_000, lambda x: [x, x], 2000),
    "a long integer for each offset": lambda f: over_and_over(
        1 << 800_000, lambda x: f.tensor(offset=x, size=(x, x)), 2000),
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_cheap(name: str, framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]
    pickled = BOMBS[name](f)
    outcome = reader.read(f.file(pickled), trace=False)
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors
        assert PLAIN["w"] in outcome.tensors.values()


@pytest.mark.parametrize("opcode", [b"]", b"}", b"\x8f", b"N\x85", b"]\x940", b"J\x00\x00\x00\x7f"])
def test_a_small_zip_of_a_long_pickle_is_cheap(opcode: bytes, reader: Reader) -> None:
    """Twelve megabytes of opcodes that deflate to as many kilobytes."""
    pickled = filler(opcode, 12 * MB // len(opcode))(ZIP)
    data = archive(pickled, method=zipfile.ZIP_DEFLATED)
    assert len(data) < MB // 8
    refused_or_harmless(reader.read(data, trace=False))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("kind", ["Float", "Half", "BFloat16"])
def test_views_of_one_storage_are_cheap(kind: str, framing: str, reader: Reader) -> None:
    outcome = reader.read(views(FRAMINGS[framing], kind))
    assert outcome.misbehaviour() == []
    if not outcome.error:
        assert outcome.tensors
        assert len(outcome.tensors) == 1000


def zeros_deflated(count: int) -> bytes:
    """Deflate many zeros, one packed megabyte many times over."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return megabyte + again * (count // MB - 1) + packer.flush()


def raw_zip(parts: Mapping[str, tuple[int, int, int, bytes]], copies: int = 1) -> bytes:
    """Members given packed: method, checksum, size, bytes; the list of them many times over."""
    body, directory = io.BytesIO(), io.BytesIO()
    for name, (method, checksum, size, content) in parts.items():
        at, encoded = body.tell(), name.encode()
        common = struct.pack(
            "<5H3L2H", 20, 0, method, 0, 33, checksum, len(content), size, len(encoded), 0
        )
        body.write(b"PK\x03\x04" + common + encoded + content)
        directory.write(b"PK\x01\x02\x14\x00" + common)
        directory.write(struct.pack("<3H2L", 0, 0, 0, 0, at) + encoded)
    listed = directory.getvalue() * copies
    count = min(len(parts) * copies, 65_535)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(listed), body.tell(), 0)
    return body.getvalue() + listed + end


ZEROS = bytes(MB)


def plain(data: bytes) -> tuple[int, int, int, bytes]:
    return zipfile.ZIP_STORED, zlib.crc32(data), len(data), data


def zip_bomb(member: str, size: int, claimed: int | None = None, pickled: bytes = PICKLED) -> bytes:
    parts = {name: plain(data) for name, data in members(archive(pickled)).items()}
    packed = zeros_deflated(size)
    return raw_zip(
        parts | {f"archive/{member}": (8, 0, size if claimed is None else claimed, packed)}
    )


def of_floats(count: int) -> bytes:
    return program({"w": ZIP.tensor((count,), (1,), count=count)})


def nested_members(count: int, size_of_all: int) -> bytes:
    """Stored members, each within the one before, each nearly as large as the file."""
    tail = bytes(size_of_all)
    inner, places = tail, []
    for k in reversed(range(count)):
        name = f"archive/data/{k}".encode()
        size = len(inner)
        header = struct.pack(
            "<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(inner), size, size, len(name), 0
        )
        places.append((name, zlib.crc32(inner), size, len(inner)))
        inner = header + name + inner
    tensors = {
        f"t{k}": ZIP.tensor((size // 4,), (1,), key=name.decode().removeprefix("archive/data/"),
                            kind=named("torch.ByteStorage"), count=size)
        for k, (name, _, size, _) in enumerate(places)
    }  # fmt: skip
    pickled, directory, body = program(tensors), io.BytesIO(), io.BytesIO()
    name = b"archive/data.pkl"
    common = struct.pack(
        "<5H3L2H", 20, 0, 0, 0, 33, zlib.crc32(pickled), len(pickled), len(pickled), len(name), 0
    )
    body.write(b"PK\x03\x04" + common + name + pickled)
    directory.write(b"PK\x01\x02\x14\x00" + common + struct.pack("<3H2L", 0, 0, 0, 0, 0) + name)
    start = body.tell()
    body.write(inner)
    for name, checksum, size, behind in places:
        at = start + len(inner) - behind - 30 - len(name)
        common = struct.pack("<5H3L2H", 20, 0, 0, 0, 33, checksum, size, size, len(name), 0)
        directory.write(
            b"PK\x01\x02\x14\x00" + common + struct.pack("<3H2L", 0, 0, 0, 0, at) + name
        )
    listed = directory.getvalue()
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count + 1, count + 1, len(listed), body.tell(), 0
    )
    return body.getvalue() + listed + end


ZIP_BOMBS: dict[str, Callable[[], bytes]] = {
    "data": lambda: zip_bomb("data/0", 2048 * MB, pickled=of_floats(512 * MB)),
    "data of a lying size": lambda: zip_bomb("data/0", 2048 * MB, 48),
    "data of a size that suits": lambda: zip_bomb(
        "data/0", 1024 * MB, 2048 * MB, of_floats(512 * MB)
    ),
    "pickle": lambda: zip_bomb("data.pkl", 2048 * MB),
    "pickle of a lying size": lambda: zip_bomb("data.pkl", 1024 * MB, 500),
    "byte order": lambda: zip_bomb("byteorder", 2048 * MB),
    "byte order of a lying size": lambda: zip_bomb("byteorder", 1024 * MB, 6),
    "version": lambda: zip_bomb("version", 2048 * MB),
    "members in members": lambda: nested_members(150, 4 * MB),
    "a few members in members": lambda: nested_members(14, 32 * MB),
    "a million members": lambda: raw_zip(
        {n: plain(d) for n, d in members(SOUND["zip"]).items()}, 150_000
    ),
}


@pytest.mark.parametrize("name", ZIP_BOMBS)
def test_a_zip_bomb_is_cheap(name: str, reader: Reader) -> None:
    outcome = reader.read(ZIP_BOMBS[name]())
    if name == "version":  # nobody needs to read it
        refused_or_harmless(outcome)
    else:
        refused(outcome, "FormatError")


def fat(entries: int) -> bytes:
    """JSON that takes thirty times as much in memory."""
    return b'{"w":[' + b'{"":0},' * entries + b"0]}"


SAFE_BOMBS: dict[str, Callable[[], bytes]] = {
    "fat header": lambda: safe(fat(5 * MB)),
    "fat header of 3 MB": lambda: safe(fat(MB // 2)),
    "fat metadata": lambda: safe(b'{"__metadata__":' + fat(5 * MB) + b"}"),
    "fat header of 30 MB": lambda: safe(fat(4 * MB)),
    "a hundred thousand axes": lambda: one(shape=[1] * 100_000 + [12]),
    "a hundred thousand axes, and none": lambda: one(shape=[1] * 100_000 + [0], data_offsets=[0, 0]),
    "axes of 4,000 digits": lambda: one(shape=[10**4000] * 700),
    "axes of 4,000 digits and none": lambda: one(shape=[*[10**4000] * 700, 0]),
    "a header of spaces": lambda: safe(b"{" + b" " * (60 * MB) + b"}"),
    "one place five thousand times": lambda: safe(
        {f"t{k}": {"dtype": "F16", "shape": [2 * MB], "data_offsets": [0, 4 * MB]} for k in range(5_000)}, bytes(4 * MB)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFE_BOMBS)
def test_a_safetensors_bomb_is_cheap(name: str, reader: Reader) -> None:
    refused(reader.read(SAFE_BOMBS[name]()), "FormatError")


SPARSE: dict[str, bytes] = {  # what stands before three gigabytes of nothing
    "nothing": b"",
    "zip": b"PK\x03\x04",
    "legacy": b"".join(PREAMBLE),
    "pickle": b"\x80\x02",
    "text of nothing": b"".join(PREAMBLE) + b"\x80\x04\x8d" + struct.pack("<Q", 2 << 30),
    "bytes of nothing": b"".join(PREAMBLE) + b"\x80\x04\x8e" + struct.pack("<Q", 2 << 30),
    "long of nothing": b"".join(PREAMBLE) + b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1),
    "line of nothing": b"".join(PREAMBLE) + b"\x80\x02V",
    "line of a number": b"".join(PREAMBLE) + b"\x80\x02I",
    "magic of nothing": b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1),
    "header of nothing": struct.pack("<Q", 2 << 30) + b'{"w": ',
    "sound safetensors": SAFE,
    "sound legacy": SOUND_LEGACY,
}


@pytest.mark.parametrize("name", SPARSE)
def test_three_gigabytes_of_nothing(name: str, reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    path.write_bytes(SPARSE[name])
    os.truncate(path, 3 << 30)
    if name == "sound legacy":  # torch does not mind what comes behind
        refused_or_harmless(reader.read(path))
    else:
        refused(reader.read(path), "FormatError")


def test_texts_of_nothing(reader: Reader, tmp_path: Path) -> None:
    """Fifty texts of 16 MB, none of which is on the disk."""
    path, size = tmp_path / "large.pt", 16 * MB - 5
    with open(path, "wb") as stream:
        stream.write(b"".join(PREAMBLE) + b"\x80\x04](")
        for _ in range(50):
            stream.write(b"X" + struct.pack("<I", size))
            stream.seek(size, os.SEEK_CUR)
        stream.write(b"e.")
    refused(reader.read(path))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_storages_that_nobody_asks_for_are_not_read(
    framing: str, reader: Reader, tmp_path: Path
) -> None:
    """Two thirds of a checkpoint are the optimizer's. Here, a gigabyte that is not on the disk."""
    f, path, size = FRAMINGS[framing], tmp_path / "large.pt", 1 << 30
    large = f.tensor((size // 4,), (1,), key="1", count=size // 4)
    pickled = program({"model": f.state(), "optimizer": [large]})
    with open(path, "wb") as stream:
        if framing == "legacy":
            stream.write(b"".join(PREAMBLE) + pickled + program(["0", "1"], 2))
            stream.write(struct.pack("<q", 12) + DATA + struct.pack("<q", size // 4))
            stream.truncate(stream.tell() + size)
        else:
            parts = {name: plain(data) for name, data in members(archive(pickled)).items()}
            checksum = 0
            for _ in range(size // MB):
                checksum = zlib.crc32(ZEROS, checksum)
            listed = raw_zip(parts | {"archive/data/1": (zipfile.ZIP_STORED, checksum, size, b"")})
            start = listed.index(b"PK\x01\x02")
            directory = bytearray(listed[start:])
            place = bytes(directory).index(b"archive/data/1") - 46
            struct.pack_into("<L", directory, place + 20, size)
            end = len(directory) - 22
            struct.pack_into("<L", directory, end + 16, start + size)
            local = bytearray(listed[:start])
            struct.pack_into("<L", local, local.index(b"archive/data/1") - 12, size)
            stream.write(local)
            stream.seek(size, os.SEEK_CUR)
            stream.write(directory)
    if framing == "zip":
        with zipfile.ZipFile(path) as sound, sound.open("archive/data/1") as member:
            assert member.read(9) == bytes(9)
    outcome = reader.read(path)
    assert outcome.misbehaviour() == []
    assert outcome.tensors == PLAIN


def test_paths_that_are_no_files(reader: Reader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    paths = [tmp_path / name for name in (".", "none", "loop", "pipe")]
    for path in (*paths, Path("/dev/zero"), Path("/dev/null")):
        outcome = reader.read(path, patience=10)  # seconds: whoever opens a pipe waits
        if "OSError" not in outcome.error:
            refused(outcome)
        assert outcome.seconds < 1
        assert outcome.megabytes < 50


# --- damage anywhere ----------------------------------------------------------------------------------


def realistic() -> dict[str, Any]:
    """A checkpoint as people save them, small."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.LSTM(2, 3), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"model_state": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}


def expected(thing: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {k: ["<f4", list(t.shape), t.tolist()] for k, t in thing.items()}


CHECKPOINT = realistic()
STATE = expected(CHECKPOINT["model_state"])
WHOLE: dict[str, bytes] = {
    "zip": saved(CHECKPOINT), "legacy": saved(CHECKPOINT, "legacy"),
    "safetensors": safe({"__metadata__": {"format": "pt"}, "w": W | {"data_offsets": [0, 48]},
                         "v": W | {"dtype": "F16", "shape": [2, 6], "data_offsets": [48, 72]}}, DATA + DATA[:24]),
}  # fmt: skip
FUZZ = settings(derandomize=True, deadline=None, max_examples=15, database=None)


def changes(size: int) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    """Ten times a few bytes and what to flip in them: ten files cost hardly more than one."""
    place = st.tuples(st.integers(0, size - 1), st.integers(1, 255))
    flips = st.lists(place, min_size=1, max_size=4, unique_by=lambda pair: pair[0])
    return st.lists(flips, min_size=10, max_size=10)


def changed(data: bytes, flips: list[tuple[int, int]]) -> bytes:
    other = bytearray(data)
    for at, bits in flips:
        other[at] ^= bits
    return bytes(other)


@pytest.mark.parametrize("form", WHOLE)
def test_whole_again(form: str, reader: Reader) -> None:
    """What is cut and flipped below was sound before."""
    outcome = reader.read(WHOLE[form])
    assert outcome.misbehaviour() == []
    assert outcome.error == []
    assert form == "safetensors" or outcome.tensors == STATE


@pytest.mark.parametrize("form", WHOLE)
def test_truncated(form: str, tmp_path: Path) -> None:
    data, path = WHOLE[form], tmp_path / "checkpoint.pt"

    @settings(FUZZ, max_examples=150)
    @given(st.integers(0, len(data) - 1))
    @example(0)
    @example(1)
    @example(8)
    @example(len(data) - 1)
    def cut(size: int) -> None:
        path.write_bytes(data[:size])
        with pytest.raises(npylstm.FormatError):
            read_checkpoint(path)

    cut()


@pytest.mark.parametrize("data", [*SOUND.values(), SAFE], ids=[*SOUND, "safetensors"])
def test_truncated_at_any_byte(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(npylstm.FormatError):
            read_checkpoint(path)


@pytest.mark.parametrize("form", WHOLE)
def test_flipped_bytes(form: str, reader: Reader) -> None:
    """Zips have checksums. Elsewhere a number may change, but nothing worse may happen."""
    data, refusals = WHOLE[form], 0

    @FUZZ
    @given(changes(len(data)))
    def flip(some: list[list[tuple[int, int]]]) -> None:
        nonlocal refusals
        for outcome in reader.read_all(changed(data, flips) for flips in some):
            assert outcome.misbehaviour() == []
            refusals += bool(outcome.error)
            assert form != "zip" or outcome.error or outcome.tensors == STATE

    flip()
    assert refusals > 20


@pytest.mark.parametrize("name", ["small", "realistic"])
def test_flipped_bytes_of_a_pickle_whose_checksum_is_mended(name: str, reader: Reader) -> None:
    parts = members(SOUND["zip"] if name == "small" else WHOLE["zip"])
    pickled = parts["archive/data.pkl"]

    @FUZZ
    @given(changes(len(pickled)))
    def flip(some: list[list[tuple[int, int]]]) -> None:
        mended = (parts | {"archive/data.pkl": changed(pickled, flips)} for flips in some)
        for outcome in reader.read_all(map(zipped, mended)):
            assert outcome.misbehaviour() == []

    flip()


def test_flipped_bits_of_the_directory_of_a_zip(reader: Reader) -> None:
    """Where its 46-byte entries and its end are."""
    data = SOUND["zip"]
    start = data.index(b"PK\x01\x02")
    flips = [changed(data, [(at, 1 << at % 8)]) for at in range(start, len(data))]
    refused_or_harmless(*reader.read_all(flips))


SIMPLE = b"()]}N.012t\x85\x86\x87RQbsueald\x81\x92\x8f\x90\x91\x88\x89\x94o\x93\x97\x98"
OPCODES: list[bytes] = [
    *(bytes([b]) for b in SIMPLE), *(bytes([b]) for b in b"RQbt(}]sua" * 2), b"q\x00", b"q\x01", b"h\x00", b"h\x01",
    b"j\x00\x00\x00\x00", b"r\x01\x00\x00\x00", b"g0\n", b"p1\n", b"K\x00", b"K\x0c", b"J\xff\xff\xff\xff",
    b"\x8a\x01\x04", b"\x8a\x09" + b"\x00" * 8 + b"\x01", b"G" + bytes(8), b"I5\n", b"L5L\n", b"\x80\x02", b"\x80\x05",
    code("w"), code("storage"), code("0"), code("cpu"), code("torch"), code("FloatStorage"), code(b"ab"),
    code((3, 4)), code((4, 1)), code(ZIP.pid()), code(ZIP.pid()) + PERSID, ORDERED, NO_HOOKS,
    named("torch._utils._rebuild_tensor_v2"), named("torch._utils._rebuild_parameter"), named("torch.Size"),
    named("torch.FloatStorage"), named("os.mkdir"), ZIP.tensor(), code({"w": ZIP.tensor()}), b"ios\nmkdir\n",
    b"Pa\n", b"\x82\xf0", b"\x96" + struct.pack("<Q", 1) + b"a", b"\x95" + bytes(8), code("executed"), b"S'a'\n", b"Va\n",
]  # fmt: skip


@pytest.mark.parametrize("framing", FRAMINGS)
def test_any_sequence_of_opcodes(framing: str, reader: Reader) -> None:
    f = FRAMINGS[framing]

    @FUZZ
    @given(
        st.lists(
            st.lists(st.sampled_from(OPCODES), min_size=1, max_size=30), min_size=10, max_size=10
        )
    )
    def run(programs: list[list[bytes]]) -> None:
        files = [f.file(b"\x80\x04" + b"".join(opcodes) + STOP) for opcodes in programs]
        for opcodes, outcome in zip(programs, reader.read_all(files), strict=True):
            assert outcome.misbehaviour() == []
            assert outcome.error or STOP in opcodes or named("os.mkdir") not in opcodes

    run()


@settings(FUZZ, max_examples=150)
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04", b"\x01" + bytes(7) + b"{",
                                                            b"".join(PREAMBLE), PREAMBLE[0], b"\x80\x04\x95"]))  # fmt: skip
def test_noise(data: bytes, start: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.pt"
    path.write_bytes(start + data)
    with pytest.raises(npylstm.NpylstmError):
        read_checkpoint(path)


@settings(FUZZ, max_examples=150)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-1, 50)
        | st.floats()
        | st.sampled_from(["F32", "F16", "w", ""]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_header_of_safetensors(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    for document in (
        header,
        {"w": header},
        {"w": W, "v": header},
        {"__metadata__": header, "w": W},
    ):
        path.write_bytes(safe(document))
        with contextlib.suppress(npylstm.NpylstmError):
            found = read_checkpoint(path).tensors
            assert "w" in found
            assert found["w"].nbytes in (48, 96)
