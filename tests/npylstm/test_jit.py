"""The jit policy: in one place, and a cache that never costs an answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PREDICT = (
    "import npylstm, numpy, numba.core.config;"
    "m = npylstm.load('models/sine_keras/sine.npz', 'numba');"
    "print(float(m.predict(numpy.ones((1, 5, 1)))[0, 0]));"
    "from npylstm.engine.products import multiply;"
    "kernel = multiply._compiled['float32'];"
    "print(type(kernel._cache).__name__, getattr(kernel._cache, 'cache_path', None));"
    "print(kernel.cache_hits)"
)


def run(root: Path, **environment: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", PREDICT],
        capture_output=True, text=True, check=True, cwd=root, env={**os.environ, **environment},
    )  # fmt: skip
    assert "Traceback" not in result.stderr
    return result.stdout.splitlines()


def test_the_policy_is_in_one_file(root: Path) -> None:
    raw = re.compile(r"\bnumba\.(n?jit|vectorize|guvectorize|cfunc)|import.*\bnjit\b|fastmath\s*=")
    users = {
        path.name
        for folder in ("npylstm", "converters")
        for path in (root / folder).rglob("*.py")
        if raw.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"jit.py"}


def test_the_second_process_finds_the_code_of_the_first(root: Path, tmp_path: Path) -> None:
    first = run(root, NUMBA_CACHE_DIR=str(tmp_path))
    second = run(root, NUMBA_CACHE_DIR=str(tmp_path))
    assert first[0] == second[0]
    assert (first[2], second[2]) == ("0", "1")
    assert str(tmp_path) in first[1]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100])
def test_a_damaged_cache_is_compiled_around(root: Path, tmp_path: Path, damage: bytes) -> None:
    good = run(root, NUMBA_CACHE_DIR=str(tmp_path))
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(damage)
    assert run(root, NUMBA_CACHE_DIR=str(tmp_path))[0] == good[0]


# A read-only installation, in which no folder will do: every attempt to make one fails.
NO_FOLDER = """
import os, tempfile
def refuse(*args, **kwargs): raise PermissionError(13, "read-only file system")
os.makedirs = refuse
tempfile.TemporaryFile = refuse
"""


def test_without_any_folder_there_is_no_cache_and_an_answer(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_FOLDER)
    lines = run(root, PYTHONPATH=str(tmp_path))
    assert lines[1] == "NullCache None"
    assert lines[0] == run(root)[0]


# Only the temporary folder can be written.
ONLY_TEMPORARY = """
import os, tempfile
real = tempfile.TemporaryFile
def only_temporary(*args, dir=None, **kwargs):
    if dir is None or not str(dir).startswith(tempfile.gettempdir()):
        raise PermissionError(13, "read-only file system")
    return real(*args, dir=dir, **kwargs)
tempfile.TemporaryFile = only_temporary
"""


def test_a_read_only_installation_uses_the_temporary_folder(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ONLY_TEMPORARY)
    (tmp_path / "tmp").mkdir()
    environment = {
        "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "HOME": "/nonexistent",
    }  # fmt: skip
    environment["XDG_CACHE_HOME"] = "/nonexistent"
    lines = run(root, **environment)
    assert str(tmp_path / "tmp" / "npylstm-cache-") in lines[1]


def test_a_temporary_folder_of_somebody_else_is_not_trusted(root: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ONLY_TEMPORARY)
    folder = tmp_path / "tmp" / f"npylstm-cache-{os.getuid()}"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    lines = run(root, PYTHONPATH=str(tmp_path), TMPDIR=str(tmp_path / "tmp"),
                XDG_CACHE_HOME="/nonexistent", HOME="/nonexistent")  # fmt: skip
    assert lines[1] == "NullCache None"


AT_ONCE = """
import time, numpy, npylstm
model = npylstm.load("models/sine_keras/sine.npz")
x = numpy.ones((1, 5, 1))
first = model.backend, float(model.predict(x)[0, 0])
if {wait}:
    model.warm_up()
print(*first, model.backend, float(model.predict(x)[0, 0]))
"""


def answer(root: Path, cache: Path, wait: bool = True) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    environment.pop("NPYLSTM_BACKEND", None)
    result = subprocess.run(
        [sys.executable, "-c", AT_ONCE.format(wait=wait)],
        capture_output=True, text=True, check=True, cwd=root, env=environment,
    )  # fmt: skip
    assert not result.stderr
    return result.stdout.split()


def test_numpy_answers_while_kernels_are_compiled(root: Path, tmp_path: Path) -> None:
    before, y, after, z = answer(root, tmp_path)
    assert (before, after) == ("numpy", "numba")
    assert float(y) == pytest.approx(float(z), rel=1e-5)
    assert answer(root, tmp_path) == ["numba", z, "numba", z]


def test_a_process_may_end_while_kernels_are_compiled(root: Path, tmp_path: Path) -> None:
    before, y, *_ = answer(root, tmp_path, wait=False)
    assert before == "numpy"
    assert np.isfinite(float(y))
