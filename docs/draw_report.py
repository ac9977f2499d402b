"""Draw docs/report.png: the report of a model whose gates were exchanged. Needs Chromium.

``python docs/draw_report.py [FOLDER]`` also leaves the page itself, report.html, in the folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import npylstm

ROOT = Path(__file__).resolve().parent.parent
SIZE = "1128,1530"


def mistaken() -> npylstm.Model:
    """Exchange the input gate and the forget gate in the first LSTM of a trained model."""
    spec = npylstm.load(ROOT / "models/damped_sine_torch/damped_sine.npz").spec
    lstm = spec["lstm_l0"]
    other = {
        f"{part}_{to}": lstm.weights[f"{part}_{gate}"]
        for part in "WUb"
        for gate, to in (("i", "f"), ("f", "i"))
    }
    wrong = replace(lstm, weights={**lstm.weights, **other})
    layers = tuple(wrong if layer is lstm else layer for layer in spec.layers)
    cases = [replace(case, outputs={"out": case.outputs["out"]}) for case in spec.cases]
    return npylstm.Model(replace(spec, layers=layers, outputs=("out",), cases=tuple(cases)))


def main() -> None:
    """Write the page and take its picture."""
    with tempfile.TemporaryDirectory() as profile:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else profile).resolve()
        page, picture = folder / "report.html", ROOT / "docs/report.png"
        mistaken().verify().to_html(page)
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--force-device-scale-factor=0.8",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--no-first-run", f"--user-data-dir={profile}/chromium", f"--window-size={SIZE}",
                f"--screenshot={picture}", page.as_uri(),
            ],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip


if __name__ == "__main__":
    main()
