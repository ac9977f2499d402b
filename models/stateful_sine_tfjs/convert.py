"""Convert the model that ``train.js`` trained, attach what TensorFlow.js computed, and draw.

Needs no TensorFlow.js: its outputs are in ``recorded.json``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import npylstm_converters as nc  # noqa: E402
from card import write_card  # noqa: E402

import npylstm  # noqa: E402
from npylstm.spec import Case  # noqa: E402

STEPS, UNITS = 25, 32

CARD = """
Predicts the next value of a sine wave from the last 25: a stateful LSTM(32), Dense(128, relu) and
Dense(1), trained in TensorFlow.js with all 175 windows as one batch and the state reset before
every epoch. The batch size that TensorFlow.js pins is free here; a session carries the state.

- `train.js` trains it under Node (`npm install`, `node train.js`, some minutes in plain
  JavaScript) and records what TensorFlow.js computes, in `recorded.json`.
- `model.json` and `model.weights.bin` are its files as TensorFlow.js wrote them.
- `convert.py` makes `sine.npz` of them, with recorded cases, and draws the pictures.

One window after the other, the state carried from each to the next:

![Predictions one by one](one_by_one.png)

Four wavelengths ahead, each output the next input:

    y = model.forecast(window, steps=200, state=session.state)

![The forecast, by TensorFlow.js and by npylstm](forecast.png)
"""


def windows(wave: np.ndarray) -> np.ndarray:
    """Cut a wave (n,) into inputs (n - STEPS, STEPS, 1)."""
    return np.lib.stride_tricks.sliding_window_view(wave[:-1], STEPS)[:, :, None]


def cases(recorded: dict[str, Any], x: np.ndarray) -> list[Case]:
    """Give what TensorFlow.js computed the form of recorded cases."""

    def case(x: np.ndarray, y: list[float], state: Any = None) -> Case:
        outputs = {"output": np.float32(y).reshape(len(x), 1)}
        arrays = [np.float32(s).reshape(len(x), UNITS) for s in state or []]
        begin = {"lstm": dict(zip("hc", arrays, strict=True))} if arrays else {}
        return Case({"lstm_input": x}, outputs, begin)

    made = [case(x, run["y"], run["state"]) for run in recorded["batch"]]
    return made + [case(x[k : k + 1], recorded["fresh"][k : k + 1]) for k in (0, 90)]


def draw(x: np.ndarray, recorded: dict[str, Any], ours: dict[str, np.ndarray]) -> None:
    """Draw the predictions one by one, and the forecast."""
    known = len(recorded["wave"])
    after = {"one_by_one": STEPS, "ahead": known}
    titles = {
        "one_by_one": ("one_by_one.png", "The next value, window by window"),
        "ahead": ("forecast.png", "Four wavelengths ahead, outputs fed back"),
    }
    for key, (name, title) in titles.items():
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots()
        t = after[key] + np.arange(len(recorded[key]))
        axes.plot(recorded["wave"], color="gray", linestyle="dotted", label="true")
        axes.plot(t, recorded[key], color="red", label="TensorFlow.js")
        axes.plot(t, ours[key], color="green", linestyle="dashed", label="npylstm")
        axes.set(xlabel="step", ylabel="y", title=title)
        axes.legend(loc="upper right")
        figure.savefig(HERE / name, dpi=120)


def main() -> None:
    """Convert, attach the cases, run the stream and the forecast, draw."""
    recorded = json.loads((HERE / "recorded.json").read_text(encoding="utf-8"))
    wave = np.float32(recorded["wave"])
    x = windows(wave)
    spec = nc.from_tfjs(HERE / "model.json")
    by = {"recorded_by": f"TensorFlow.js {recorded['version']}"}
    spec = replace(spec, cases=tuple(cases(recorded, x)), provenance={**spec.provenance, **by})
    npylstm.save(spec, HERE / "sine.npz")

    model = npylstm.Model(spec)
    session = model.session()
    one_by_one = np.array([session.push(window[None])[0, 0] for window in x])
    ahead = model.forecast(wave[None, -STEPS:, None], steps=200, state=session.state)[0, :, 0]
    ours = {"one_by_one": one_by_one, "ahead": ahead}
    for key, y in ours.items():
        print(f"{key}: largest difference {np.abs(y - recorded[key]).max():.1e}")
    draw(x, recorded, ours)
    write_card(HERE, "stateful_sine_tfjs", CARD, "sine.npz")


if __name__ == "__main__":
    main()
