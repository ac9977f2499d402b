"""npylstm doctor: what it says of each back end, and that a wrong kernel is found."""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path

import numpy as np
import pytest
from backends import COMPILED, HAS_NATIVE, compiled_library

from npylstm.cli import main
from npylstm.kernels.library import ENTRIES, Kernel, KernelLibrary, Unavailable
from npylstm.kernels.table import KERNELS
from npylstm.runtime import engines
from npylstm.runtime.self_check import check_kernels

SINE = "models/sine_keras/sine.npz"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["doctor", *arguments])
    return status, capsys.readouterr().out


@pytest.fixture(autouse=True)
def at_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.delenv("NPYLSTM_BACKEND", raising=False)


def test_every_kernel_is_checked() -> None:
    checks = [*check_kernels(compiled_library())]
    assert all(check.passed for check in checks)
    for dtype in ("float32", "float64"):
        names = {check.kernel for check in checks if check.dtype == dtype}
        wanted = {kernel.name for kernel in KERNELS if dtype in kernel.dtypes}
        assert names == wanted | {kernel.name for kernel in ENTRIES}


NOTHING = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(lambda *arguments: None)


@pytest.mark.parametrize("kernel", sorted({k.name for k in KERNELS} - {"multiply"}))
def test_a_kernel_that_does_nothing_is_found(kernel: str) -> None:
    class Broken(KernelLibrary):
        name = "broken"
        description = "one kernel does nothing"
        vector_bytes = compiled_library().vector_bytes

        def address(self, wanted: Kernel, dtype: str) -> int:
            if wanted.name == kernel:
                return ctypes.cast(NOTHING, ctypes.c_void_p).value or 0
            return compiled_library().address(wanted, dtype)

    wrong = {check.kernel for check in check_kernels(Broken()) if not check.passed}
    assert kernel in wrong


def test_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, SINE, "--json")
    document = json.loads(out)
    assert status == 0
    assert document["passed"]
    assert document["backend"] == COMPILED
    assert document["backends"][COMPILED]["usable"]
    assert {*document["backends"]} == {"native", "numba", "numpy"}
    assert document["model"]["layers"] == dict.fromkeys(("lstm", "dense", "output"), COMPILED)
    assert document["model"]["parity"]["passed"]
    assert document["environment"]["NumPy"] == np.__version__
    if HAS_NATIVE:
        native = document["backends"]["native"]
        assert native["level"] in document["levels"]
        assert Path(native["file"]).is_file()
    text = run(capsys, SINE)[1]
    assert f"* {COMPILED}" in text
    assert text.splitlines()[-1].startswith("checks passed")


def test_without_kernels_it_says_why_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NPYLSTM_NATIVE", raising=False)  # the advice would be to unset it
    reasons = {"native": Unavailable("a reason", is_fault=True), "numba": Unavailable("another")}
    for name, reason in reasons.items():
        monkeypatch.setitem(engines.LIBRARIES, name, lambda reason=reason: reason)
    status, out = run(capsys)
    assert status == 0
    assert "* numpy" in out
    assert re.search(r"native +no +a reason", out)
    assert re.search(r"numba +no +another", out)
    assert "- native: a reason" in out
    assert "pip install 'npylstm[jit]'" in out


def test_wrong_variables_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPYLSTM_BACKEND", "fortran")
    assert main(["doctor"]) == 2
    assert "NPYLSTM_BACKEND=fortran: expected one of auto, native" in capsys.readouterr().err
