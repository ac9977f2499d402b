"""What tests of live PyTorch modules share: inputs, weights that differ, and the comparison."""

from __future__ import annotations

from typing import Any

import npylstm_converters as nc
import numpy as np
import torch
from torch import nn

from npylstm import Model, ModelSpec


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return torch.as_tensor(values.astype(np.float32))


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in inference mode; every weight differs, no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    return module.eval()


def leaves(value: Any) -> list[Any]:
    """All tensors of an example or of outputs, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in leaves(part)]
    return [] if value is None else [value]


def answers(model: Model, sample: Any) -> list[Any]:
    arrays = [leaf.numpy() for leaf in leaves(sample) if isinstance(leaf, torch.Tensor)]
    return leaves(model.predict(arrays if len(arrays) > 1 else arrays[0]))


def call(module: Any, sample: Any) -> list[Any]:
    with torch.no_grad():
        if isinstance(sample, dict):
            return leaves(module(**sample))
        return leaves(module(*(sample if isinstance(sample, tuple) else (sample,))))


def assert_agrees(module: Any, *samples: Any, source: Any = None) -> ModelSpec:
    """Convert with the first sample as example; the outputs are torch's on all of them.

    float32 sums in another order: errors of a few roundings of the largest number.
    """
    spec = nc.from_torch(module if source is None else source, samples[0])
    model = Model(spec, "numpy")
    for sample in samples:
        theirs = call(module, sample)
        for number, (ours, wanted) in enumerate(zip(answers(model, sample), theirs, strict=True)):
            expected = wanted.numpy()
            assert ours.shape == expected.shape, (number, ours.shape, expected.shape)
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * scale)
    return spec
