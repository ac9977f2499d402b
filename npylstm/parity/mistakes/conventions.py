"""Mistakes that operations declare: what another framework computes for the same layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from npylstm.parity.corrections import Cell, Detail, Found, Subject
from npylstm.spec import LayerSpec

__all__ = [
    "epsilon", "forget_bias", "merge_mode", "padding", "reset_after", "update_gate_inverted",
]  # fmt: skip


def _in_conventions(subject: Subject, kind: str, fix: str) -> Found:
    """Yield cells and layers as other conventions of a kind define them."""

    def in_cell(cell: Cell) -> Iterator[tuple[Detail, Cell]]:
        for other in cell.layer.conventions(cell.weights):
            if other.kind == kind:
                (layer,) = other.operation.recurrent_parts().values()
                weights = cell.weights if other.weights is None else other.weights
                yield other.detail, replace(cell, layer=layer, weights=weights)

    def in_layer(named: LayerSpec) -> Iterator[tuple[Detail, LayerSpec]]:
        if "" in named.layer.recurrent_parts():  # it is a cell
            return
        for other in named.layer.conventions(named.weights):
            if other.kind == kind:
                weights = named.weights if other.weights is None else other.weights
                yield other.detail, replace(named, layer=other.operation, weights=weights)

    yield from subject.in_cells(in_cell, fix)
    yield from subject.in_layers(in_layer, fix)


def merge_mode(subject: Subject) -> Found:
    """The two directions are merged in another way.

    Source: keras.io Bidirectional (merge_mode: concat, sum, mul, ave).
    """
    fix = "in {where}, merge the directions by {mode}, not by {from}"
    return _in_conventions(subject, "merge_mode", fix)


def padding(subject: Subject) -> Found:
    """A convolution pads on other sides: ``same`` for ``causal``, before for after.

    TensorFlow's ``same`` adds the odd step at the end, PyTorch's ``padding=`` pads both equally,
    ``causal`` all at the start. Source: keras.io Conv1D (padding), pytorch.org Conv1d (padding).
    """
    return _in_conventions(subject, "padding", "in {where}, pad {to} instead of {from}")


def epsilon(subject: Subject) -> Found:
    """A normalization uses another epsilon, or adds it outside the square root.

    Keras 1e-3, PyTorch 1e-5, TensorFlow's layers 1e-3 or 1e-12, papers 1e-5. Source: keras.io
    BatchNormalization and LayerNormalization (epsilon), pytorch.org BatchNorm1d, LayerNorm (eps).
    """
    return _in_conventions(subject, "epsilon", "in {where}, use epsilon {to} instead of {from}")


def reset_after(subject: Subject) -> Found:
    """The reset gate of a GRU is applied on the other side of the recurrent product.

    Keras since TF 2, PyTorch and cuDNN apply it after the product and keep a second bias inside;
    Keras before, ONNX by default and CoreML before it, or with the bias outside.
    Source: keras.io GRU (reset_after), onnx.ai GRU (linear_before_reset).
    """
    return _in_conventions(subject, "reset_after", "in {where}, apply the reset gate {rule}")


def update_gate_inverted(subject: Subject) -> Found:
    """The update gate of a GRU weighs the candidate instead of the old state.

    Papers differ: ``h = z h + (1 - z) h~`` (Keras, PyTorch, ONNX) or ``(1 - z) h + z h~`` (Cho's
    later papers, CoreML). With a sigmoid, 1 - s(a) = s(-a).
    """
    fix = "in {where}, exchange z and 1 - z where the states are mixed"
    return _in_conventions(subject, "update_gate_inverted", fix)


def forget_bias(subject: Subject) -> Found:
    """The forget gate's bias is larger or smaller by one.

    TensorFlow 1 added ``forget_bias`` of 1 at run time, Keras adds it to the initial bias
    (``unit_forget_bias``). Source: tensorflow.org compat.v1.nn.rnn_cell.LSTMCell.
    """
    fix = "in {where}, add {offset:+g} to the bias of the forget gate"
    return _in_conventions(subject, "forget_bias", fix)
