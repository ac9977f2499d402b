"""``npylstm doctor``: which back end computes here, why, and whether it computes right."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
from typing import Any

import numpy as np

from npylstm import console
from npylstm.cli.printing import print_json
from npylstm.environment import environment
from npylstm.io import model_file
from npylstm.kernels.library import KernelLibrary, Unavailable
from npylstm.native import levels, shipped
from npylstm.runtime.engines import ENVIRONMENT_VARIABLE, LIBRARIES, find_backends
from npylstm.runtime.model import Model
from npylstm.runtime.program import is_native
from npylstm.runtime.self_check import check_kernels
from npylstm.runtime.threads import available_processors

__all__ = ["doctor"]

_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def doctor(options: argparse.Namespace) -> int:
    """Say which back end computes on this machine and why, and check every kernel."""
    backend = [*find_backends()][-1]
    libraries = {name: find() for name, find in LIBRARIES.items()}
    backends = {name: _describe(library) for name, library in libraries.items()}
    backends["numpy"] = {"usable": True, "details": f"NumPy {np.__version__}", "is_fault": False}
    usable = [name for name, row in backends.items() if row["usable"]]
    checks = [
        {"backend": name, "kernel": check.kernel, "dtype": check.dtype, "error": check.error,
         "tolerance": check.tolerance, "passed": check.passed}
        for name, library in libraries.items()
        if name in ("native", backend) and isinstance(library, KernelLibrary)
        for check in check_kernels(library)
    ]  # fmt: skip
    document: dict[str, Any] = {
        "backend": backend, "environment": environment(), "backends": backends,
        "levels": [row.name for row in levels.levels_of(levels.cpu_features())],
        "variables": {name: os.environ.get(name) for name in (
            ENVIRONMENT_VARIABLE, shipped.ENVIRONMENT_VARIABLE, "NUMBA_CACHE_DIR", *_BLAS_THREADS
        )},
        "numba_range": _numba_range(), "blas_threads": _blas_threads(), "checks": checks,
    }  # fmt: skip
    if options.model is not None and backend in usable:
        document["model"] = _examine(options.model)
    document["advice"] = _advice(document)
    document["passed"] = _passed(document)
    if options.json:
        print_json(document)
    else:
        _print(document)
    return 0 if document["passed"] else 1


def _describe(library: KernelLibrary | Unavailable) -> dict[str, Any]:
    """Return whether a library can be used, and the details or the reason."""
    if isinstance(library, Unavailable):
        return {"usable": False, "details": library.reason, "is_fault": library.is_fault}
    row = {"usable": True, "details": library.description, "is_fault": False}
    return row | library.facts()


def _numba_range() -> str:
    """Return the versions of Numba that this version is tested with."""
    try:
        requirements = importlib.metadata.requires("npylstm") or []
    except importlib.metadata.PackageNotFoundError:
        return "unknown: npylstm is not installed"
    numba = next((line for line in requirements if line.startswith("numba")), "unknown")
    return numba.partition(";")[0].removeprefix("numba").strip()


def _blas_threads() -> int:
    """Return the number of threads that NumPy's BLAS uses unless the program limits it."""
    for name in _BLAS_THREADS:
        value = os.environ.get(name, "")
        if value.isdigit() and int(value):
            return int(value)
    return available_processors()


def _examine(path: str) -> dict[str, Any]:
    """Return how a model computes here, layer by layer, and whether its cases agree."""
    spec = model_file.read(path)
    model = Model(spec)
    compiled = model.backend != "numpy"
    layers = {
        layer.name: model.backend if compiled and is_native(layer, model.spec.dtype) else "numpy"
        for layer in spec.layers
    }
    parity = None
    if spec.cases:
        report = model.verify()
        parity = {"passed": report.passed, "verdict": report.verdict}
    return {"name": spec.name, "backend": model.backend, "layers": layers, "parity": parity}


def _advice(document: dict[str, Any]) -> list[str]:
    """Return what the user can do."""
    backends, advice = document["backends"], []
    failed = {check["kernel"] for check in document["checks"] if not check["passed"]}
    if failed:
        advice.append(
            f"wrong results of {', '.join(sorted(failed))}: set {ENVIRONMENT_VARIABLE}=numpy and "
            "report this with the output of `npylstm doctor --json`"
        )
    for name, row in backends.items():
        if name == document["backend"] and not row["usable"]:
            advice.append(f"{ENVIRONMENT_VARIABLE}={name} cannot be used: {row['details']}")
        elif row["is_fault"]:
            advice.append(f"{name}: {row['details']}")
    if document["variables"][shipped.ENVIRONMENT_VARIABLE] == "0":
        advice.append(f"unset {shipped.ENVIRONMENT_VARIABLE} to use the shipped kernels")
    elif document["backend"] == "numpy" and not document["variables"][ENVIRONMENT_VARIABLE]:
        advice.append(
            "install a wheel with compiled kernels (`pip install --force-reinstall npylstm`), or "
            "`pip install 'npylstm[jit]'`, for 10 to 30 times the speed"
        )
    if document["backend"] == "numpy" and document["blas_threads"] > 1:
        advice.append(
            f"NumPy's BLAS may use {document['blas_threads']} threads; where many small models run "
            "side by side, OPENBLAS_NUM_THREADS=1 costs less processor time"
        )
    if document["backend"] == "numba":
        advice.append("run `npylstm warmup MODEL.npz` where the image or environment is built")
    return advice


def _passed(document: dict[str, Any]) -> bool:
    parity = document.get("model", {}).get("parity")
    usable = document["backends"][document["backend"]]["usable"]
    right = all(check["passed"] for check in document["checks"])
    return usable and right and (parity is None or parity["passed"])


def _print(document: dict[str, Any]) -> None:
    for name, value in document["environment"].items():
        print(console.wrapped(f"{name}: {value}"))
    print(f"BLAS threads: {document['blas_threads']}")
    print(f"Numba versions: {document['numba_range']}")
    print(f"levels of this processor: {', '.join(document['levels']) or 'none'}")
    print()
    rows = [
        [("* " if name == document["backend"] else "  ") + name, "yes" if row["usable"] else "no",
         row["details"]]
        for name, row in document["backends"].items()
    ]  # fmt: skip
    console.print_table(["  back end", "usable", "details"], rows, title="* computes by default")
    rows = [
        [c["backend"], c["kernel"], c["dtype"], f"{c['error']:.1e}", f"{c['tolerance']:.1e}",
         "right" if c["passed"] else "WRONG"]
        for c in document["checks"]
    ]  # fmt: skip
    if rows:
        header = ["back end", "kernel", "dtype", "largest error", "tolerance", "result"]
        print()
        console.print_table(header, rows, title="kernels against NumPy in float64")
    if "model" in document:
        model = document["model"]
        print()
        rows = [[name, backend] for name, backend in model["layers"].items()]
        title = f"{model['name']}: {model['backend']} back end"
        console.print_table(["layer", "computed by"], rows, title=title)
        if model["parity"] is not None:
            print(model["parity"]["verdict"])
    for line in document["advice"]:
        print(console.wrapped(f"- {line}"))
    result = "checks passed" if document["passed"] else "checks FAILED"
    print(f"{result}; see the advice above" if document["advice"] else result)
