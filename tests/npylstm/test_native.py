"""The shipped library: which one, which level, what is passed over, and the bits of Numba."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import HAS_NATIVE
from builders import make_layer

from npylstm import Model, NpylstmError, load
from npylstm.activations import TABLE, TANH, Activation
from npylstm.kernels.library import ENTRIES, Kernel, Unavailable
from npylstm.kernels.table import EXAMPLES, KERNELS
from npylstm.native import digests, levels, shipped
from npylstm.native.digests import sources_digest, table_digest
from npylstm.native.levels import LEVELS, Level, levels_of
from npylstm.native.shipped import MANIFEST, ShippedLibrary, shipped_library
from npylstm.ops import OPERATIONS
from npylstm.ops.cells import LSTM
from npylstm.ops.dense import Dense
from npylstm.spec import Edge, ModelSpec, TensorSpec

native = pytest.mark.skipif(not HAS_NATIVE, reason="no compiled kernels here; `make native`")

SINE = "models/sine_keras/sine.npz"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the library and its manifest, from which the library is loaded anew."""
    for path in shipped.FOLDER.glob("kernels.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    monkeypatch.delenv(shipped.ENVIRONMENT_VARIABLE, raising=False)
    shipped_library.cache_clear()
    yield tmp_path
    shipped_library.cache_clear()


def change(folder: Path, **entries: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | entries))


@native
def test_the_library_has_every_kernel() -> None:
    library = shipped_library()
    assert isinstance(library, ShippedLibrary)
    addresses = [library.address(kernel, d) for kernel in KERNELS for d in kernel.dtypes]
    addresses += [library.address(kernel, "int64") for kernel in ENTRIES]
    assert all(addresses)
    with pytest.raises(NpylstmError, match=r"the kernel nothing \(float32\) is missing; reinstall"):
        library.address(Kernel("layers", "nothing"), "float32")


@native
def test_the_bits_are_those_of_numba() -> None:
    pytest.importorskip("numba", reason="Numba is an optional package")
    from npylstm.native.compiled import numba_library

    if numba_library().vector_bytes != shipped_library().vector_bytes:  # type: ignore[union-attr]
        pytest.skip("another level is requested")
    rng = np.random.default_rng(0)
    cases = [(OPERATIONS[kind](**arguments), inputs) for kind, arguments, inputs in EXAMPLES]
    operations = [
        LSTM(5, 21, return_sequences=True), LSTM(5, 64, projection=7), LSTM(5, 130),
        LSTM(5, 21, go_backwards=True), LSTM(5, 21, recurrent_activation=TANH), Dense(5, 200),
        *(Activation.of(name) for name, row in TABLE.items() if row.code is not None),
    ]  # fmt: skip
    for operation in operations:
        is_activation = isinstance(operation, Activation)
        cases.append((OPERATIONS["activation"](operation) if is_activation else operation, 1))
    for dtype in ("float32", "float64"):
        for operation, inputs in cases:
            shape = operation.expected_input or ("batch", "steps", 5)
            layer = make_layer("layer", operation, np.random.default_rng(0), dtype)
            outputs = tuple(f"y{name}" for name in operation.output_names())
            edge = Edge("layer", ("x",) * inputs, outputs)
            spec = ModelSpec((layer,), (edge,), (TensorSpec("x", shape),), outputs, dtype=dtype)
            size = [{"batch": 3, "steps": 7}.get(d, d) for d in shape]
            x = rng.normal(size=size) if operation.vocabulary_size is None else np.ones(size)
            a, b = (Model(spec, backend).predict(x) for backend in ("native", "numba"))
            several = isinstance(a, dict)
            for one, other in zip(*((y.values() if several else [y]) for y in (a, b)), strict=True):
                np.testing.assert_array_equal(one, other, strict=True)


