"""Packing inside forward becomes lengths: of an input, of the tokens, of a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
import torch
from npylstm_converters.torch.importer import IMPORTER
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)
from torch_modules import answers, assert_agrees, call, normal, seeded

from npylstm import Model, NpylstmError, UnsupportedError

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Packed(nn.Module):
    """Pack, run, and read: every step, the last states, or the sum of the outputs."""

    def __init__(
        self, kind: str, read: str, *, first: bool = True, ordered: bool = False, **options: Any
    ) -> None:
        super().__init__()
        self.rnn = KINDS[kind](3, 5, batch_first=first, **options)
        self.read, self.first, self.ordered = read, first, ordered

    def forward(self, x, lengths):
        packed = pack_padded_sequence(
            x, lengths.cpu(), batch_first=self.first, enforce_sorted=self.ordered
        )
        y, state = self.rnn(packed)
        h = state[0] if isinstance(state, tuple) else state
        if self.read == "states":
            return state
        if self.read == "hidden":
            return torch.cat([h[-2], h[-1]], 1)
        steps = x.size(1 if self.first else 0)
        y, counts = pad_packed_sequence(y, batch_first=self.first, total_length=steps)
        if self.read == "mean":
            return y.sum(1) / counts.unsqueeze(1)
        return y


def lengths(*values: int) -> torch.Tensor:
    return torch.tensor(values)


SAMPLES = [
    (normal(3, 5, 3), lengths(5, 2, 4)),
    (normal(2, 7, 3), lengths(3, 6)),
    (normal(1, 4, 3), lengths(1)),
    (normal(4, 1, 3), lengths(1, 1, 1, 1)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", ["all", "states", "hidden", "mean"])
def test_lengths_of_an_input(kind: str, read: str) -> None:
    module = seeded(Packed(kind, read, num_layers=2, bidirectional=True))
    assert_agrees(module, *SAMPLES)


def test_sequences_first_and_sorted() -> None:
    module = seeded(Packed("lstm", "all", first=False, ordered=True))
    assert_agrees(module, (normal(5, 3, 3), lengths(5, 4, 2)), (normal(7, 2, 3), lengths(6, 1)))


def test_all_sequences_are_full() -> None:
    class Full(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            counts = torch.full((x.size(0),), x.size(1))
            y, _ = self.rnn(pack_padded_sequence(x, counts, batch_first=True))
            return pad_packed_sequence(y, batch_first=True)[0]

    assert_agrees(seeded(Full()), normal(3, 5, 3), normal(2, 8, 3))


def test_the_module_stays_as_it_was() -> None:
    """Packing is replaced during the trace only."""
    module = seeded(Packed("gru", "all"))
    before = call(module, SAMPLES[1])[0]
    nc.from_torch(module, SAMPLES[0])
    assert torch.equal(call(module, SAMPLES[1])[0], before)
    assert isinstance(pack_padded_sequence(normal(2, 3, 1), lengths(3, 1), True).data, torch.Tensor)
    assert pack_padded_sequence(normal(2, 3, 1), lengths(3, 1), True).data.shape == (4, 1)


def forward_of(how: Callable[[Any, torch.Tensor], Any]) -> type[nn.Module]:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 3, padding_idx=0)
            self.rnn, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, ids, counts):
            packed = pack_padded_sequence(
                self.embed(ids), how(counts, ids), batch_first=True, enforce_sorted=False
            )
            packed = PackedSequence(torch.tanh(packed.data), *packed[1:])
            packed, _ = self.rnn(packed)
            y, _ = pad_packed_sequence(packed, batch_first=True, padding_value=-3.0)
            return self.head(y)

    return Tagger


IDS = torch.tensor([[4, 5, 6, 7, 8], [9, 3, 0, 0, 0], [1, 2, 3, 0, 0]])


@pytest.mark.parametrize(
    "how",
    [
        lambda counts, ids: counts.tolist(),
        lambda counts, ids: counts.cpu().numpy(),
        lambda counts, ids: counts.to("cpu", torch.int64),
        lambda counts, ids: counts.view(-1),
    ],
    ids=["list", "numpy", "to", "view"],
)
def test_forms_of_lengths_and_operations_on_packed_data(how: Callable[..., Any]) -> None:
    module = seeded(forward_of(how)())
    samples = [(IDS, lengths(5, 2, 3)), (IDS[:2, :3], lengths(3, 1))]
    assert_agrees(module, *samples)


def test_a_list_among_the_arguments_becomes_an_input() -> None:
    module = seeded(forward_of(lambda counts, ids: counts)())
    spec = nc.from_torch(module, (IDS, [5, 2, 3]))
    assert [tensor.name for tensor in spec.inputs] == ["ids", "counts"]
    ours = answers(Model(spec), (IDS[:2], lengths(2, 5)))
    np.testing.assert_allclose(ours[0], call(module, (IDS[:2], [2, 5]))[0], rtol=1e-5, atol=1e-5)


def test_all_steps_are_kept_where_torch_keeps_those_of_the_longest() -> None:
    """Without total_length, torch's output ends with the longest sequence; the rest is padding."""
    module = seeded(forward_of(lambda counts, ids: counts)())
    sample = (IDS, lengths(4, 2, 3))
    (wanted,) = call(module, sample)
    spec = nc.from_torch(module, sample)
    (ours,) = answers(Model(spec), sample)
    assert wanted.shape[1] == 4
    assert ours.shape[1] == 5
    assert any("pad_packed_sequence removes the rest" in d for d in spec.provenance["decisions"])
    np.testing.assert_allclose(ours[:, :4], wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_a_total_length_of_its_own() -> None:
    """A fixed one fits inputs of so many steps."""

    class Fixed(nn.Module):
        def __init__(self, steps: int) -> None:
            super().__init__()
            self.rnn, self.steps = nn.GRU(3, 4, batch_first=True), steps

        def forward(self, x, counts):
            y, _ = self.rnn(pack_padded_sequence(x, counts, True, False))
            return pad_packed_sequence(y, True, total_length=self.steps)[0]

    samples = [(normal(3, 6, 3), lengths(4, 6, 2)), (normal(2, 6, 3), lengths(1, 5))]
    assert_agrees(seeded(Fixed(6)), *samples)
    with pytest.raises(UnsupportedError, match=r"total_length=9\): expected an example of 9 steps"):
        nc.from_torch(seeded(Fixed(9)), samples[0])


def test_recorded_cases_have_lengths() -> None:
    """Drawn inputs are lengths that torch accepts: the first sequence fills all steps."""
    module = seeded(forward_of(lambda counts, ids: counts)())
    example = (IDS, lengths(5, 2, 3))
    spec = nc.from_torch(module, example)
    spec = nc.record(spec, IMPORTER.runner(module, spec, example=example), 4)
    assert Model(spec).verify().passed
    assert {case.inputs["counts"].max() for case in spec.cases} == {
        case.inputs["ids"].shape[1] for case in spec.cases
    }


class Sorted(nn.Module):
    """Samples sorted by hand before they are packed, as older versions of torch needed it."""

    def __init__(self, restored: str) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)
        self.restored = restored

    def forward(self, x, counts):
        counts, order = counts.sort(descending=True)
        x = x[order] if self.restored != "select" else x.index_select(0, order)
        packed = pack_padded_sequence(x, counts.cpu(), batch_first=True)
        y, (h, _) = self.rnn(packed)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.size(1))
        if self.restored == "sort":
            _, back = order.sort()
            return self.head(y[back]), h[-1].index_select(0, back)
        if self.restored == "not":
            return self.head(y)
        back = torch.argsort(order)
        return self.head(y)[back], h[:, back]


