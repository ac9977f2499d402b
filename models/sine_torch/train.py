"""Train the sine model in PyTorch, convert it, and write its folder anew.

Data and network are those of an introduction to LSTMs in PyTorch: fifty values of a sine wave of
period 60 in, the next value out. There the waves of the training run carry no noise, either.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import npylstm_converters as nc  # noqa: E402
import torch  # noqa: E402
from card import write_card  # noqa: E402
from network import FREQ, HIDDEN, LENGTH, Predictor  # noqa: E402
from npylstm_converters.torch.runner import TorchRunner  # noqa: E402
from torch import nn  # noqa: E402
from torch_files import save_every_form  # noqa: E402

import npylstm  # noqa: E402

TRAINING, TEST, EPOCHS, BATCH = 10_000, 1000, 40, 100

CARD = """
Predicts the next value of a sine wave from the last fifty: LSTM(1, 5), last step, Linear(5, 1),
166 parameters in PyTorch's count of two biases, 146 here, where they are added.

- `network.py` is the network, `train.py` trains it ({training:,} windows, {epochs} epochs, SGD,
  mean squared error).
- `sine.pt` (state_dict), `sine_legacy.pt` (the same before torch 1.6), `sine.safetensors` and
  `sine.pt2` (exported program) are PyTorch's files, `sine.npz` the converted model with its
  recorded cases.

The first three convert without PyTorch, once it is said how the modules are joined:

    npylstm convert sine.pt sine.npz --layers "rnn -> last -> output_layer" --batch-first

![The true wave, PyTorch's prediction and npylstm's](prediction.png)
"""


def dataset(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of the wave and the value behind each."""
    t = np.arange(size)[:, None] + np.arange(LENGTH + 1)
    wave = np.sin(2 * np.pi * t / FREQ).astype(np.float32)
    past, future = np.split(wave, [LENGTH], axis=1)
    return torch.from_numpy(past[..., None].copy()), torch.from_numpy(future.copy())


def draw(model: npylstm.Model, network: nn.Module, rng: np.random.Generator) -> None:
    """Predict 120 values of a noisy wave, each from the fifty before it."""
    t = np.arange(120)[:, None] + np.arange(LENGTH + 1)
    noise = rng.normal(0, 0.02, 120 + LENGTH)
    wave = np.sin(2 * np.pi * t / FREQ) + noise[t]
    x = wave[:, :LENGTH, None].astype(np.float32)
    with torch.no_grad():
        y_torch = network(torch.from_numpy(x)).numpy()
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(wave[:, LENGTH], label="true, with noise", color="blue")
    axes.plot(y_torch, label="PyTorch", color="red")
    axes.plot(model.predict(x), label="npylstm", linestyle="dashed", color="green")
    axes.set(xlabel="t", ylabel="y", title="Next value of a noisy sine wave")
    axes.legend(loc="upper right")
    figure.savefig(HERE / "prediction.png", dpi=120)


def main() -> None:
    """Train, save, convert, record, draw."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the network is tiny: threads would wait for one another
    rng = np.random.default_rng(0)
    x, y = dataset(TRAINING)
    network = Predictor(1, HIDDEN, 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(TRAINING).split(BATCH):
            optimizer.zero_grad()
            loss = criterion(network(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total * BATCH / TRAINING:.2e}", flush=True)
    network.eval()
    test_x, test_y = dataset(TEST)
    with torch.no_grad():
        accuracy = ((network(test_x) - test_y).abs() < 0.1).float().mean().item()
    print(f"share of test values met to 0.1: {accuracy:.3f}")

    example = torch.zeros(2, LENGTH, 1)
    save_every_form(network, (example,), HERE / "sine")
    spec = nc.from_torch(network, example)
    spec = nc.record(spec, TorchRunner(network, spec, example), progress=True)
    npylstm.save(spec, HERE / "sine.npz")
    draw(npylstm.Model(spec), network, rng)
    card = CARD.format(training=TRAINING, epochs=EPOCHS)
    write_card(HERE, "sine_torch", card, "sine.npz")


if __name__ == "__main__":
    main()
