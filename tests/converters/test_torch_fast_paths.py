"""Transformer encoders with a padding mask: PyTorch's fast path sets padded steps to zero."""

from __future__ import annotations

from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from torch import nn
from torch_modules import assert_agrees, normal, seeded

from npylstm import Model


class Encoder(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder, self.masked = nn.TransformerEncoder(layer, 2), masked

    def forward(self, x, n):
        hidden = torch.arange(x.size(1))[None] >= n[:, None] if self.masked else None
        return self.encoder(x, src_key_padding_mask=hidden).sum(1) + 0 * n[:, None]


@pytest.fixture
def fast_path() -> Any:
    yield torch.backends.mha
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("lengths", [[6, 6], [6, 4]])
def test_the_fast_path_is_stated(lengths: list[int], fast_path: Any) -> None:
    module, x = seeded(Encoder(masked=True)), normal(2, 6, 4)
    spec = nc.from_torch(module, (x, torch.tensor(lengths)))
    assert fast_path.get_fastpath_enabled()
    assert spec.provenance["proof"] == "assumed"
    assert "set_fastpath_enabled(False)" in spec.provenance["stated"][0]
    n = torch.tensor([6, 3])
    made = Model(spec, "numpy").predict([x.numpy(), n.numpy()])
    with torch.no_grad():
        fast = module(x, n).numpy()
        fast_path.set_fastpath_enabled(False)
        slow = module(x, n).numpy()
    np.testing.assert_allclose(made, slow, rtol=0, atol=1e-5)
    assert np.abs(fast - slow).max() > 1e-2


def test_an_encoder_without_a_mask() -> None:
    n = torch.tensor([6, 4])
    spec = assert_agrees(seeded(Encoder(masked=False)), (normal(2, 6, 4), n))
    assert spec.provenance["proof"] == "proven"
