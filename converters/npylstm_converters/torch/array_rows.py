"""Rows of array operations: comparisons, choices, reductions, indices, windows."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from npylstm_converters.toolkit import array_ops
from npylstm_converters.toolkit import index_ops as array_ops_index
from npylstm_converters.toolkit.translation import Row
from npylstm_converters.torch import index_ops, logic_ops, reduce_ops, window_ops
from npylstm_converters.torch.naming import rows

__all__ = ["all_rows"]

_COMPARISONS = {
    "equal": ("eq",), "not_equal": ("ne", "not_equal"), "less": ("lt", "less"),
    "less_equal": ("le", "less_equal"), "greater": ("gt", "greater"),
    "greater_equal": ("ge", "greater_equal"),
}  # fmt: skip
_ARITHMETIC = {
    "maximum": ("maximum.default", "max.other", "fmax.default"),
    "minimum": ("minimum.default", "min.other", "fmin.default"),
    "floor_divide": ("floor_divide.default", "floor_divide.Scalar"),
    "mod": ("remainder.Tensor", "remainder.Scalar"),
    "fmod": ("fmod.Tensor", "fmod.Scalar"),
    "atan2": ("atan2.default", "arctan2.default"),
    "logical_and": ("logical_and.default",), "logical_or": ("logical_or.default",),
    "logical_xor": ("logical_xor.default",),
}  # fmt: skip


def all_rows() -> Iterator[Row]:
    """Yield all rows of this file."""
    yield from _logic()
    yield from _reductions()
    yield from _indices()
    yield from _windows()


def _logic() -> Iterator[Row]:
    for operation, names in _COMPARISONS.items():
        both = [f"{name}.{kind}" for name in names for kind in ("Tensor", "Scalar")]
        yield from rows(array_ops.arithmetic(operation), *both)
    for operation, names in _ARITHMETIC.items():
        yield from rows(array_ops.arithmetic(operation), *names)
    for word in ("and", "or", "xor"):
        names = (f"bitwise_{word}.Tensor", f"bitwise_{word}.Scalar", f"__{word}__.Tensor")
        yield from rows(logic_ops.bitwise(f"logical_{word}"), *names)
    yield from rows(logic_ops.bitwise_not, "bitwise_not.default")
    yield from rows(logic_ops.where, "where.self", "where.ScalarOther", "where.ScalarSelf",
                    self="x", other="y")  # fmt: skip
    yield from rows(logic_ops.masked_fill, "masked_fill.Scalar", "masked_fill.Tensor")
    yield from rows(logic_ops.divide, "div.Tensor_mode", "div.Scalar_mode")
    yield from rows(array_ops.clip, "clamp.default", "clip.default", "clamp_min.default",
                    "clamp_max.default", "clamp.Tensor", "clip.Tensor", "clamp_min.Tensor",
                    "clamp_max.Tensor", min="low", max="high")  # fmt: skip


def _reductions() -> Iterator[Row]:
    for word in ("max", "min"):
        yield from rows(array_ops.reduce(word), f"a{word}.default", f"{word}.default")
        yield from rows(reduce_ops.extreme(word), f"{word}.dim")
        yield from rows(reduce_ops.arg_extreme(word), f"arg{word}.default")
    yield from rows(array_ops.reduce("prod"), "prod.default", "prod.dim_int")
    yield from rows(
        array_ops.reduce("log_sum_exp"), "logsumexp.default", "special_logsumexp.default"
    )
    for word in ("any", "all"):
        yield from rows(array_ops.reduce(word), f"{word}.default", f"{word}.dim", f"{word}.dims")
    for word in ("var", "std"):
        names = [f"{word}.{kind}" for kind in ("default", "dim", "correction")]
        yield from rows(reduce_ops.spread(word), *names)
        names = [f"{word}_mean.{kind}" for kind in ("default", "dim", "correction")]
        yield from rows(reduce_ops.spread_and_mean(word), *names)
    yield from rows(array_ops.cumulative("sum"), "cumsum.default")
    yield from rows(array_ops.cumulative("prod"), "cumprod.default")
    yield from rows(array_ops.cumulative("log_sum_exp"), "logcumsumexp.default")
    yield from rows(
        array_ops.cosine_similarity, "cosine_similarity.default", x1="x", x2="y", eps="epsilon"
    )


def _indices() -> Iterator[Row]:
    yield from rows(index_ops.arange, "arange.default", "arange.start", "arange.start_step",
                    neutral=("end",))  # fmt: skip
    yield from rows(index_ops.index, "index.Tensor")
    yield from rows(index_ops.index_select, "index_select.default")
    yield from rows(index_ops.gather, "gather.default", neutral=("sparse_grad",))
    yield from rows(index_ops.take_along, "take_along_dim.default", indices="index")
    yield from rows(
        array_ops_index.scatter_elements(), "scatter.src", index="indices", src="updates"
    )
    yield from rows(array_ops_index.scatter_elements("add"), "scatter_add.default", index="indices",
                    src="updates")  # fmt: skip
    yield from rows(index_ops.scatter_value, "scatter.value")
    yield from rows(index_ops.one_hot, "one_hot.default")
    yield from rows(index_ops.top_k, "topk.default", neutral=("sorted",))
    yield from rows(index_ops.sort, "sort.default", "sort.stable", neutral=("stable",))
    yield from rows(index_ops.argsort, "argsort.default", "argsort.stable", neutral=("stable",))
    yield from rows(index_ops.copy, "copy.default", neutral=("self",))
    yield from rows(index_ops.select_scatter, "select_scatter.default")
    yield from rows(index_ops.slice_scatter, "slice_scatter.default", neutral=("end",))
    yield from rows(array_ops_index.trilu, "tril.default", diagonal="k")
    yield from rows(
        functools.partial(array_ops_index.trilu, upper=True), "triu.default", diagonal="k"
    )


def _windows() -> Iterator[Row]:
    convolutions = [f"conv{n}d.{kind}" for n in (1, 2, 3) for kind in ("default", "padding")]
    flags = ("benchmark", "deterministic", "cudnn_enabled", "allow_tf32")
    others = ("convolution.default", "_convolution.default", "_convolution.deprecated")
    yield from rows(window_ops.convolution, *convolutions, *others, neutral=flags)
    transposed = ("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
    yield from rows(window_ops.convolution_transpose, *transposed)
    for n in (1, 2, 3):
        yield from rows(window_ops.pool("max", n), f"max_pool{n}d.default",
                        f"max_pool{n}d_with_indices.default")  # fmt: skip
        yield from rows(window_ops.pool("mean", n), f"avg_pool{n}d.default")
        yield from rows(window_ops.adaptive_pool("mean"), f"adaptive_avg_pool{n}d.default",
                        f"_adaptive_avg_pool{n}d.default")  # fmt: skip
        yield from rows(window_ops.adaptive_pool("max"), f"adaptive_max_pool{n}d.default")
        for mode, word in {"reflect": "reflection", "replicate": "replication"}.items():
            yield from rows(window_ops.pad_as(mode), f"{word}_pad{n}d.default")
    for n, word in enumerate(("linear", "bilinear", "trilinear"), 1):
        yield from rows(window_ops.interpolate("nearest", n), f"upsample_nearest{n}d.vec",
                        input="x")  # fmt: skip
        exact = window_ops.interpolate("nearest", n, "round_prefer_floor")
        yield from rows(exact, f"_upsample_nearest_exact{n}d.vec")
        yield from rows(window_ops.interpolate("linear", n), f"upsample_{word}{n}d.vec")
    yield from rows(window_ops.interpolate("cubic", 2), "upsample_bicubic2d.vec")
    yield from rows(window_ops.pad, "pad.default", "constant_pad_nd.default")
    yield from rows(window_ops.group_norm, "group_norm.default", neutral=("cudnn_enabled",))
    yield from rows(window_ops.instance_norm, "instance_norm.default",
                    neutral=("momentum", "cudnn_enabled"))  # fmt: skip
    yield from rows(window_ops.rms_norm, "rms_norm.default", normalized_shape="shape")
