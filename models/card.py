"""Model cards: the README.md of a bundled model, with the parity measured just now."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np

import npylstm


def write_card(folder: Path, title: str, text: str, npz: str) -> None:
    """Measure parity in both back ends and write ``README.md`` into ``folder``."""
    reports = [npylstm.load(folder / npz, backend).verify() for backend in ("numba", "numpy")]
    header = (
        "| back end | output | max abs | rms | framework to float64 | npylstm to float64 | parity |"
    )
    rows = [
        f"| {r.backend} | {o.output} | {o.max_abs:.1e} | {o.rms:.1e} | "
        f"{o.framework_to_float64:.1e} | {o.npylstm_to_float64:.1e} | "
        f"{'held' if o.passed else 'FAILED'} |"
        for r in reports
        for o in r.outputs
    ]
    for report in reports:
        report.check()
    summary = npylstm.load(folder / npz, "numpy").summary()
    table = "\n".join([header, "|---|---|---|---|---|---|---|", *rows])
    system = f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}"
    (folder / "README.md").write_text(
        f"# {title}\n\n{text.strip()}\n\n```\n{summary}\n```\n\n## Parity\n\n"
        f"{reports[0].cases} cases recorded by {reports[0].framework}, replayed with {system}. "
        f"Errors are against the same model in float64.\n\n{table}\n",
        encoding="utf-8",
    )
