"""Kernels compiled by Numba: the policy in one place, and a cache that never costs an answer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from npylstm.native.compiled import NOTICE

pytest.importorskip("numba", reason="Numba is an optional package")

# One kernel is enough, and quickly compiled.
PREDICT = """
import sys
import numpy
from npylstm import Model
from npylstm.activations import Activation
from npylstm.native import compiled, digests
from npylstm.ops.pointwise import ActivationLayer
sys.path.insert(0, "tests")
if len(sys.argv) > 1:  # as if the sources of the kernels were others
    compiled.sources_digest = lambda: sys.argv[1]
from builders import make_chain
model = Model(make_chain(ActivationLayer(Activation.of("tanh")), shape=("batch", 3)), "numba")
print(model.predict(numpy.ones((1, 3))).tobytes().hex())
print(sum(made.cache_hits for made in compiled.numba_library()._compiled.values()))
print(compiled.cache_folder())
"""


def run(root: Path, *arguments: str, code: str = PREDICT, **environment: str) -> list[str]:
    """Predict in a process of its own: the result, the number of kernels from the cache, it."""
    environment = {**os.environ, "NPYLSTM_BACKEND": "", **environment}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=root,
        env=environment, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return [*result.stdout.splitlines(), *result.stderr.splitlines()]


def test_the_policy_is_in_one_file(root: Path) -> None:
    raw = re.compile(r"(?<!np)\.(n?jit|vectorize|guvectorize|cfunc)\(|import.*\bnjit\b|fastmath\s*=|"
                     r"error_model\W+\w*numpy")  # fmt: skip
    users = {
        path.name
        for folder in ("npylstm", "converters", "wheels")
        for path in (root / folder).rglob("*.py")
        if raw.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"jit.py"}


def test_only_public_interfaces_of_numba_are_used(root: Path) -> None:
    """What runs at the user's must go with later versions; numba.core.cgutils is documented."""
    imported = re.compile(r"^(?:from|import) ((?:numba|llvmlite)[\w.]*)(?: import (.*))?", re.M)
    used = {
        f"{module}.{name}" if name else module
        for path in (root / "npylstm").rglob("*.py")
        for module, names in imported.findall(path.read_text(encoding="utf-8"))
        for name in (names.split(", ") if names else [""])
    }
    assert used == {
        "numba", "numba.float32", "numba.float64", "numba.types", "numba.extending.intrinsic", "llvmlite",
        "numba.core.cgutils", "llvmlite.ir", "llvmlite.binding",
    }  # fmt: skip


@pytest.fixture(scope="module")
def cache(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A cache, and the lines of the process that made it."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, run(root, NUMBA_CACHE_DIR=str(folder))


def test_the_second_process_finds_the_code_of_the_first(
    root: Path, cache: tuple[Path, list[str]]
) -> None:
    folder, first = cache
    second = run(root, NUMBA_CACHE_DIR=str(folder))
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("0", "4")  # the kernel and three entries
    assert Path(first[2]).parent == folder


def test_code_of_other_sources_is_not_found(root: Path, cache: tuple[Path, list[str]]) -> None:
    """Numba by itself looks at the time stamp of one file."""
    other = run(root, "another", NUMBA_CACHE_DIR=str(cache[0]))
    assert other[:2] == [cache[1][0], "0"]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None])
def test_a_damaged_cache_is_compiled_around(
    root: Path, tmp_path: Path, cache: tuple[Path, list[str]], damage: bytes | None
) -> None:
    folder = shutil.copytree(cache[0], tmp_path / "cache")
    damaged = [*folder.rglob("*.nbi"), *folder.rglob("*.nbc")]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:50] if damage is None else damage)
    assert len(damaged) > 2
    assert run(root, NUMBA_CACHE_DIR=str(folder))[:2] == [cache[1][0], "0"]


NO_FOLDER = """
from numba.core import caching
caching.CacheImpl._locator_classes = []  # as in a read-only installation without a home
"""


def test_without_any_folder_there_is_no_cache_and_an_answer(
    root: Path, cache: tuple[Path, list[str]]
) -> None:
    lines = run(root, code=NO_FOLDER + PREDICT, NUMBA_CACHE_DIR="")
    assert lines[:3] == [cache[1][0], "0", "None"]


LIFE = """
import sys, numpy, npylstm
model = npylstm.load("models/sine_keras/sine.npz", "numba")
x = numpy.ones((1, 5, 1))
for _ in range(2):
    print(model.backend, model.predict(x).tobytes().hex())
    model.warm_up()
"""


def test_a_model_keeps_its_engine(root: Path, tmp_path: Path) -> None:
    """Compiled at load, which is announced, or read from the disk: the same bits throughout."""
    compiled, loaded = (run(root, code=LIFE, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert compiled[0] == compiled[1] == loaded[0] == loaded[1]
    assert compiled[0].startswith("numba ")
    assert compiled[2:] == [NOTICE]


CANNOT_COMPILE = """
import sys, warnings, numpy, npylstm
sys.modules["llvmlite.ir"] = None  # an import that fails, as where versions do not go together
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = npylstm.load("models/sine_keras/sine.npz")
session = model.session()
print(model.backend, session.push(numpy.ones((1, 5, 1))).shape)
print(caught[0].category.__name__, caught[0].message, caught[0].filename.endswith("<string>"))
try:
    npylstm.load("models/sine_keras/sine.npz", "numba").predict(numpy.ones((1, 5, 1)))
except npylstm.NpylstmError as error:
    print(error)
"""


def test_where_compiling_fails_auto_stays_with_numpy(root: Path) -> None:
    stays, warned, refuses = run(root, code=CANNOT_COMPILE, NPYLSTM_NATIVE="0")
    assert stays.startswith("numpy (1, ")
    assert warned.startswith(
        "RuntimeWarning npylstm computes without the numba back end: Numba cannot"
    )
    assert "Numba cannot be used here" in refuses


# A fork as soon as another thread, which loads a model, imports or compiles what is named.
FORK = """
import os, sys, threading, time, npylstm
wait_for = sys.argv[1]
def load():
    return npylstm.load("models/sine_keras/sine.npz", "numba")
thread = threading.Thread(target=load)
thread.start()
while wait_for not in sys.modules and thread.is_alive():
    time.sleep(0.001)
time.sleep(float(sys.argv[2]))
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    os._exit(0 if load().verify().passed else 1)
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("wait_for", "seconds"),
    [("logging", "0.02"), ("numba", "0.1"), ("npylstm.kernels.layers", "0.5")],
)
def test_a_fork_while_another_thread_loads_waits_for_it(
    wait_for: str, seconds: str, root: Path, tmp_path: Path
) -> None:
    lines = run(root, wait_for, seconds, code=FORK, NUMBA_CACHE_DIR=str(tmp_path))
    assert lines[0] == "0"


LITTLE_MEMORY = """
import resource, sys, warnings, numpy, npylstm
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = npylstm.load("models/sine_keras/sine.npz")
print(model.backend, model.verify().passed)
print(*[warning.message for warning in caught])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux' memory status")
def test_with_little_memory_the_warning_names_memory(root: Path) -> None:
    little = {"NPYLSTM_NATIVE": "0", "OPENBLAS_NUM_THREADS": "1"}
    computes, warned = run(root, "150", code=LITTLE_MEMORY, **little)
    assert computes == "numpy True"
    assert re.fullmatch(
        "npylstm computes without the numba back end: too little memory: Numba needs 350 MB of "
        r"address space, the limit of this process \(ulimit -v\) leaves 1[45]\d MB", warned,
    )  # fmt: skip
