"""Train the sine model in Keras, convert it, and write its folder anew.

The data and the network are those of an article that takes a Keras LSTM apart: 50 noisy
cycles of a sine wave, 5 values in, the next one out, LSTM(100) and Dense(1).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import keras  # noqa: E402
import npylstm_converters as nc  # noqa: E402
from card import write_card  # noqa: E402
from npylstm_converters.keras.runner import KerasRunner  # noqa: E402
from pictures import draw  # noqa: E402

import npylstm  # noqa: E402

STEPS, UNITS = 5, 100
STEPS_PER_CYCLE, CYCLES, NOISE = 80, 50, 0.05

CARD = """
Predicts the next value of a noisy sine wave from the last five: LSTM(100), Dense(1), linear.

- `train.py` trains it (15 epochs, RMSprop, a few seconds on a CPU), `sine.keras` is the file as
  Keras wrote it, `sine.npz` the converted model with its recorded cases.
- `data.npz` holds test inputs `x`, true values `y_true` and what Keras predicted, `y_keras`.
- `demo.py` is what `make demo` runs.

![Truth, Keras and npylstm](prediction.png)

The prediction gets better with every time step that the network has seen:

![Predictions from every hidden state](time_steps.png)
"""


def windows(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a series (n, 1) into inputs (n - STEPS, STEPS, 1) and next values (n - STEPS, 1)."""
    x = np.lib.stride_tricks.sliding_window_view(series[:-1, 0], STEPS)[:, :, None]
    return x.astype(np.float32), series[STEPS:].astype(np.float32)


def main() -> None:
    """Train, save, convert, record, draw."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    t = np.arange(STEPS_PER_CYCLE * CYCLES + 1)
    phase = t * (2 * np.pi / STEPS_PER_CYCLE) + NOISE * rng.uniform(-1, 1, t.size)
    series = np.sin(phase)[:, None]
    split = round(0.9 * len(series))
    (x_train, y_train), (x, y_true) = windows(series[:split]), windows(series[split:])

    model = keras.Sequential(
        [
            keras.Input((STEPS, 1)),
            keras.layers.LSTM(
                UNITS, activation="tanh", recurrent_activation="sigmoid", name="lstm"
            ),
            keras.layers.Dense(1, name="dense"),
            keras.layers.Activation("linear", name="output"),
        ],
        name="sine",
    )
    model.compile(loss="mean_squared_error", optimizer="rmsprop")
    model.fit(x_train, y_train, batch_size=600, epochs=15, validation_split=0.05, verbose=2)
    path = HERE / "sine.keras"
    model.save(path)

    y_keras = model.predict(x, verbose=0)
    np.savez(HERE / "data.npz", x=x, y_true=y_true, y_keras=y_keras)
    spec = nc.from_keras(path)
    spec = nc.record(spec, KerasRunner(path, spec), progress=True)
    npylstm.save(spec, HERE / "sine.npz")
    draw(npylstm.Model(spec), {"x": x, "y_true": y_true, "y_keras": y_keras}, HERE)
    write_card(HERE, "sine_keras", CARD, "sine.npz")


if __name__ == "__main__":
    main()
