"""The jit policy: in one place, and a cache that never costs an answer."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from npylstm.engine import code_cache
from npylstm.runtime import numba_engine

PREDICT = """
import os, sys
import numpy, npylstm
from npylstm.engine import code_cache, linking
if "KEY" in os.environ:  # as if nothing had been compiled yet
    code_cache._key = lambda: os.environ["KEY"]
if "LLVM" in os.environ:
    linking._link_elf = linking._link_with_llvm
model = npylstm.load("models/sine_keras/sine.npz", "numba")
print(model.predict(numpy.ones((1, 5, 1), numpy.float32)).tobytes().hex())
print(code_cache.cache_folder())
print([name for name in ("numba", "llvmlite") if name in sys.modules])
"""


def run(root: Path, **environment: str) -> list[str]:
    """Predict in a process of its own: the result, where kernels are kept, what was imported."""
    result = subprocess.run(
        [sys.executable, "-c", PREDICT], capture_output=True, text=True, check=True, cwd=root,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert "Traceback" not in result.stderr
    return result.stdout.splitlines()


def test_the_policy_is_in_one_file(root: Path) -> None:
    raw = re.compile(r"\b(n?jit|vectorize|guvectorize|cfunc|compile_extra)\(.*\bnumba|"
                     r"\bnumba\.(n?jit|vectorize|guvectorize|cfunc)|import.*\bnjit\b|"
                     r"compile_extra\(|fastmath\s*=")  # fmt: skip
    users = {
        path.name
        for folder in ("npylstm", "converters")
        for path in (root / folder).rglob("*.py")
        if raw.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"jit.py"}


def loads_no_compiler() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


def test_the_second_process_finds_the_code_of_the_first(root: Path, tmp_path: Path) -> None:
    first = run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new")
    second = run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new")
    assert first[0] == second[0]
    assert first[1] == second[1] == str(tmp_path / "npylstm-new")
    assert "numba" in first[2]
    assert second[2] == ("[]" if loads_no_compiler() else "['llvmlite']")


def test_code_is_linked_here_as_by_llvm(root: Path, tmp_path: Path) -> None:
    here = run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new")
    there = run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new", LLVM="1")
    assert here[0] == there[0]
    assert there[2] == "['llvmlite']"


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None])
def test_a_damaged_cache_is_compiled_around(
    root: Path, tmp_path: Path, damage: bytes | None
) -> None:
    good = run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new")
    damaged = list(tmp_path.rglob("*.o"))
    for path in damaged:
        code = bytearray(path.read_bytes())
        code[len(code) // 2] ^= 1
        path.write_bytes(code if damage is None else damage)
    again = run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new")
    assert len(damaged) > 2
    assert again[0] == good[0]
    assert "numba" in again[2]
    assert run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new")[2] != again[2]  # mended


# A read-only installation, in which no folder will do: every attempt to write fails.
NO_FOLDER = """
import tempfile
def refuse(*args, **kwargs): raise PermissionError(13, "read-only file system")
tempfile.TemporaryFile = tempfile.NamedTemporaryFile = refuse
"""


@pytest.mark.exhaustive
def test_without_any_folder_there_is_no_cache_and_an_answer(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_FOLDER)
    lines = run(root, PYTHONPATH=str(tmp_path), KEY="none")
    assert lines[1] == "None"
    assert lines[0] == run(root)[0]


@pytest.mark.exhaustive
def test_what_was_compiled_before_a_folder_became_read_only_is_found(
    root: Path, tmp_path: Path
) -> None:
    first = run(root, NUMBA_CACHE_DIR=str(tmp_path), KEY="new")
    (tmp_path / "sitecustomize.py").write_text(NO_FOLDER)
    environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path)}
    lines = run(root, **environment, KEY="new")
    assert lines[:2] == [first[0], "None"]
    assert "numba" not in lines[2]


# Only the temporary folder can be written.
ONLY_TEMPORARY = """
import tempfile
def only_temporary(real):
    def make(*args, dir=None, **kwargs):
        if dir is None or not str(dir).startswith(tempfile.gettempdir()):
            raise PermissionError(13, "read-only file system")
        return real(*args, dir=dir, **kwargs)
    return make
