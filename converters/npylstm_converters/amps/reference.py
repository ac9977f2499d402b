"""Build the network of a capture in PyTorch, from the file; which was converted before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from npylstm_converters import layouts
from npylstm_converters.amps.nam import sizes_of
from npylstm_converters.amps.parts import gain_of
from npylstm_converters.toolkit.torch_reference import Step, linear, module, recurrent

__all__ = ["build"]

Document = Mapping[str, Any]


def build(torch: Any, document: Document) -> list[Step]:
    """Return the parts of the network of a file, in order."""
    if "architecture" in document:
        return _nam(torch, document)
    if "model_data" in document:
        return _guitarml(torch, document)
    return _rtneural(torch, document)


def _nam(torch: Any, document: Document) -> list[Step]:
    features, units, layers, outputs = sizes_of(document["config"])
    left = np.array(document["weights"], np.float32)
    stack, initial = [], []
    for k in range(layers):
        width = (units if k else features) + units
        ends = np.cumsum([4 * units * width, 4 * units, units, units])
        kernels, bias, h, c, left = np.split(left, ends)
        kernels = kernels.reshape(4 * units, width)
        stack.append([kernels[:, :-units], kernels[:, -units:], bias, 0 * bias])
        initial.append((h, c))
    states = [np.stack(both) for both in zip(*initial, strict=True)]
    head = left[: outputs * units].reshape(outputs, units)
    return [
        recurrent(torch, "LSTM", stack, initial=states),
        linear(torch, head, left[outputs * units :]),
    ]


def _guitarml(torch: Any, document: Document) -> list[Step]:
    options, tensors = document["model_data"], document["state_dict"]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    stack = [[tensors[f"rec.{name}_l{k}"] for name in names] for k in range(options["num_layers"])]
    steps = [
        recurrent(torch, options["unit_type"], stack),
        linear(torch, tensors["lin.weight"], tensors.get("lin.bias")),
    ]
    return _with_skip(steps, options["skip"])


def _with_skip(steps: Sequence[Step], columns: int) -> list[Step]:
    """Return one step that adds the first columns of its input to the output."""

    def run(x: Any, states: Iterator[Any] | None) -> Any:
        y = x
        for step in steps:
            y = step(y, states)
        return y + x[..., :columns] if columns else y

    return [run]


def _rtneural(torch: Any, document: Document) -> list[Step]:
    gains = [gain_of(name, document.get(name, 0)) for name in ("in_gain", "out_gain")]
    columns = torch.ones(document["in_shape"][-1])
    columns[0] = gains[0]
    steps = [step for entry in document["layers"] for step in _layer(torch, entry)]
    return [
        module(lambda x: x * columns),
        *_with_skip(steps, document.get("in_skip", 0)),
        module(lambda x: x * gains[1]),
    ]


def _layer(torch: Any, entry: Document) -> list[Step]:
    kind, activation = entry["type"], entry.get("activation", "")
    w = [np.array(array, np.float32) for array in entry.get("weights", ())]
    F = torch.nn.functional
    if kind == "lstm":
        return [recurrent(torch, "LSTM", [[w[0].T, w[1].T, w[2], 0 * w[2]]])]
    if kind == "gru":
        return [recurrent(torch, "GRU", [layouts.torch_from_keras_gru(*w)])]
    steps = []
    if kind.endswith("dense"):
        steps.append(linear(torch, w[0].T, w[1] if len(w) > 1 else None))
    elif kind == "conv1d":
        kernel, bias = torch.from_numpy(w[0].transpose(2, 1, 0).copy()), torch.from_numpy(w[1])
        rate = entry["dilation"][-1] if isinstance(entry["dilation"], list) else entry["dilation"]
        before, groups = (kernel.shape[2] - 1) * rate, entry.get("groups", 1)
        steps.append(
            module(
                lambda x: (
                    F.conv1d(
                        F.pad(x.mT, (before, 0)), kernel, bias, dilation=rate, groups=groups
                    ).mT
                )
            )
        )
    elif kind == "prelu":
        slopes = torch.from_numpy(w[0][0])
        steps.append(module(lambda x: F.prelu(x.mT, slopes).mT))
    elif kind == "batchnorm":
        *affine, mean, variance = (torch.from_numpy(array) for array in w)
        epsilon = entry["epsilon"]
        steps.append(module(lambda x: F.batch_norm(x.mT, mean, variance, *affine, eps=epsilon).mT))
    if activation:
        softmax = torch.nn.Softmax(-1)
        steps.append(module(softmax if activation == "softmax" else getattr(F, activation)))
    return steps
