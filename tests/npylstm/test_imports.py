"""The runtime needs NumPy and the standard library, nothing else; and this can be seen to fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from backends import HAS_NATIVE

PROBE = """
import json, sys
import numpy
before = set(sys.modules)
{action}
print(json.dumps(sorted(set(sys.modules) - before)))
"""

FORBIDDEN = {
    "tensorflow", "keras", "tf_keras", "torch", "jax", "h5py", "onnx", "npylstm_converters",
    "rich", "matplotlib", "numba", "scipy", "pandas", "soundfile", "soxr",
}  # fmt: skip


def loaded_after(action: str, cwd: Path) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(action=action)],
        capture_output=True, text=True, check=True, cwd=cwd,
    )  # fmt: skip
    return set(json.loads(result.stdout.splitlines()[-1]))


def modules_after(action: str, cwd: Path) -> set[str]:
    return {name.partition(".")[0] for name in loaded_after(action, cwd)}


@pytest.mark.parametrize(
    "action",
    [
        "import npylstm",
        "import npylstm; npylstm.load('models/sine_keras/sine.npz', 'numpy').verify()",
        "from npylstm.cli import main; main(['info', 'models/sine_keras/sine.npz'])",
    ],
)
def test_the_runtime_imports_numpy_and_the_standard_library_alone(action: str, root: Path) -> None:
    found = modules_after(action, root)
    # cython_runtime is what the compiled parts of numpy.random register.
    allowed = set(sys.stdlib_module_names) | {"npylstm", "numpy", "cython_runtime"}
    assert not found & FORBIDDEN
    assert {name for name in found - allowed if not name.startswith("_")} == set()


@pytest.mark.parametrize("intruder", ["h5py", "npylstm_converters", "numba"])
def test_that_the_test_can_fail(intruder: str, root: Path) -> None:
    assert modules_after(f"import npylstm, {intruder}", root) & FORBIDDEN


@pytest.mark.skipif(not HAS_NATIVE, reason="no compiled kernels here; `make native`")
def test_shipped_kernels_need_no_compiler(root: Path) -> None:
    action = "import npylstm; print(npylstm.load('models/sine_keras/sine.npz').backend)"
    assert not modules_after(action, root) & {*FORBIDDEN, "llvmlite"}


def test_a_first_prediction_imports_what_it_needs(root: Path) -> None:
    predict = "load('models/sine_keras/sine.npz', 'numpy').predict(numpy.zeros((1, 5, 1)))"
    found = loaded_after(f"import npylstm; npylstm.{predict}", root)
    assert {"npylstm.ops.cells", "npylstm.io.npz"} <= found
    assert not found & {
        "hashlib", "tempfile", "logging", "concurrent.futures", "npylstm.runtime.session",
        "npylstm.parity", "npylstm.ops.attention", "npylstm.ops.shaping",
    }  # fmt: skip


def test_converting_a_file_needs_no_framework(root: Path) -> None:
    found = modules_after(
        "import npylstm_converters as nc; nc.convert('models/sine_keras/sine.keras')", root
    )
    assert "npylstm_converters" in found
    assert not found & {"h5py", "tensorflow", "keras", "tf_keras", "torch", "jax"}


def test_libhdf5_stays_in_a_process_of_its_own(root: Path) -> None:
    """It is C, and damaged files make it loop or crash."""
    users = {
        path.name
        for folder in ("npylstm", "converters")
        for path in (root / folder).rglob("*.py")
        if "import h5py" in path.read_text(encoding="utf-8")
    }
    assert users == {"hdf5_reader.py"}
