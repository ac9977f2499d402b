"""The forward pass of an LSTM in a dozen lines of NumPy, from the gates in the .npz.

What npylstm computes, spelled out: no npylstm is imported until the comparison at the end.

    python examples/forward_by_hand.py
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).resolve().parent.parent / "models" / "sine_keras" / "sine.npz"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward(file, x):
    """LSTM and Dense: x (batch, steps, features) -> (batch, 1)."""
    W, U, b = ({gate: file[f"lstm/{letter}_{gate}"] for gate in "ifco"} for letter in "WUb")
    h = c = np.zeros((len(x), b["i"].size), x.dtype)
    for t in range(x.shape[1]):
        z = {gate: x[:, t] @ W[gate] + h @ U[gate] + b[gate] for gate in "ifco"}
        c = sigmoid(z["f"]) * c + sigmoid(z["i"]) * np.tanh(z["c"])
        h = sigmoid(z["o"]) * np.tanh(c)
    return h @ file["dense/kernel"] + file["dense/bias"]


if __name__ == "__main__":
    x = np.sin(np.arange(20).reshape(4, 5, 1) / 12.7).astype(np.float32)
    with np.load(PATH, allow_pickle=False) as file:
        by_hand = forward(file, x)

    import npylstm

    difference = np.abs(by_hand - npylstm.load(PATH).predict(x)).max()
    print(f"by hand and by npylstm: largest difference {difference:.1e}")
    assert difference < 1e-6
