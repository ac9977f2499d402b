"""Train the damped sine model in Keras, convert it, and write its folder anew.

The data and the network are those of an article on stacked LSTMs: a damped sine wave of
random period and decay, 50 values in, the next five out at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import keras  # noqa: E402
import npylstm_converters as nc  # noqa: E402
from card import write_card  # noqa: E402
from npylstm_converters.keras.runner import KerasRunner  # noqa: E402

import npylstm  # noqa: E402

LENGTH, OUTPUT, UNITS, PATTERNS = 50, 5, 20, 10_000

CARD = """
Predicts the next five values of a damped sine wave from the last fifty: two stacked LSTM(20) and
Dense(5), 5,145 parameters.

- `train.py` trains it (10,000 waves, one epoch, Adam, mean absolute error),
  `damped_sine.keras` is the file as Keras wrote it, `damped_sine.npz` the converted model with its
  recorded cases.

![Three waves, their true continuation, Keras' and npylstm's](prediction.png)
"""


def examples(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Make waves ``0.5 + 0.5 sin(2 pi t / period) exp(-decay t)`` cut into past and future."""
    period = rng.integers(10, 21, (count, 1))
    decay = rng.uniform(0.01, 0.1, (count, 1))
    t = np.arange(LENGTH + OUTPUT)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * t / period) * np.exp(-decay * t)
    return wave[:, :LENGTH, None].astype(np.float32), wave[:, LENGTH:].astype(np.float32)


def draw(model: npylstm.Model, keras_model: keras.Model, rng: np.random.Generator) -> None:
    """Draw three waves with their continuations."""
    x, y_true = examples(rng, 3)
    y_keras, y = keras_model.predict(x, verbose=0), model.predict(x)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    future = np.arange(LENGTH, LENGTH + OUTPUT)
    for k, axes in enumerate(figure.subplots(1, 3, sharey=True)):
        axes.plot(x[k, :, 0], color="0.6")
        axes.plot(future, y_true[k], "o-", color="blue", label="true")
        axes.plot(future, y_keras[k], color="red", label="Keras")
        axes.plot(future, y[k], color="green", linestyle="dashed", label="npylstm")
        axes.set(xlabel="t", ylim=(0, 1))
        axes.legend(loc="upper right")
    figure.savefig(HERE / "prediction.png", dpi=120)


def main() -> None:
    """Train, save, convert, record, draw."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((LENGTH, 1)),
            keras.layers.LSTM(UNITS, return_sequences=True),
            keras.layers.LSTM(UNITS),
            keras.layers.Dense(OUTPUT),
        ],
        name="damped_sine",
    )
    model.compile(loss="mae", optimizer="adam")
    model.fit(*examples(rng, PATTERNS), batch_size=10, epochs=1, verbose=2)
    path = HERE / "damped_sine.keras"
    model.save(path)
    print("mean absolute error on new waves:", model.evaluate(*examples(rng, 1000), verbose=0))

    spec = nc.from_keras(path)
    spec = nc.record(spec, KerasRunner(path, spec), progress=True)
    npylstm.save(spec, HERE / "damped_sine.npz")
    draw(npylstm.Model(spec), model, rng)
    write_card(HERE, "damped_sine_keras", CARD, "damped_sine.npz")


if __name__ == "__main__":
    main()
