"""Corrections with parameters fitted to the outputs: scales, and the weights of a last layer.

A fit is evidence only if there are more data than parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from npylstm.arrays import Array
from npylstm.errors import NpylstmError
from npylstm.parity.corrections import Correction, Found, Run, Subject, count_different
from npylstm.parity.examples import Example
from npylstm.parity.variants import run_graph

__all__ = ["scaling", "scaling_of_inputs", "weights_stale"]

Arrays = dict[str, Array]
Affine = dict[str, tuple[Array, Array]]  # factor and offset by tensor


def scaling(subject: Subject) -> Found:
    """Outputs are the model's times a factor plus an offset: a scaling was not inverted.

    Only one side applied a ``MinMaxScaler`` or ``StandardScaler`` around the model.
    Source: scikit-learn.org preprocessing (inverse_transform).
    """
    wrong = _wrong_outputs(subject)
    for each in (False, True):
        fitted: Affine = {}
        data: list[int] = []
        features = 0
        for name in wrong:
            mine = np.concatenate([_rows(t.outputs[name], each) for t in subject.tapes])
            other = np.concatenate([_rows(t.example.outputs[name], each) for t in subject.tapes])
            if (
                mine.shape != other.shape
                or not np.isfinite(mine).all()
                or not np.isfinite(other).all()
            ):
                return
            features = max(features, mine.shape[1])
            fitted[name] = _affine(mine, other)
            columns = np.stack([mine, other], axis=2).transpose(1, 0, 2)
            data += [count_different(c) for c in columns if (c[:, 0] != c[:, 1]).any()]
        if not data or (each and features < 2):
            return
        if any(np.abs(pair[0]).min() < _CONSTANT for pair in fitted.values()):
            continue  # constant outputs are not scaled ones
        found = {k: [_plain(v) for v in pair] for k, pair in fitted.items()}
        first, *others = found.values()
        # Report one factor and offset if they are equal for all outputs.
        factor, offset = first if all(pair == first for pair in others) else (
            {k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()},
        )  # fmt: skip
        detail = {"factor": factor, "offset": offset, "of": "outputs"}
        texts = [f"{k}: {_of(pair, each)}" for k, pair in fitted.items()]
        said = _of(fitted[wrong[0]], each) if len(texts) == 1 else "; ".join(texts)

        def around(run: Run, example: Example, fitted: Affine = fitted) -> Arrays:
            made = run(example).tensors
            return {
                k: (y.astype(np.float64) * fitted[k][0] + fitted[k][1]).astype(y.dtype)
                if k in fitted
                else y
                for k, y in made.items()
            }

        # Each column has its own factor and offset: the fewest data of a column decide.
        yield Correction(
            None, detail, f"scale the outputs: they differ by a factor and an offset {said}",
            around=around, free=2, data=min(data),
        )  # fmt: skip


_CONSTANT = 1e-6  # a smaller factor makes outputs constant


def _rows(y: Array, each: bool) -> Array:
    """Reshape values to (rows, features) if ``each``, else (rows, 1)."""
    return y.reshape(-1, y.shape[-1] if each and y.ndim > 1 else 1).astype(np.float64)


def _affine(mine: Array, other: Array) -> tuple[Array, Array]:
    """Return factor and offset of ``other = factor * mine + offset``, least squares by column."""
    mean, mean_other = mine.mean(0), other.mean(0)
    spread = ((mine - mean) ** 2).sum(0)
    together = ((mine - mean) * (other - mean_other)).sum(0)
    factor = np.where(spread > 0, together / np.where(spread > 0, spread, 1), 1.0)
    return factor, mean_other - factor * mean


def _plain(values: Array) -> float | list[float]:
    rounded = [float(f"{v:.7g}") for v in values]
    return rounded[0] if len(rounded) == 1 else rounded


def _of(pair: tuple[Array, Array], each: bool) -> str:
    return "of each feature" if each else f"({_said(pair[0])}, {_said(pair[1])})"


def _said(values: Array) -> str:
    return ", ".join(f"{v:.6g}" for v in values)


def _wrong_outputs(subject: Subject) -> list[str]:
    """Return the outputs that differ by more than 1e-4 times the largest difference."""
    off = {
        name: max(float(np.abs(t.outputs[name] - t.example.outputs[name]).max(initial=0.0))
                  for t in subject.tapes)
        for name in subject.spec.outputs
    }  # fmt: skip
    return [name for name, most in off.items() if most > 1e-4 * max(off.values()) or most != most]


_ITERATIONS = 12
_STARTS = (1.0, 1 / 255, 255.0, 0.01, 100.0, 0.1, 10.0, 0.5, 2.0)
_MOST_FEATURES = 16  # with a separate factor and offset each
_SAMPLES = 4


def scaling_of_inputs(subject: Subject) -> Found:
    """Only one side scaled the inputs: by one factor and offset, or one of each per feature.

    A scaler before the model is missing, or pixels of 0..255 were not divided. Fitted by
    Gauss-Newton.
    """
    names = [tensor.name for tensor in subject.spec.inputs if not tensor.integer]
    for chosen in [[name] for name in names] + [names] * (len(names) > 1):
        size = subject.examples[0].inputs[chosen[0]].shape[-1]
        by_feature = len(chosen) == 1 and 1 < size <= _MOST_FEATURES
        for count in (1, size) if by_feature else (1,):
            found, data = _fit_inputs(subject, chosen, count)
            factor, offset = _plain(found[:count]), _plain(found[count:])

            def around(
                run: Run,
                example: Example,
                p: Array = found,
                count: int = count,
                chosen: Sequence[str] = chosen,
            ) -> Arrays:
                return dict(run(_scaled(example, chosen, p, count)).tensors)

            yield Correction(
                None, {"factor": factor, "offset": offset, "of": "inputs"},
                f"scale the input {' and '.join(chosen)}: on the other side it is "
                f"{_said(found[:count])} x + {_said(found[count:])}",
                around=around, free=2 * count, data=data,
            )  # fmt: skip


def _scaled(example: Example, names: Sequence[str], p: Array, count: int) -> Example:
    moved = {
        name: (x.astype(np.float64) * p[:count] + p[count:]).astype(x.dtype)
        for name, x in example.inputs.items()
        if name in names
    }
    return replace(example, inputs={**example.inputs, **moved})


def _fit_inputs(subject: Subject, names: Sequence[str], count: int) -> tuple[Array, int]:
    """Return fitted factors and offsets, and the number of data."""
    spec = subject.spec
    whole = subject.examples[0]
    example = whole.rows(spec, range(min(spec.count_samples(whole.inputs), _SAMPLES)))
    target = np.concatenate([y.ravel() for y in example.outputs.values()]).astype(np.float64)
    if not np.isfinite(target).all():
        raise NpylstmError("outputs that are not finite cannot be fitted")

    def off(p: Array) -> Array:
        moved = _scaled(example, names, p, count)
        made = run_graph(spec.edges, subject.layers, spec.outputs, moved).tensors
        return np.concatenate([made[k].ravel() for k in example.outputs]) - target

    starts = [np.repeat([s, 0.0], count) for s in (_STARTS if count == 1 else _STARTS[:1])]
    starts.append(np.repeat([1.0, 1 / 64], count))  # an offset removes every mask
    p = min(starts, key=lambda start: _cost(off(start)))
    value = off(p)
    first = _cost(value)
    for number in range(_ITERATIONS):
        step = 2.0**-10 * np.maximum(np.abs(p), 0.1)
        slopes = np.stack([(off(p + d) - value) / d.max() for d in np.diag(step)], axis=1)
        if not (np.isfinite(slopes).all() and np.isfinite(value).all()):
            break
        move = np.linalg.lstsq(slopes, -value, rcond=1e-7)[0]
        scale = 1.0
        while scale > 0.2 and not _cost(off(p + scale * move)) < _cost(value):
            scale /= 2
        if scale <= 0.2:
            break
        p, before = p + scale * move, _cost(value)
        value = off(p)
        if _cost(value) > 0.5 * before or (number >= 2 and _cost(value) > 0.1 * first):
            break
    plain = np.array([float(f"{v:.4g}") if abs(v) > 1e-5 else 0.0 for v in p])
    data = count_different(target[:, None])
    return (plain if _cost(off(plain)) <= 4 * _cost(value) else p), data


def _cost(residual: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        cost = float(residual @ residual)
    return cost if np.isfinite(cost) else float("inf")


# Smaller singular values, relative to the largest, are rounding of float32 and are dropped: their
# weights would be huge.
_COLLINEAR = 1e-6
_COLLINEAR_LEFT = 1e-3  # of a mismatch, as for other fits that are reported without proof
# Weights this many times larger than the model's, or than 1, amplify rounding: anything agrees.
_BEYOND_TRAINING = 100.0


def weights_stale(subject: Subject) -> Found:
    """A last linear layer has the weights of another training. Solved by least squares.

    The outputs were computed with another file than the converted one: a checkpoint of another
    epoch, a retrained head.
    """
    for name in _wrong_outputs(subject):
        for edge in subject.spec.edges:
            named = subject.layers[edge.layer]
            layer = named.layer
            kernel, bias = (layer.weight_with_role(role) for role in ("kernel", "bias"))
            if edge.outputs[0] != name or kernel is None or named.weights[kernel].ndim != 2:
                continue
            linear = all(a.name == "linear" for a in layer.activations.values())
            if not linear or len(subject.edges_of(named.name)) > 1:
                continue
            features, units = named.weights[kernel].shape
            reads = [t.tensors[edge.inputs[0]] for t in subject.tapes]
            A = np.concatenate([r.reshape(-1, features) for r in reads]).astype(np.float64)
            B = np.concatenate(
                [t.example.outputs[name].reshape(-1, units) for t in subject.tapes]
            ).astype(np.float64)
            if len(A) != len(B) or not (np.isfinite(A).all() and np.isfinite(B).all()):
                continue
            if bias is not None:
                A = np.concatenate([A, np.ones((len(A), 1))], axis=1)
            solved, _, rank, _ = np.linalg.lstsq(A, B, rcond=_COLLINEAR)
            unique = rank == A.shape[1] or _is_collinear(subject, edge.inputs[0], A, int(rank))
            most = max(float(np.abs(w).max(initial=1.0)) for w in named.weights.values())
            if float(np.abs(solved).max(initial=0.0)) > _BEYOND_TRAINING * most:
                continue
            weights = {kernel: solved[:features]}
            if float(np.abs(weights[kernel]).max()) < _CONSTANT * float(np.abs(B).max()):
                continue  # constant outputs fit any features
            if bias is not None:
                weights[bias] = solved[features]
            fitted = replace(
                named, weights={k: a.astype(subject.spec.dtype) for k, a in weights.items()}
            )
            yield Correction(
                named.name, {"from": "another training"},
                f"load the weights of {named.name} again: other ones made these outputs",
                {named.name: fitted}, free=int(rank), data=count_different(np.hstack([A, B])),
                # If features are collinear by chance, many weights give these outputs.
                resembles=None if unique else _COLLINEAR_LEFT,
            )  # fmt: skip


def _is_collinear(subject: Subject, tensor: str, features: Array, rank: int) -> bool:
    """Return whether collinear features are so for all inputs, as after a normalization.

    Then all weights that give these outputs are equivalent.
    """
    spec, example = subject.spec, subject.examples[0]
    rng = np.random.default_rng(0)
    inputs = {
        t.name: rng.permuted(x) if t.integer else rng.normal(0, 2, x.shape).astype(x.dtype)
        for t, x in ((t, example.inputs[t.name]) for t in spec.inputs)
    }
    other = replace(example, inputs=inputs)
    made = run_graph(spec.edges, subject.layers, [tensor], other).tensors[tensor]
    others = made.reshape(-1, made.shape[-1]).astype(np.float64)
    others = np.hstack([others, np.ones((len(others), features.shape[1] - others.shape[1]))])
    null = np.linalg.svd(features)[2][rank:].T
    return bool(np.abs(others @ null).max() <= _SAME_PLANE * np.abs(others).max())


_SAME_PLANE = 1e-4  # some hundred roundings of float32