@native
def test_a_level_of_few_kernels_is_asked_first() -> None:
    """A level for a further feature has some kernels; the level that it extends has the others."""
    library = shipped_library()
    assert isinstance(library, ShippedLibrary)
    base = library.levels[-1]  # all kernels
    few = Level("few", base.machine, base.features, base.vector_bytes, extends=base.name)
    found = dict.fromkeys(["npylstm_few_lstm_float32", f"npylstm_{base.name}_lstm_float32",
                           f"npylstm_{base.name}_gru_float32"])  # fmt: skip

    class Library:
        def __getitem__(self, name: str) -> Any:
            if name not in found:
                raise AttributeError(name)
            found[name] = function = ctypes.CFUNCTYPE(None)(lambda: None)
            return function

    both = ShippedLibrary(Library(), [few, base], {}, library.path)  # type: ignore[arg-type]
    both.address(Kernel("recurrent", "lstm"), "float32")
    both.address(Kernel("recurrent", "gru"), "float32")
    assert [name for name, function in found.items() if function] == [
        "npylstm_few_lstm_float32", f"npylstm_{base.name}_gru_float32",
    ]  # fmt: skip
    assert both.level == "few"


def test_levels_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(*features: str) -> list[str]:
        return [level.name for level in levels_of(features)]

    by_name = {level.name: level for level in LEVELS}
    monkeypatch.setattr(levels, "machine", lambda: "x86_64")
    assert names() == []
    assert names(*by_name["v2"].features) == ["v2"]
    assert names(*by_name["v3"].features) == ["v3", "v2"]
    assert names(*by_name["v3"].features - {"FMA3"}) == ["v2"]
    assert names(*by_name["v4"].features, "AVX512VNNI") == ["v4_vnni", "v4", "v3", "v2"]
    assert names(*levels._with_implied({"X86_V2", "X86_V3"})) == ["v3", "v2"]
    assert names(*levels._with_implied({"X86_V4"})) == ["v4", "v3", "v2"]
    monkeypatch.setattr(levels, "machine", lambda: "aarch64")
    assert names("ASIMD", "SVE") == ["neon"]
    monkeypatch.setattr(levels, "machine", lambda: "riscv64")
    assert names("RVV") == []


def reason(folder: Path) -> Unavailable:
    shipped_library.cache_clear()
    library = shipped_library()
    assert isinstance(library, Unavailable)
    return library


def test_without_a_library_there_is_a_reason(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()
    assert "has no compiled kernels" in reason(folder).reason
    assert not reason(folder).is_fault
    (folder / MANIFEST).write_text("{")
    assert reason(folder).is_fault
    (folder / MANIFEST).write_text("[]")
    assert reason(folder).is_fault
    folder.rmdir() if not any(folder.iterdir()) else shutil.rmtree(folder)
    assert "zip file" in reason(folder).reason


@native
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"machine": "pdp11"}, "the compiled kernels are for linux pdp11, this is linux"),
        ({"sources": "0" * 16}, "from other sources; reinstall npylstm"),
        ({"size": 3}, "is damaged; reinstall npylstm"),
        ({"crc32": 3}, "is damaged; reinstall npylstm"),
        ({"file": "nowhere.so"}, "nowhere.so cannot be loaded: .*No such file"),
        ({"file": None}, "is damaged: TypeError"),
        ({"levels": 3}, "is damaged: TypeError"),
        ({"levels": []}, "is damaged: IndexError"),
    ],
)
def test_what_does_not_fit_is_passed_over_with_a_warning(
    folder: Path, entries: dict[str, Any], message: str, root: Path
) -> None:
    change(folder, **entries)
    with pytest.warns(RuntimeWarning, match=f"without the native back end: .*{message}"):
        assert load(root / SINE).backend != "native"
    with pytest.raises(NpylstmError, match=message):
        load(root / SINE, "native")


