"""``npylstm predict`` and ``npylstm trace``."""

from __future__ import annotations

import argparse

from npylstm import plot
from npylstm.cli import arrays, audio
from npylstm.cli.outputs import check_written
from npylstm.cli.printing import print_json
from npylstm.cli.sources import custom_functions
from npylstm.errors import NpylstmError
from npylstm.io import npz
from npylstm.ops.shapes import format_shape
from npylstm.runtime.model import load

__all__ = ["predict", "trace"]


def predict(options: argparse.Namespace) -> int:
    """Compute outputs and write them."""
    if audio.is_audio(options.input):
        return audio.render(options)
    for name in ("block", "control", "resample"):
        if getattr(options, name) is not None:
            raise NpylstmError(f"--{name} goes with audio: {options.input} is no audio file")
    check_written(options.output, options.model, options.input)
    model = load(options.model, options.backend, custom_functions(options))
    inputs = arrays.read_inputs(options.input, model.inputs)
    y = model.predict(
        inputs, batch_size=options.batch_size, threads=options.threads,
        progress=options.batch_size is not None,
    )  # fmt: skip
    outputs = y if isinstance(y, dict) else {model.outputs[0].name: y}
    output = None if options.output == arrays.STANDARD else options.output
    if output:
        arrays.write(outputs, output)
    if options.json:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        values = None if output else {k: v.tolist() for k, v in outputs.items()}
        print_json({"output": output, "shapes": shapes, "values": values})
    elif output:
        listed = ", ".join(f"{k} {format_shape(v.shape)}" for k, v in outputs.items())
        print(f"{output}: {listed}, {model.backend} back end")
    else:
        arrays.print_csv(outputs)
    return 0


def trace(options: argparse.Namespace) -> int:
    """Compute the gates of all recurrent layers and draw or write them."""
    check_written(options.output, options.model, options.input)
    model = load(options.model, "numpy", custom_functions(options))
    inputs = arrays.read_inputs(options.input, model.inputs)
    gates = model.trace(inputs)
    if not gates:
        raise NpylstmError(f"{options.model}: has no recurrent layer to trace")
    rows = next(iter(gates.values())).h.shape[0]
    if options.sample >= rows:
        raise NpylstmError(f"--sample: expected less than {rows}, got {options.sample}")
    if options.output.endswith(".npz"):
        flat = {f"{n}/{f}": getattr(g, f) for n, g in gates.items() for f in g._fields}
        npz.write_arrays(flat, options.output)
    else:
        plot.gates(gates, options.output, sample=options.sample)
    summary = {name: list(g.h.shape) for name, g in gates.items()}
    if options.json:
        print_json({"output": options.output, "layers": summary})
    else:
        listed = ", ".join(f"{n} {format_shape(s)}" for n, s in summary.items())
        print(f"{options.output}: {listed}")
    return 0
