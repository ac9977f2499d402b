"""``npylstm quantize``."""

from __future__ import annotations

import argparse

from npylstm import console
from npylstm.cli.outputs import check_model
from npylstm.cli.printing import print_json, warn
from npylstm.cli.sources import custom_functions
from npylstm.runtime.model import load

__all__ = ["quantize"]


def quantize(options: argparse.Namespace) -> int:
    """Write a model with weights in fewer bits, and print sizes and errors."""
    check_model(options.output, {options.model: "is the model itself"}, options.force)
    model = load(options.model, options.backend, custom_functions(options))
    small = model.quantize(options.type, options.layers, options.keep)
    quantization = small.quantization
    assert quantization is not None  # quantize has stored weights
    small.save(options.output)
    if options.json:
        print_json({"output": options.output} | quantization.to_json())
        return 0
    console.print_table(*quantization.layer_table(), title=f"{options.output}, {options.type}")
    if quantization.outputs:
        count = quantization.cases
        title = f"errors on {count} recorded case{'s' * (count != 1)}, and the budget of verify"
        console.print_table(*quantization.output_table(), title=title)
    else:
        warn(f"{options.model}: holds no recorded cases, so what it costs is not measured; verify "
             "will have no budget")  # fmt: skip
    return 0
