"""The two pictures of the sine model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

import npylstm


def draw(model: npylstm.Model, data: dict[str, np.ndarray], folder: Path) -> list[Path]:
    """Draw truth, Keras and npylstm; and the prediction from every time step's h_t."""
    prediction = folder / "prediction.png"
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(data["y_true"], label="true", color="blue")
    axes.plot(data["y_keras"], label="Keras", color="red")
    axes.plot(model.predict(data["x"]), label="npylstm", linestyle="dashed", color="green")
    axes.set(xlabel="sample", ylabel="y", title="Next value of a noisy sine wave")
    axes.legend(loc="upper right")
    figure.savefig(prediction, dpi=120)

    time_steps = folder / "time_steps.png"
    dense = model.spec["dense"].weights
    h = model.trace(data["x"])["lstm"].h  # (samples, steps, units)
    steps = h.shape[1]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(data["y_true"], color="red", label="true")
    for t in range(steps):
        y_t = h[:, t] @ dense["kernel"] + dense["bias"]
        axes.plot(y_t, color=colormaps["cool"](t / steps), label=f"from h_{t + 1}")
    axes.set(
        xlabel="sample", ylabel="y", title="The prediction from every time step's hidden state"
    )
    axes.legend(loc="upper right")
    figure.savefig(time_steps, dpi=120)
    return [prediction, time_steps]
