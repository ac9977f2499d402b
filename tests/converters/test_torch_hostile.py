"""Malicious PyTorch files: programs in their pickles are refused by name and never run."""

from __future__ import annotations

import contextlib
import copyreg
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_reader import PLAIN, Reader, refused, refused_or_harmless
from torch import nn
from torch_pickles import (
    FRAMINGS,
    LEGACY,
    MARK,
    MKDIR,
    NO_HOOKS,
    NONE,
    NUMBERS,
    ORDERED,
    PERSID,
    PREAMBLE,
    REDUCE,
    SOUND,
    SOUND_LEGACY,
    SOUND_ZIP,
    Ops,
    archive,
    call,
    code,
    joined,
    legacy,
    members,
    named,
    program,
    stack_named,
    zipped,
)

from npylstm.cli import main


@pytest.mark.parametrize(
    ("order", "sign"),
    [("waste", "800 MB"), ("hang", "SIGXCPU"), ("crash", "SIGSEGV"), ("hash", "SIGSEGV"),
     ("disobey", "find_class"), ("disobey", "executed"), ("disobey", "os.mkdir"), ("disobey", "written")],
)  # fmt: skip
def test_the_worker_notices(order: str, sign: str, reader: Reader) -> None:
    assert sign in "\n".join(reader.read(Path(order)).misbehaviour())


def test_the_worker_notices_without_a_trace(reader: Reader) -> None:
    assert re.match(r"4\d\d MB", "\n".join(reader.read(Path("touch"), trace=False).misbehaviour()))


# --- what is written by hand is sound ---------------------------------------------------------------


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
