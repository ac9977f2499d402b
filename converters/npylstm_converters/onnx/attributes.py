"""The attributes of ONNX nodes as Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npylstm_converters.errors import Refusal
from npylstm_converters.onnx.values import ConstantTensor

__all__ = ["attributes_of", "constant_of"]


def attributes_of(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python values; tensors as arrays."""
    from onnx import AttributeProto, helper, numpy_helper

    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.TENSOR:
            value = numpy_helper.to_array(value)
        elif attribute.type == AttributeProto.STRING:
            value = value.decode("utf-8", "replace")
        elif attribute.type == AttributeProto.STRINGS:
            value = [text.decode("utf-8", "replace") for text in value]
        elif isinstance(value, Sequence):
            value = list(value)
        values[attribute.name] = value
    return values


def constant_of(attributes: Mapping[str, Any]) -> ConstantTensor:
    """Return the value of the operator Constant."""
    dtypes = {"value": None, "value_int": "i8", "value_ints": "i8", "value_float": "f4",
              "value_floats": "f4"}  # fmt: skip
    ((name, value),) = attributes.items()
    if name not in dtypes:
        raise Refusal(f"{name} is not supported")
    return ConstantTensor(np.asarray(value, dtypes[name]))
