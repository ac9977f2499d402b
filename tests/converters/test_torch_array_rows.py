"""Rows of array operations: each one beside torch, at two sizes of batch and steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody's name for it
from torch_modules import assert_agrees, normal, seeded

import npylstm


class Function(nn.Module):
    """A module whose forward is one expression."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x):
        return self.compute(x)


def rows(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(x.size(0))


# Of x (batch, steps, 4).
FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "comparisons": lambda x: (x > 0.1).float() + 2 * (x <= -0.3) + 4 * (x[..., :1] < x) + 8 * (x != x[:, :1]),
    "truth": lambda x: ((x > 0) & ~(x > 1) | (x < -1)).float() + torch.logical_xor(x > 0, x > 0.5),
    "bool of floats": lambda x: (x * (x > 0)).bool().float() * 3,
    "integers": lambda x: (x * 3).long().float() + (x * 5).int() // 2,
    "where": lambda x: torch.where(x > 0, x, 0.1 * x) + torch.where(x > 1, 1.0, x),
    "masked_fill": lambda x: x.masked_fill(x > 0.5, -7.0).softmax(1),
    "masked_fill -inf": lambda x: x.masked_fill(x[..., :1] > 2, float("-inf")).amax(1),
    "remainder": lambda x: x % 0.7 + torch.fmod(x, 0.3) + torch.div(x, 0.2, rounding_mode="floor"),
    "clamp": lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=x[..., :1]) + x.clip(max=0.2),
    "argmax": lambda x: (x.argmax(-1), x.argmin(1, keepdim=True)),
    "max": lambda x: (x.max(1)[0], x.max(1)[1], *x.min(-1), torch.maximum(x, -x)),
    "top_k": lambda x: x.topk(2, dim=1)[0] + torch.topk(x, 2, largest=False, dim=1).values,
    "sort": lambda x: (*x.sort(-1, descending=True), x.argsort(-1)),
    "var": lambda x: (x.var(1), x.std((1, 2), keepdim=True), x.var(-1, unbiased=False)),
    "var_mean": lambda x: torch.var_mean(x, 1, correction=0),
    "prod": lambda x: (x.prod(-1), x.logsumexp(1), (x > 2).any(1), (x > -3).all(-1)),
    "cumulative": lambda x: x.cumsum(1) + x.cumprod(-1),
    "norms": lambda x: (x.norm(dim=-1), x.norm(p=1, dim=1), torch.linalg.vector_norm(x, float("inf"), -1)),
    "cosine_similarity": lambda x: F.cosine_similarity(x, x[:, :1] + 1, dim=-1),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "gather": lambda x: x.gather(1, x.argsort(1))[..., :3] + x.take_along_dim(x.argmax(1, True), 1)[..., :3],
    "index_select": lambda x: x.index_select(-1, torch.tensor([2, 0, 2])),
    "index by a constant": lambda x: x[:, :, [3, 1]] + x[..., torch.tensor([0, 1])],
    "index by rows": lambda x: x[rows(x), x[:, :, 0].argmax(1)],
    "index by rows, several": lambda x: x[rows(x).unsqueeze(1), x[:, :, 0].topk(2, 1).indices],
    "index by rows, steps first": lambda x: x.transpose(0, 1)[x[:, :, 0].argmax(1), rows(x)],
    "arange": lambda x: x * torch.arange(x.size(1)).unsqueeze(-1) + torch.arange(4) * 0.5,
    "arange with a step": lambda x: x[..., 0] + torch.arange(1, x.size(1) + 1, 1),
    "a mask of positions": lambda x: x * (torch.arange(x.size(1))[None] < 2).unsqueeze(-1),
    "one_hot": lambda x: F.one_hot((x[..., 0] > 0).long(), 3).float(),
    "scatter": lambda x: torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0),
    "scatter_add": lambda x: x.scatter_add(-1, x.argsort(-1), x),
    "tril": lambda x: torch.tril(x @ x.transpose(1, 2)) + torch.triu(x @ x.transpose(1, 2), 1),
    "constants": lambda x: x @ torch.eye(4) * torch.linspace(0, 1, 4),
    "repeat": lambda x: torch.cat([x.repeat(1, 2, 1), x.repeat(1, 2, 1) * 2], -1).repeat(1, 1, 2),
    "tile": lambda x: x[:, :1].tile(1, 3, 2),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=-1),
    "broadcast_to": lambda x: x[:, :1].broadcast_to(x.shape),
    "roll": lambda x: torch.roll(x, 1, 1) + torch.roll(x, (-1, 2), (1, 2)),
    "unfold": lambda x: x.unfold(1, 3, 2).sum(-1),
    "flip": lambda x: x.flip(1),
    "diff": lambda x: x.diff(dim=1),
    "pad": lambda x: F.pad(x, (1, 2, 2, 0), value=0.5),
    "pad modes": lambda x: F.pad(x, (1, 1), mode="reflect") + F.pad(x, (1, 1), mode="replicate") * F.pad(x, (1, 1), "circular"),
    "negative pad": lambda x: F.pad(x, (0, 0, -1, 0)),
    "select_scatter": lambda x: written(x),
    "slice_scatter": lambda x: written_slice(x),
    "einsum": lambda x: torch.einsum("bti,bsi->bts", x, x) @ x,
    "vectors": lambda x: x @ torch.tensor([1.0, 2.0, 0.5, -1.0]) + torch.tensor(2.0),
    "baddbmm": lambda x: torch.baddbmm(x, x @ x.transpose(1, 2), x),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5) + torch.lerp(x, x * x, 0.3) + torch.frac(x),
    "threshold": lambda x: F.threshold(x, 0.1, -2.0) + x.erf() + x.atan() + torch.log2(x.abs() + 1),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x, is_causal=True),
    "masked attention": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=x @ x.mT > -3),
    "interpolate": lambda x: F.interpolate(x.mT, scale_factor=2) + F.interpolate(x.mT, scale_factor=2, mode="linear"),
    "avg_pool with a rest": lambda x: F.avg_pool1d(x.mT, 2, ceil_mode=True),
    "adaptive_pool": lambda x: F.adaptive_avg_pool1d(x, 2) + F.adaptive_max_pool1d(x, 2),
}  # fmt: skip


