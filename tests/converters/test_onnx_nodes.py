"""The onnx package's own cases of operators: each has the expected numbers, or is refused."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import npylstm_converters as nc
import numpy as np
import pytest
from npylstm_converters.onnx.rows import ROWS

import npylstm
from npylstm import NpylstmError

DTYPES = {"float32", "float64", "int32", "int64", "bool"}
RECURRENT = {"LSTM", "GRU", "RNN"}
# What the operators of the package's cases are tested with, beside the tolerance of a case itself.
RTOL, ATOL = 1e-3, 1e-7

# By reason, the cases that do not convert, or that a converted model refuses to compute.
REFUSED: Mapping[str, tuple[str, ...]] = {
    "normalizes by the batch itself": (
        "batchnorm_example_training_mode", "batchnorm_epsilon_training_mode",
    ),
    # Whether it is training is an input.
    "Dropout y.*: expected sizes or a constant": (
        "training_dropout_default", "training_dropout", "training_dropout_zero_ratio",
        "training_dropout_default_mask", "training_dropout_mask", "training_dropout_zero_ratio_mask",
    ),
    # The values of the only input determine the shape of the output.
    "expected sizes or a constant, got a tensor that is computed from an input": (
        "constantofshape_float_ones", "constantofshape_int_zeros", "constantofshape_int_shape_zero",
        "range_float_type_positive_delta", "range_int32_type_negative_delta",
        "reshape_allowzero_reordered",
    ),
    "whether it begins depends on the values of an input": (
        "loop11", "range_float_type_positive_delta_expanded",
        "range_int32_type_negative_delta_expanded",
    ),
    "its condition depends on the values of an input": ("if", "if_seq", "if_opt"),
    "expected a tensor, got sequence_type": ("identity_sequence", "loop13_seq"),
    "expected a tensor, got optional_type": ("identity_opt", "loop16_seq_none"),
    # A batch of one that is broadcast to the batch of another input.
    r"\(batch is 1 in [ax]\)": ("and_bcast4v4d", "or_bcast4v4d", "xor_bcast4v4d", "matmul_bcast"),
    "returns indices": ("maxpool_with_argmax_2d_precomputed_pads",),
    "storage_order=1 is not supported": ("maxpool_with_argmax_2d_precomputed_strides",),
    "OneHot y: values: expected a constant": (
        "onehot_negative_indices", "onehot_out_of_range_indices",
    ),
    # Tensors without elements.
    r"expected \((batch, )?steps,?( 5)?\), got \((3, )?0,?( 5)?\)": (
        "split_zero_size_splits_opset13", "split_zero_size_splits_opset18", "triu_zero", "tril_zero",
    ),
    r"expected \(batch, steps, 4\), got \(2, 0, 4\)": (
        "reduce_log_sum_empty_set", "reduce_log_sum_empty_set_expanded",
        "reduce_log_sum_exp_empty_set", "reduce_l1_empty_set", "reduce_l1_empty_set_expanded",
        "reduce_l2_empty_set", "reduce_max_empty_set", "reduce_max_empty_set_bool",
        "reduce_min_empty_set", "reduce_prod_empty_set", "reduce_sum_empty_set",
        "reduce_sum_square_empty_set", "reduce_sum_square_empty_set_expanded",
    ),
    "exclude_outside=1 is not supported": (
        "resize_upsample_scales_cubic_A_n0p5_exclude_outside",
        "resize_downsample_scales_cubic_A_n0p5_exclude_outside",
    ),
    r"a region of interest \(tf_crop_and_resize\) is not supported": (
        "resize_tf_crop_and_resize", "resize_tf_crop_and_resize_extrapolation_value",
        "resize_tf_crop_and_resize_axes_2_3", "resize_tf_crop_and_resize_axes_3_2",
    ),
    "antialias=1 is not supported": (
        "resize_downsample_scales_linear_antialias", "resize_downsample_sizes_linear_antialias",
        "resize_downsample_scales_cubic_antialias", "resize_downsample_sizes_cubic_antialias",
    ),
    "keep_aspect_ratio_policy='not_(larger|smaller)' is not supported": (
        "resize_upsample_sizes_nearest_not_larger", "resize_downsample_sizes_nearest_not_larger",
        "resize_upsample_sizes_nearest_not_smaller", "resize_downsample_sizes_nearest_not_smaller",
    ),
    "is not supported in version 8 of the operator set": ("scan_sum",),
}  # fmt: skip
REASONS = {f"test_{name}": reason for reason, names in REFUSED.items() for name in names}

# Here the package's numbers are not those of onnxruntime, which npylstm follows: with a scale of
# 0.6, four entries become two, and align_corners divides by 2 - 1, not by 4 * 0.6 - 1.
AS_ONNXRUNTIME = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}


def operators(model: Any) -> set[str]:
    return {node.op_type for node in model.graph.node}


def of_tensors(model: Any) -> bool:
    values = [*model.graph.input, *model.graph.output]
    return all(value.type.HasField("tensor_type") for value in values)


def dtypes(case: Any) -> set[str]:
    inputs, outputs = case.data_sets[0]
    return {np.asarray(array).dtype.name for array in [*inputs, *outputs]}


@pytest.fixture(scope="module")
def cases() -> Mapping[str, list[Any]]:
    """Cases of supported operators, by the first one of the graph in the alphabet."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the package divides by zero to make its cases
        collected = collect_testcases(None)
    found = defaultdict(list)
    for case in collected:
        known = case.model is not None and operators(case.model) <= {*ROWS}
        if known and (not of_tensors(case.model) or dtypes(case) <= DTYPES):
            found[min(operators(case.model))].append(case)
    return found