tempfile.TemporaryFile = only_temporary(tempfile.TemporaryFile)
tempfile.NamedTemporaryFile = only_temporary(tempfile.NamedTemporaryFile)
"""


@pytest.mark.exhaustive
def test_a_read_only_installation_uses_the_temporary_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ONLY_TEMPORARY)
    (tmp_path / "tmp").mkdir()
    environment = {
        "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "HOME": "/nonexistent",
        "XDG_CACHE_HOME": "/nonexistent", "KEY": "new",
    }  # fmt: skip
    lines = run(root, **environment)
    assert str(tmp_path / "tmp" / "npylstm-cache-") in lines[1]
    assert "numba" not in run(root, **environment)[2]


@pytest.mark.exhaustive
def test_a_temporary_folder_of_somebody_else_is_not_trusted(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ONLY_TEMPORARY)
    (tmp_path / "tmp").mkdir()
    environment = {
        "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "KEY": "new",
        "XDG_CACHE_HOME": "/nonexistent", "HOME": "/nonexistent",
    }  # fmt: skip
    run(root, **environment)
    (folder,) = (tmp_path / "tmp").glob("npylstm-cache-*")
    folder.chmod(0o777)
    lines = run(root, **environment)
    assert lines[1] == "None"
    assert "numba" in lines[2]  # nothing was loaded from there


LIFE = """
import numpy, npylstm
model = npylstm.load("models/sine_keras/sine.npz")
x = numpy.ones((1, 5, 1))
for _ in range(2):
    print(model.backend, model.predict(x).tobytes().hex())
    model.warm_up()
"""


def test_a_model_keeps_its_engine(root: Path, tmp_path: Path) -> None:
    """Compiled at load, which is announced, or read from the disk: the same bits throughout."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment.pop("NPYLSTM_BACKEND", None)
    compiled, loaded = (
        subprocess.run(
            [sys.executable, "-c", LIFE], capture_output=True, text=True, check=True, cwd=root,
            env=environment,
        )
        for _ in range(2)
    )  # fmt: skip
    first, second = compiled.stdout.splitlines()
    assert first == second
    assert first.startswith("numba ")
    assert loaded.stdout == compiled.stdout
    assert compiled.stderr.splitlines() == [numba_engine._NOTICE]
    assert not loaded.stderr


def test_a_cache_that_everybody_can_write_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code_cache.write("kernel", b"code")
    assert code_cache.read("kernel") == b"code"
    (folder,) = tmp_path.glob("npylstm-*")
    folder.chmod(0o777)
    assert code_cache.read("kernel") is None
    assert code_cache.cache_folder() is None


CANNOT_COMPILE = """
import sys, numpy, npylstm
sys.modules["llvmlite.ir"] = None  # an import that fails, as where versions do not go together
model = npylstm.load("models/sine_keras/sine.npz")
session = model.session()
print(model.backend, session.push(numpy.ones((1, 5, 1))).shape)
try:
    npylstm.load("models/sine_keras/sine.npz", "numba").predict(numpy.ones((1, 5, 1)))
except npylstm.NpylstmError as error:
    print(error)
"""


def test_where_compiling_fails_auto_stays_with_numpy(root: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment.pop("NPYLSTM_BACKEND", None)
    result = subprocess.run(
        [sys.executable, "-c", CANNOT_COMPILE], capture_output=True, text=True, check=True,
        cwd=root, env=environment,
    )  # fmt: skip
    assert "RuntimeWarning: sine is computed with NumPy: Numba cannot be used here" in result.stderr
    assert "Traceback" not in result.stderr
    stays, refuses = result.stdout.splitlines()
    assert stays.startswith("numpy (1, ")
    assert "Numba cannot be used here" in refuses


WHILE_COMPILING = """
import os, threading, numpy, npylstm
from npylstm.kernels import loading, table
npylstm.load("models/sine_keras/sine.npz").warm_up()
programs = (loading.execute, loading.generate, loading.advance)
for kernel in (*table.KERNELS, *(entry._kernel for entry in programs)):
    kernel._addresses.clear()
held = threading.Event()
def compile():
    with loading._LOCK:
        held.set()
        threading.Event().wait()
threading.Thread(target=compile, daemon=True).start()
held.wait()
print(npylstm.load("models/sine_keras/sine.npz").backend)
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    lstm = next(kernel for kernel in table.KERNELS if kernel._name == "lstm")
    lstm._addresses.clear()
    os._exit(0 if lstm.address("float32") else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_what_is_on_disk_is_loaded_while_another_thread_compiles(root: Path) -> None:
    """In the same process, and in one that is forked meanwhile."""
    environment = {**os.environ}
    environment.pop("NPYLSTM_BACKEND", None)
    result = subprocess.run(
        [sys.executable, "-c", WHILE_COMPILING], capture_output=True, text=True, check=True,
        cwd=root, env=environment, timeout=100,
    )  # fmt: skip
    assert result.stdout.split() == ["numba", "0"]