@pytest.mark.parametrize("restored", ["sort", "argsort", "select"])
def test_samples_sorted_by_hand(restored: str) -> None:
    samples = [(normal(3, 5, 3), lengths(2, 5, 4)), (normal(4, 7, 3), lengths(3, 1, 7, 5))]
    assert_agrees(seeded(Sorted(restored)), *samples)


def test_samples_that_stay_sorted() -> None:
    with pytest.raises(UnsupportedError, match="outputs are in the order of the samples' lengths"):
        nc.from_torch(seeded(Sorted("not")), (normal(3, 5, 3), lengths(2, 5, 4)))


def test_packed_sequences_as_inputs_and_outputs_are_refused() -> None:
    class Returning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)

        def forward(self, x, counts):
            return self.rnn(pack_padded_sequence(x, counts, True, False))[0]

    module = seeded(Returning())
    with pytest.raises(UnsupportedError, match="returns a PackedSequence: return the tensor"):
        nc.from_torch(module, (normal(3, 5, 3), lengths(5, 2, 4)))
    packed = pack_padded_sequence(normal(2, 5, 3), lengths(5, 2), True)
    with pytest.raises(NpylstmError, match=r"is a PackedSequence.* let forward take the padded"):
        nc.from_torch(module, packed)


@pytest.mark.parametrize("seed", range(4))
def test_what_reads_removed_steps_is_noted_for_any_numbers(seed: int) -> None:
    """The largest of all steps may be a zero that PyTorch removes: small numbers hide it."""

    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x, n):
            packed = pack_padded_sequence(x, n, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0].max(1)[0]

    example = normal(2, 6, 3, seed=seed), torch.tensor([6, 4])
    spec = nc.from_torch(seeded(Largest(), seed), example)
    (note,) = [text for text in spec.provenance["decisions"] if "removes the rest" in text]
    assert "depend" in note