def convert(model: Any, arrays: Mapping[str, Any]) -> Any:
    """Convert with as few constants as possible."""
    floats = [name for name, array in arrays.items() if array.dtype.kind == "f"]
    main = next((name for name in floats if arrays[name].ndim), next(iter(arrays), ""))
    attempts = [[*arrays], floats, [main]]
    if operators(model) & RECURRENT:
        attempts = [[name for name in arrays if name not in {"W", "R", "B", "P"}]]
    first: NpylstmError | None = None
    for inputs in attempts:
        constants = {name: array for name, array in arrays.items() if name not in inputs}
        try:
            return nc.from_onnx(model, constants=constants)
        except NpylstmError as error:
            first = first or error
    assert first is not None
    raise first


def run_onnxruntime(model: Any, arrays: Mapping[str, Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    made: list[Any] = session.run(None, dict(arrays))
    return made


def check(case: Any) -> None:
    """Compare the outputs with those of the case, which hold a single set of arrays."""
    model = case.model
    if not of_tensors(model):
        nc.from_onnx(model)
        return
    ((inputs, expected),) = case.data_sets
    arrays = dict(zip([v.name for v in model.graph.input], map(np.asarray, inputs), strict=True))
    if case.name in AS_ONNXRUNTIME:
        expected = run_onnxruntime(model, arrays)
    spec = convert(model, arrays)
    made = npylstm.Model(spec).predict({t.name: arrays[t.name] for t in spec.inputs})
    made = [*made.values()] if isinstance(made, dict) else [made]
    for own, theirs in zip(made, map(np.asarray, expected), strict=True):
        assert own.shape == theirs.shape
        np.testing.assert_allclose(
            own, theirs.astype("f8"), rtol=case.rtol or RTOL, atol=case.atol or ATOL
        )


@pytest.mark.one_in(4)
@pytest.mark.parametrize("operator", sorted(ROWS))
def test_cases_of_an_operator_have_its_numbers_or_are_refused(
    operator: str, cases: Mapping[str, list[Any]]
) -> None:
    wrong = []
    for case in cases.get(operator, []):
        reason = REASONS.get(case.name)
        try:
            if reason is None:
                check(case)
                continue
            with pytest.raises(NpylstmError, match=reason):
                check(case)
        except (NpylstmError, AssertionError, pytest.fail.Exception) as error:
            wrong.append(f"{case.name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_the_table_of_refusals_names_cases_that_exist(cases: Mapping[str, list[Any]]) -> None:
    names = {case.name for own in cases.values() for case in own}
    assert {*REASONS} <= names
    assert names >= AS_ONNXRUNTIME
    assert not any(name in REASONS for op in RECURRENT for name in (c.name for c in cases[op]))
    assert [len(cases[op]) for op in sorted(RECURRENT)] == [6, 6, 6]
    assert len(names) > 700  # of 1,884; the others are of other types or operators
