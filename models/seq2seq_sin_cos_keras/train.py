"""Train the sine-to-cosine model in Keras, cut it in two, convert, and write its folder anew.

Data, network and training are those of an article on sequence to sequence models: 24 values of a
sine wave in, the cosine of the same 24 points out. The decoder is trained on the true values one
step late; afterwards it reads its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import keras  # noqa: E402
import npylstm_converters as nc  # noqa: E402
from card import write_card  # noqa: E402
from npylstm_converters.keras.runner import KerasRunner  # noqa: E402

import npylstm  # noqa: E402

STEPS, UNITS, POINTS = 24, 75, 100
STARTS = (0, 24, 49, 74)

CARD = """
Translates 24 values of a sine wave into the cosine of the same points: LSTM(75) reads the wave and
hands its state to a second LSTM(75), which writes the answer value by value through Dense(1).

- `train.py` trains it (35 epochs, Adam, mean squared error, some seconds on a CPU).
- `seq2seq.keras` is the file as Keras wrote it, `seq2seq.npz` the converted model.
- `encoder.npz` and `decoder.npz` are cut from it by `spec.subgraph`: the wave to a state, and one
  value and a state to the next ones. Each holds cases that Keras recorded.
- `decoded.npz` holds waves `x` and what Keras answers in a loop of 24 steps, `y_keras`.

The loop is one call:

    y = npylstm.decode(encoder, decoder, x, start=0.0, steps=24)

![Four waves and their translation, by Keras and by npylstm](translation.png)
"""


def windows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut both waves into windows; the decoder's inputs are the targets one step late."""
    t = np.linspace(-2 * np.pi, 2 * np.pi, POINTS)
    view = np.lib.stride_tricks.sliding_window_view
    x = view(np.sin(t), STEPS)[: POINTS - STEPS, :, None]
    y = view(np.cos(t), STEPS)[: POINTS - STEPS, :, None]
    late = np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], axis=1)
    return t, x.astype(np.float32), late.astype(np.float32), y.astype(np.float32)


def network() -> tuple[keras.Model, keras.Model, keras.Model]:
    """Build the model for training; encoder and one-step decoder share its layers."""
    layers = keras.layers
    wave = keras.Input((STEPS, 1), name="wave")
    _, h, c = layers.LSTM(UNITS, return_state=True, name="encoder")(wave)
    before = keras.Input((STEPS, 1), name="before")
    decoder = layers.LSTM(UNITS, return_sequences=True, return_state=True, name="decoder")
    dense = layers.Dense(1, name="dense")
    sequence, _, _ = decoder(before, initial_state=[h, c])
    model = keras.Model([wave, before], dense(sequence), name="seq2seq")

    one = keras.Input((1, 1))
    states = [keras.Input((UNITS,)), keras.Input((UNITS,))]
    y, *after = decoder(one, initial_state=states)
    return model, keras.Model(wave, [h, c]), keras.Model([one, *states], [dense(y), *after])


def keras_loop(encoder: keras.Model, decoder: keras.Model, x: np.ndarray) -> np.ndarray:
    """Decode step by step, in Keras."""
    state = encoder.predict(x, verbose=0)
    y = np.zeros((len(x), 1, 1), np.float32)
    answers = []
    for _ in range(STEPS):
        y, *state = decoder.predict([y, *state], verbose=0)
        answers.append(y[:, 0])
    return np.stack(answers, axis=1)


def draw(t: np.ndarray, x: np.ndarray, y_keras: np.ndarray, y: np.ndarray) -> None:
    """Draw each wave, its translation by both, and the true one."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(t, np.cos(t), color="gray", linestyle="dotted", label="true")
    for k, start in enumerate(STARTS):
        at = t[start : start + STEPS]
        axes.plot(at, x[start, :, 0], color="blue", label=None if k else "input")
        axes.plot(at, y_keras[start, :, 0], color="red", label=None if k else "Keras")
        axes.plot(
            at, y[start, :, 0], color="green", linestyle="dashed", label=None if k else "npylstm"
        )
    axes.set(xlabel="x", ylabel="y", title="sin x translated into cos x, 24 values at a time")
    axes.legend(loc="upper right")
    figure.savefig(HERE / "translation.png", dpi=120)


def main() -> None:
    """Train, save, convert, cut, record, draw."""
    keras.utils.set_random_seed(0)
    t, x, late, y = windows()
    model, encoder, decoder = network()
    model.compile(loss="mean_squared_error", optimizer="adam")
    model.fit([x, late], y, batch_size=10, epochs=35, verbose=2)
    path = HERE / "seq2seq.keras"
    model.save(path)

    whole = nc.from_keras(path)
    specs = {
        "seq2seq": nc.record(whole, KerasRunner(path, whole), progress=True),
        "encoder": nc.record(
            whole.subgraph(["wave"], ["encoder/h", "encoder/c"]),
            lambda wave: encoder.predict(wave[:, :STEPS], verbose=0),
            cases=[x[:3], x[40:41]],
        ),
    }
    cut = whole.subgraph(["before", "encoder/h", "encoder/c"], ["dense", "decoder/h", "decoder/c"])
    h, c = encoder.predict(x[:3], verbose=0)
    specs["decoder"] = nc.record(
        cut,
        lambda *inputs: decoder.predict(list(inputs), verbose=0),
        cases=[(late[:3, k : k + 1], h, c) for k in (0, 7)],
    )
    by = specs["seq2seq"].provenance["recorded_by"]
    for name, spec in specs.items():
        spec = replace(spec, name=name, provenance={**spec.provenance, "recorded_by": by})
        npylstm.save(spec, HERE / f"{name}.npz")
    models = [npylstm.load(HERE / f"{name}.npz") for name in ("encoder", "decoder")]
    y_keras = keras_loop(encoder, decoder, x)
    np.savez(HERE / "decoded.npz", t=t, x=x, y_keras=y_keras)
    ours = npylstm.decode(*models, x, start=0.0, steps=STEPS)
    print(f"{by}: largest difference after {STEPS} steps {np.abs(ours - y_keras).max():.1e}")
    draw(t, x, y_keras, ours)
    write_card(HERE, "seq2seq_sin_cos_keras", CARD, "seq2seq.npz")


if __name__ == "__main__":
    main()