@native
def test_damaged_libraries_are_never_loaded(folder: Path) -> None:
    (path,) = (p for p in folder.iterdir() if p.name != MANIFEST)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.unlink()
        path.write_bytes(damaged)
        assert "is damaged" in reason(folder).reason
    path.write_bytes(content[: len(content) // 2])
    assert "is damaged" in reason(folder).reason


@native
def test_a_library_of_something_else_is_not_used(folder: Path) -> None:
    """A sound library with other contents, and its manifest."""
    (path,) = (p for p in folder.iterdir() if p.name != MANIFEST)

    def put(content: bytes) -> None:
        name = f"{zlib.crc32(content)}.so"  # the loader knows a library by its file's name
        (folder / name).write_bytes(content)
        change(folder, file=name, size=len(content), crc32=zlib.crc32(content))

    content = path.read_bytes()
    digest = table_digest().encode()
    assert content.count(digest) == 1
    put(content.replace(digest, digest[::-1]))
    assert "has another argument table" in reason(folder).reason
    put(b"not a library")
    assert "cannot be loaded" in reason(folder).reason
    other = Path(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    put(other.read_bytes())
    assert "cannot be loaded" in reason(folder).reason


def test_digests_are_the_same_in_every_python() -> None:
    """A wheel is for all versions of Python: this is the digest in all of them."""
    assert digests._digest(b"kernels") == "5a5767f10bbe02f5"


def test_digests_see_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    from npylstm.kernels import arguments

    assert len(table_digest()) == 16 == len(sources_digest() or "")
    before = table_digest()
    monkeypatch.setattr(
        arguments, "COPY", arguments.columns(TO="count", FROM="count", SIZE="count")
    )
    assert table_digest() != before
    monkeypatch.setattr(digests, "_PACKAGE", Path("nowhere"))
    sources_digest.cache_clear()
    assert sources_digest() is None
    sources_digest.cache_clear()


def test_levels_by_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPYLSTM_NATIVE", "0")
    assert reason(folder) == ("NPYLSTM_NATIVE=0", False)
    monkeypatch.setenv("NPYLSTM_NATIVE", "v1")
    with pytest.raises(
        NpylstmError, match="NPYLSTM_NATIVE=v1: expected 0 or one of v4_vnni, v4, v3, v2"
    ):
        reason(folder)


@native
def test_every_level_of_this_processor_computes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    here = levels_of(levels.cpu_features())
    assert here
    for level in LEVELS:
        monkeypatch.setenv("NPYLSTM_NATIVE", level.name)
        shipped_library.cache_clear()
        library = shipped_library()
        if level not in here:
            assert isinstance(library, Unavailable)
            assert f"level {level.name}" in library.reason
            continue
        assert isinstance(library, ShippedLibrary)
        assert (library.level, library.vector_bytes) == (level.name, level.vector_bytes)
        model = load(root / SINE, "native")
        assert model.verify().passed


@native
def test_the_warning_points_at_the_caller(folder: Path, root: Path) -> None:
    change(folder, sources="0" * 16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(root / SINE)
    assert caught[0].filename == __file__


ANY_MOMENT = """
import os, sys, threading, numpy, npylstm
x = numpy.ones((1, 5, 1))
expected = npylstm.load(sys.argv[1], "numpy").predict(x)
def use():
    model = npylstm.load(sys.argv[1], "native")
    for _ in range(20):
        assert abs(model.predict(x) - expected).max() < 1e-5
threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads: thread.start()
children = []
for _ in range(10):  # forks while the library is loaded and used for the first time
    child = os.fork()
    if not child:
        use()
        os._exit(0)
    children.append(child)
for thread in threads: thread.join()
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_and_threads_at_any_moment(root: Path) -> None:
    for _ in range(5):
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ANY_MOMENT, str(root / SINE)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert result.stdout.strip() == str([0] * 10), result.stderr


# Python 3.13 cannot import its own pathlib again after an interrupted import.
INTERRUPTED = """
import pathlib, signal, sys, zipfile, numpy
class Interrupted(BaseException): pass
def interrupt(*_): raise Interrupted
signal.signal(signal.SIGALRM, interrupt)
def use():
    import npylstm
    return npylstm.load(sys.argv[1], "native").session().push(numpy.ones((1, 5, 1))).shape
try:
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
    use()
except Interrupted:
    pass
except Exception as error:  # Python 3.11 wraps what __set_name__ raises, in a class being made
    if not isinstance(error.__cause__, Interrupted):
        raise
signal.setitimer(signal.ITIMER_REAL, 0)
print(use())
"""


@native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such signals here")
@pytest.mark.parametrize("milliseconds", [5, 20, 50, 80, 110, 150, 200, 300])
def test_signals_at_any_moment(milliseconds: int, root: Path) -> None:
    """A handler that raises leaves nothing locked or half loaded: the second attempt computes."""
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(root / SINE), str(milliseconds / 1000)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.stdout.strip() == "(1, 1)", result.stderr


@native
def test_a_passed_over_library_is_said_without_a_module_name(folder: Path, root: Path) -> None:
    change(folder, sources="0" * 16)
    with pytest.warns(RuntimeWarning, match="without the native back end"):
        exec(f"import npylstm; npylstm.load({str(root / SINE)!r})", {})
