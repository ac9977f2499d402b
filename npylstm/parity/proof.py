"""A one-page proof of parity: the files with their sha256, the evidence, and the environment."""

from __future__ import annotations

import datetime
import hashlib
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npylstm import console
from npylstm.environment import environment
from npylstm.ops.shapes import format_shape
from npylstm.parity.page.sections import PROOF_SENTENCES
from npylstm.parity.report import PROOFS, ParityReport
from npylstm.printable import clipped, printable
from npylstm.runtime.model import load
from npylstm.spec import ModelSpec
from npylstm.summary import origin_of

__all__ = ["format_proof", "prove", "weights_sha256"]

_WIDTH = 80
_LABEL = 12  # columns of a label
_MOST_ROWS = 60
_UNKNOWN = (
    "The file does not state what its structure is based on. An older npylstm wrote it: convert "
    "the source again."
)


def prove(path: str | os.PathLike[str]) -> tuple[dict[str, Any], ParityReport]:
    """Replay the recorded cases of a file and collect the contents of a proof of parity.

    Parameters
    ----------
    path
        A converted model.

    Returns
    -------
    document
        Plain JSON values: ``printed`` (UTC), ``model``, ``source`` (with their sha256), ``proof``,
        ``proven``, ``stated``, ``assumed`` (sentences), ``report``, ``cases``, ``environment``.
    report
        The comparison.

    Raises
    ------
    NpylstmError
        If the file is damaged or holds no recorded cases.
    OSError
        If it cannot be opened.
    """
    model = load(path)
    report = model.verify()
    spec, origin = model.spec, model.spec.provenance
    proof = report.proof if origin.get("proof") in PROOFS else None
    said = origin.get("stated")
    sentences = [s for s in said if isinstance(s, str)] if isinstance(said, list) else []
    grounds: dict[str, list[str]] = {name: [] for name in PROOFS}
    if report.passed:
        within = "rounding"
        if not all(part.passed for part in report.comparisons):
            within = "its budget, not within rounding"
        grounds["proven"].append(
            f"npylstm gives the recorded outputs within {within}, on this machine: {report.scope}."
        )
    if proof == "proven":
        grounds["proven"].append(PROOF_SENTENCES["proven"])
    if proof is None:
        grounds["assumed"].append(_UNKNOWN)
    grounds["assumed" if proof == "assumed" else "stated"] += sentences
    document = {
        "printed": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": {
            "name": spec.name, "file": Path(path).name, "sha256": _file_sha256(path),
            "weights_sha256": weights_sha256(spec), "parameters": spec.parameters,
            "dtype": spec.dtype,
            "storage": None if spec.quantization is None else spec.quantization.type,
        },
        "source": {
            "framework": origin_of(origin), "format": origin.get("source_format"),
            "sha256": origin.get("source_sha256"),
        },
        "proof": proof,
        **grounds,
        "report": report.to_json(),
        "cases": _cases(report),
        "environment": {"engine": report.backend, **environment()},
    }  # fmt: skip
    return document, report


def weights_sha256(spec: ModelSpec) -> str:
    """Return the sha256 of all weights; recorded cases and provenance do not change it.

    It covers every array of a weight in the file, sorted by key: first a line of UTF-8 text with
    the key, the dtype and the shape, ``lstm/W_i <f4 (1, 20)``, that ends with a line feed; then the
    bytes, little-endian, in C order.
    """
    arrays = {f"{layer.name}/{k}": w for layer in spec.layers for k, w in layer.arrays().items()}
    digest = hashlib.sha256()
    for key, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{key} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def _file_sha256(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _cases(report: ParityReport) -> list[dict[str, Any]]:
    found = []
    for number, case in enumerate(report.replayed):
        parts = [part for part in report.comparisons if part.case == number]
        largest = max(map(report.used, parts), default=0.0)
        found.append(
            {
                "case": number, "purpose": case.purpose,
                "inputs": {name: list(np.shape(x)) for name, x in case.inputs.items()},
                "used": largest if np.isfinite(largest) else str(largest),
                "passed": all(map(report.held, parts)),
            }
        )  # fmt: skip
    return found


def format_proof(document: Mapping[str, Any]) -> str:
    """Return the page as plain text of up to 80 columns."""
    model, source, report = document["model"], document["source"], document["report"]
    verdict = report["verdict"]
    blocks = [
        f"npylstm proof of parity\nprinted {document['printed']}",
        _block("verdict", [("", verdict[:1].upper() + verdict[1:])]),
        _block(
            "model",
            [
                ("name", model["name"]),
                ("file", model["file"]),
                ("sha256", model["sha256"]),
                ("weights", f"{model['parameters']:,} of {_types(model)}"),
                ("sha256", model["weights_sha256"]),
            ],
        ),
        _block(
            "source",
            [
                ("framework", source["framework"]),
                ("format", source["format"] or "not recorded"),
                ("sha256", source["sha256"] or "not recorded"),
            ],
        ),
    ]
    for name in PROOFS:
        blocks.append(_block(name, [("", s) for s in document[name]] or [("", "nothing")]))
    blocks.append(_indented("outputs", _outputs(report["outputs"])))
    note = "used: the largest difference as a part of the tolerance; 1 is the limit"
    blocks.append(_indented("cases, replayed now", f"{_case_rows(document['cases'])}\n{note}"))
    blocks.append(_block("machine", list(document["environment"].items())))
    return console.Text("\n\n".join(blocks))


def _types(model: Mapping[str, Any]) -> str:
    return " and ".join(filter(None, (model["storage"], model["dtype"])))


def _block(title: str, entries: Sequence[tuple[str, object]]) -> str:
    lines = [title.upper()]
    for label, value in entries:
        start = f"  {label:<{_LABEL}} " if label else "  "
        lines += textwrap.wrap(
            printable(str(value)), _WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
        ) or [start.rstrip()]
    return "\n".join(lines)


def _indented(title: str, text: str) -> str:
    return f"{title.upper()}\n{textwrap.indent(text, '  ')}"


def _outputs(outputs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            clipped(o["output"], 22), "held" if o["passed"] else "FAILED",
            *(f"{float(o[k]):.2e}" for k in ("max_abs", "tolerance", "rms", "npylstm_to_float64")),
        ]
        for o in outputs[:_MOST_ROWS]
    ]  # fmt: skip
    return _table(["output", "parity", "max abs", "tolerance", "rms", "to float64"], rows, outputs)


def _case_rows(cases: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            str(case["case"]), clipped(case["purpose"], 16) or "–",
            clipped(", ".join(f"{k} {format_shape(v)}" for k, v in case["inputs"].items()), 32),
            f"{float(case['used']):.2e}", "held" if case["passed"] else "FAILED",
        ]
        for case in cases[:_MOST_ROWS]
    ]  # fmt: skip
    return _table(["case", "purpose", "inputs", "used", "parity"], rows, cases)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], entries: Sequence[object]) -> str:
    text = console.plain_table(header, rows)
    left = len(entries) - len(rows)
    return f"{text}\nand {left:,} more" if left else text
