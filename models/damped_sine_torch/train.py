"""Train the damped sine model in PyTorch, convert it, and write its folder anew.

Data, network and training are those of an article on stacked LSTMs: a damped sine wave of random
period and decay, 50 values in, the next five out at once. Batches go in sequence first.
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
from network import (  # noqa: E402
    FEATURES,
    HIDDEN,
    LAYERS,
    LENGTH,
    OUTPUT,
    DampedSineWavePredictionModel,
)
from npylstm_converters.torch.runner import TorchRunner  # noqa: E402
from torch import nn  # noqa: E402
from torch_files import save_every_form  # noqa: E402

import npylstm  # noqa: E402

ITERATIONS, BATCH = 5000, 10

CARD = """
Predicts the next five values of a damped sine wave from the last fifty: LSTM(1, 20, num_layers=2)
and Linear(20, 5) on every step, sequence first. `h` and `c` go in and come back.

- `network.py` is the network, `train.py` trains it (5,000 batches of ten waves, Adam, mean
  squared error).
- `damped_sine.pt` (state_dict), `damped_sine_legacy.pt` (the same before torch 1.6),
  `damped_sine.safetensors` and `damped_sine.pt2` (exported program) are PyTorch's files,
  `damped_sine.npz` the converted model with its recorded cases.

The first three convert without PyTorch, once it is said how the modules are joined:

    npylstm convert damped_sine.pt damped_sine.npz --layers "lstm -> out" --sequence-first

![Three waves, their true continuation, PyTorch's and npylstm's](prediction.png)
"""


def examples(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make waves ``0.5 + 0.5 sin(2 pi t / period) exp(-decay t)`` cut into past and future.

    Returns
    -------
    x, y
        (steps, batch, 1), (batch, output).
    """
    period = rng.integers(10, 21, (count, 1))
    decay = rng.uniform(0.01, 0.1, (count, 1))
    t = np.arange(LENGTH + OUTPUT)
    wave = (0.5 + 0.5 * np.sin(2 * np.pi * t / period) * np.exp(-decay * t)).astype(np.float32)
    past, future = np.split(wave, [LENGTH], axis=1)
    return torch.from_numpy(past.T[..., None].copy()), torch.from_numpy(future)


def states(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States of sequences that have not begun."""
    return torch.zeros(LAYERS, count, HIDDEN), torch.zeros(LAYERS, count, HIDDEN)


def draw(model: npylstm.Model, network: nn.Module, rng: np.random.Generator) -> None:
    """Draw three waves with their continuations."""
    x, y_true = examples(rng, 3)
    h0, c0 = states(3)
    with torch.no_grad():
        y_torch = network(x, h0, c0)[0][-1].numpy()
    outputs = model.predict([x.numpy(), h0.numpy(), c0.numpy()])
    y = outputs["out"][-1]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    future = np.arange(LENGTH, LENGTH + OUTPUT)
    for k, axes in enumerate(figure.subplots(1, 3, sharey=True)):
        axes.plot(x[:, k, 0], color="0.6")
        axes.plot(future, y_true[k], "o-", color="blue", label="true")
        axes.plot(future, y_torch[k], color="red", label="PyTorch")
        axes.plot(future, y[k], color="green", linestyle="dashed", label="npylstm")
        axes.set(xlabel="t", ylim=(0, 1))
        axes.legend(loc="upper right")
    figure.savefig(HERE / "prediction.png", dpi=120)


def main() -> None:
    """Train, save, convert, record, draw."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the network is tiny: threads would wait for one another
    rng = np.random.default_rng(0)
    network = DampedSineWavePredictionModel(FEATURES, HIDDEN, LAYERS, OUTPUT)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    for step in range(ITERATIONS):
        x, y = examples(rng, BATCH)
        network.zero_grad()
        output, _ = network(x, *states(BATCH))
        loss = criterion(output[-1], y)
        loss.backward()
        optimizer.step()
        if step % 1000 == 999:
            print(f"step {step + 1}: loss {loss.item():.2e}", flush=True)
    network.eval()

    example = (torch.zeros(LENGTH, 2, FEATURES), *states(2))
    save_every_form(network, example, HERE / "damped_sine")
    spec = nc.from_torch(network, example)
    spec = nc.record(spec, TorchRunner(network, spec, example), progress=True)
    npylstm.save(spec, HERE / "damped_sine.npz")
    draw(npylstm.Model(spec), network, rng)
    write_card(HERE, "damped_sine_torch", CARD, "damped_sine.npz")


if __name__ == "__main__":
    main()
