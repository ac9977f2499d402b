"""What fewer bits cost three models that were really trained: ``python trained.py``, some minutes.

A character model of 256 units (trained on this repository's pages and sources), a forecaster of 64
units (a sum of sines), and a bidirectional tagger of 64 units (words with classes that depend on
their neighbours). Printed are, against float64: the relative rms of the outputs, early and after
3,000 steps, and the share of equal largest values; for npylstm, ONNX Runtime and torch.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import npylstm_converters as nc
import numpy as np
import torch
from quantized import in_int8

import npylstm

ROOT = Path(__file__).resolve().parent.parent
Array = np.ndarray


class Characters(torch.nn.Module):
    """Logits of the next character."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(count, 64)
        self.lstm = torch.nn.LSTM(64, 256, batch_first=True)
        self.dense = torch.nn.Linear(256, count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.lstm(self.embedding(x))[0])


class Forecaster(torch.nn.Module):
    """The next value of a series."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(1, 64, batch_first=True)
        self.dense = torch.nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.lstm(x)[0])


class Tagger(torch.nn.Module):
    """Logits of the class of each word."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(words, 32)
        self.lstm = torch.nn.LSTM(32, 64, batch_first=True, bidirectional=True)
        self.dense = torch.nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.lstm(self.embedding(x))[0])


Batch = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def train(module: torch.nn.Module, batch: Batch, loss: Any, steps: int) -> None:
    """Train with Adam."""
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for k in range(steps):
        if k == steps * 2 // 3:
            optimizer.param_groups[0]["lr"] = 5e-4
        x, y = batch()
        value = loss(module(x), y)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    print(f"{type(module).__name__}: {steps} steps, loss {float(value):.4f}", flush=True)


def cross_entropy(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(y.transpose(1, 2), target)


def characters() -> tuple[torch.nn.Module, torch.Tensor]:
    files = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("npylstm/**/*.py"))]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    known = sorted({c for c in text if c.isascii()})
    ids = torch.tensor([known.index(c) for c in text if c.isascii()])
    kept = len(ids) - 3001

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.stack([ids[k : k + 65] for k in torch.randint(0, kept - 65, (32,)).tolist()])
        return rows[:, :-1], rows[:, 1:]

    module = Characters(len(known))
    train(module, batch, cross_entropy, 900)
    return module, ids[None, kept : kept + 3000]


def forecaster() -> tuple[torch.nn.Module, torch.Tensor]:
    def wave(rows: int, steps: int) -> torch.Tensor:
        t, phase = torch.arange(steps)[None] * 0.13, torch.rand(rows, 1) * 6.28
        return (0.6 * torch.sin(t + phase) + 0.3 * torch.sin(2.7 * t + 2 * phase))[..., None]

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        x = wave(32, 101)
        return x[:, :-1], x[:, 1:]

    module = Forecaster()
    train(module, batch, torch.nn.MSELoss(), 1500)
    return module, wave(1, 3000)


def tagger() -> tuple[torch.nn.Module, torch.Tensor]:
    words, classes = 500, 12
    order = torch.randint(0, classes, (words,))

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randint(0, words, (32, 40))
        kind = order[x]
        before, after = (torch.roll(kind, shift, dims=1) for shift in (1, -1))
        return x, torch.where(kind % 3 == 0, before, torch.where(kind % 3 == 1, after, kind))

    module = Tagger(words, classes)
    train(module, batch, cross_entropy, 1200)
    return module, torch.randint(0, words, (1, 3000))


def compare(module: torch.nn.Module, x: torch.Tensor) -> None:
    """Print a row for each system and type."""
    module.eval()
    with torch.no_grad():
        right = module.double()(x.double() if x.is_floating_point() else x).numpy()
        module.float()
        plain = module(x).numpy()
    spec = nc.from_torch(module, x[:, :10])
    made = {"torch float32": plain, "npylstm float32": npylstm.Model(spec).predict(x.numpy())}
    for name in ("int8", "bfloat16", "int16"):
        made[f"npylstm {name}"] = npylstm.Model(spec.quantize(name)).predict(x.numpy())
    content = io.BytesIO()
    torch.onnx.export(module, (x,), content, dynamo=False, input_names=["x"], opset_version=17)
    import peers

    for label, by_column in (("onnxruntime int8", False), ("onnxruntime int8 by column", True)):
        session = peers.onnx_session(in_int8(content.getvalue(), by_column), 1)
        made[label] = session.run(None, {"x": x.numpy()})[0]
    kinds = {torch.nn.LSTM, torch.nn.Linear}
    quantized = torch.ao.quantization.quantize_dynamic(module, kinds, dtype=torch.qint8)
    with torch.no_grad():
        made["torch int8"] = quantized(x).numpy()
    size = np.sqrt(np.mean(right**2))
    print(f"\n| {type(module).__name__} | relative rms | steps 1 to 50 | steps 2,950 to 3,000 | "
          "same argmax |\n|---|---|---|---|---|")  # fmt: skip
    for name, y in made.items():
        errors = [np.sqrt(np.mean((y - right)[:, part] ** 2)) / size
                  for part in (slice(None), slice(0, 50), slice(2950, 3000))]  # fmt: skip
        same = np.mean(y.argmax(-1) == right.argmax(-1)) if right.shape[-1] > 1 else None
        cells = [*(f"{error:.2%}" for error in errors), "" if same is None else f"{same:.2%}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for make in (characters, forecaster, tagger):
        compare(*make())


if __name__ == "__main__":
    main()