def written(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(x.size(0), 3, 4)
    for k in (0, 2):
        y[:, k] = x[:, k] * 2
    y[:, 1, :2] = x[:, 0, 2:]
    return y


def written_slice(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[..., 1:3] = x[..., 2:] + 1
    y[:, 0] = 5.0
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation(name: str) -> None:
    assert_agrees(Function(FUNCTIONS[name]), normal(3, 6, 4), normal(2, 9, 4))


# Of x (batch, 4, height, width).
MODULES: dict[str, Callable[[], nn.Module]] = {
    "conv2d": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=2),
    "conv2d same": lambda: nn.Conv2d(4, 2, 3, padding="same", padding_mode="reflect"),
    "conv_transpose2d": lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
    "max_pool2d": lambda: nn.MaxPool2d(2, padding=1, ceil_mode=True),
    "avg_pool2d": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive pools": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveMaxPool2d(1)),
    "group_norm": lambda: nn.GroupNorm(2, 4),
    "instance_norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "upsample": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "reflection pad": lambda: nn.ReflectionPad2d((1, 2, 0, 1)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_images(name: str) -> None:
    assert_agrees(seeded(MODULES[name]()), normal(2, 4, 6, 8), normal(3, 4, 6, 8))


@pytest.mark.parametrize("name", ["conv_transpose1d", "rms_norm", "group_norm"])
def test_a_module_of_sequences(name: str) -> None:
    made = {
        "conv_transpose1d": nn.ConvTranspose1d(4, 6, 3, stride=2),
        "rms_norm": nn.Sequential(nn.Flatten(2), nn.RMSNorm(5)),
        "group_norm": nn.GroupNorm(4, 4),
    }[name]
    assert_agrees(seeded(made), normal(2, 4, 5), normal(3, 4, 5))


def test_a_transformer() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    module = seeded(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    assert_agrees(module, normal(3, 6, 4), normal(2, 5, 4))


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda x: x[x > 0], "index.Tensor by truth values: how many entries"),
        (lambda x: torch.rand(x.size(1)) + x[..., 0], "rand"),
        (lambda x: F.one_hot(x[..., 0].long()), "one_hot|torch.export cannot trace"),
        (lambda x: x.flip(0), "flip .* batch"),
        (lambda x: x[torch.arange(x.size(0) - 1)], "batch|index"),
    ],
    ids=["mask", "random", "one_hot", "flip of samples", "samples"],
)  # fmt: skip
def test_what_cannot_be(compute: Callable[..., Any], reason: str) -> None:
    import npylstm_converters as nc

    from npylstm import UnsupportedError

    with pytest.raises(UnsupportedError, match=reason):
        nc.from_torch(Function(compute), normal(3, 6, 4))


# Of ids (batch, steps), how a larger id than 11 shows, and the layer that says so.
INTEGERS: dict[str, tuple[Callable[[torch.Tensor], Any], int, str]] = {
    "a hash": (lambda x: (x * 1000003 + 7) % 97, 4999, "mul_integers"),
    "a power": (lambda x: x**3 % 97, 4999, "pow_1_integers"),
    "a total": (lambda x: (x * 1000).cumsum(1) % 97, 16000, "cumsum_integers"),
    "a product": (lambda x: x.prod(1, keepdim=True) * 0 + x.amax(1, True) % 97, 4999, "prod_integers"),
    "alpha": (lambda x: torch.add(x, x, alpha=1000003) % 97, 4999, "add_alpha_integers"),
    "a table": (lambda x: (x[:, :2] * torch.tensor([1, 1000003])).sum(1) % 97, 4999, "mul_integers"),
    "of 32 bits": (lambda x: (x.int() * 1000003) % 97, 4999, "mul_integers"),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "auto"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_that_floats_do_not_hold(name: str, backend: str) -> None:
    """Of larger ids, float32 would hold rounded products, and the remainders would be others."""
    function, large, layer = INTEGERS[name]
    ids = torch.arange(8).reshape(2, 4)
    ids = torch.where(ids == 0, 1, ids)
    module = Function(function).eval()
    model = npylstm.Model(nc.from_torch(module, (ids,)), backend)
    np.testing.assert_array_equal(model.predict(ids.numpy()), module(ids).numpy())
    with pytest.raises(npylstm.ShapeError, match=f"{layer}: expected integers from -16777215 to"):
        model.predict(np.full((2, 4), large))


def test_large_floats_and_truth_values_need_no_check() -> None:
    ids = torch.arange(8).reshape(2, 4) * 5000
    module = Function(lambda x: x.float() * 100003 + (x > 2).sum(1, keepdim=True)).eval()
    spec = nc.from_torch(module, (ids,))
    assert not [layer.name for layer in spec.layers if layer.layer.kind == "integers"]
    np.testing.assert_array_equal(npylstm.Model(spec).predict(ids.numpy()), module(ids).numpy())


def test_a_number_that_floats_do_not_hold() -> None:
    for number in (16777217, torch.tensor([16777217])):
        module = Function(lambda x, number=number: x - number).eval()
        with pytest.raises(npylstm.UnsupportedError, match="computes integers with 16777217"):
            nc.from_torch(module, (torch.ones(2, 4, dtype=torch.long),))
