"""``npylstm info``."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any

from npylstm import console
from npylstm.cli.printing import print_json, print_ledger
from npylstm.cli.sources import find_importer, refuse_source_options, source_options
from npylstm.errors import NpylstmError, UnsupportedError
from npylstm.graph.stream_plan import plan_stream
from npylstm.io import model_file
from npylstm.kernels.library import Unavailable
from npylstm.printable import printable
from npylstm.runtime.engines import ENVIRONMENT_VARIABLE, find_backends
from npylstm.runtime.native_layers import describe_kernels, layers_without_kernel
from npylstm.spec import ModelSpec
from npylstm.summary import summarise

__all__ = ["info"]


def info(options: argparse.Namespace) -> int:
    """Describe a converted model, or the model that a source would give."""
    if options.proof:
        return _proof(options)
    if os.path.exists(options.model) and model_file.is_model(options.model):
        refuse_source_options(options, f"goes with a source; {options.model} is converted")
        spec = model_file.read(options.model)
    else:
        importer = find_importer(options.model)
        extra = source_options(options, importer)
        if importer.can_describe(options.model, **extra):
            return _describe(importer.describe(options.model, **extra), options.json)
        spec = importer.convert(options.model, **extra)
    if options.json:
        weights = {
            f"{layer.name}/{key}": list(array.shape)
            for layer in spec.layers
            for key, array in layer.weights.items()
        }
        quantization = spec.quantization
        extra = {"quantization": None if quantization is None else quantization.to_json(),
                 "streams": not _in_the_way(spec), "backend": [*find_backends()][-1],
                 "without_kernel": layers_without_kernel(spec)}  # fmt: skip
        print_json(spec.to_json() | {"weights": weights, "cases": len(spec.cases)} | extra)
        return 0
    print(summarise(spec))
    print(console.wrapped(f"streams: {_in_the_way(spec) or 'yes'}", "  "))
    print(console.wrapped(f"back end here: {_backend_here()}", "  "))
    print(console.wrapped(f"kernels for: {describe_kernels(spec)}", "  "))
    quantization = spec.quantization
    if quantization is not None and quantization.outputs:
        print(console.plain_table(*quantization.output_table()))
    for key, value in spec.provenance.items():
        if key not in ("tensors", "quantization"):
            for entry in value if isinstance(value, list) else [value]:
                print(console.wrapped(f"{key}: {_in_short(entry)}", "  "))
    print_ledger(spec)
    return 0


_SHOWN = 12  # entries of a list


def _in_short(value: Any) -> str:
    """Return an entry of the provenance; of long lists, such as vocabularies, the first entries."""
    if isinstance(value, dict):
        listed = (f"{key}: {_in_short(entry)}" for key, entry in value.items() if entry is not None)
        return ", ".join(listed)
    if isinstance(value, list) and len(value) > _SHOWN:
        first = ", ".join(map(repr, value[:_SHOWN]))
        return f"[{first}, ...] ({len(value):,} entries)"
    return str(value)


def _proof(options: argparse.Namespace) -> int:
    """Replay the recorded cases and print a page for the records."""
    from npylstm.parity.proof import format_proof, prove

    if not model_file.is_model(options.model):
        raise NpylstmError(
            f"{options.model}: --proof needs a converted model; first run "
            f"`npylstm convert {shlex.quote(options.model)} MODEL.npz`"
        )
    refuse_source_options(options, f"goes with a source; {options.model} is converted")
    document, report = prove(options.model)
    if options.json:
        print_json(document)
    else:
        print(format_proof(document))
    return 0 if report.passed else 1


def _backend_here() -> str:
    """Return the back end that computes on this machine, and why not the others."""
    *passed_over, (name, library) = find_backends().items()
    if isinstance(library, Unavailable):
        return f"{name}, which cannot be used: {library.reason}"
    reasons = [library.description] if library is not None else []
    for other, why in passed_over:
        if isinstance(why, Unavailable):
            reasons.append(f"not {other}: {why.reason}")
    return f"{name} ({'; '.join(reasons) or f'{ENVIRONMENT_VARIABLE}={name}'})"


def _in_the_way(spec: ModelSpec) -> str:
    """Return the reason why a model cannot run on a stream; empty if it can."""
    try:
        plan_stream(spec)
    except UnsupportedError as error:
        return f"no: {'; '.join(error.reasons[:-1])}"
    return ""


def _describe(found: dict[str, Any], as_json: bool) -> int:
    """Print the contents of a source that does not describe how its layers are connected."""
    if as_json:
        print_json(found)
        return 0
    count = len(found["modules"])
    print(f"{found['format']}, the weights of {count} module{'s' * (count != 1)}:")
    for line in found["modules"]:
        print(f"  {printable(line)}")
    for line in found["notes"]:
        print(f"note: {printable(line)}")
    for name, source in found.get("sources", {}).items():
        print(f"the source of {printable(name)}, as the file holds it:")
        for line in source.splitlines():
            print(f"    {printable(line)}")
    what = found.get("what", "a state_dict")
    if not found["asked"]:
        if found["command"]:
            print(f"{what} says how they are joined. This command converts it:")
        print(
            f"  {printable(found['command'])}" if found["command"] else printable(found["advice"])
        )
        return 0
    print(f"{what} does not prove how they are joined. Open questions, with possible answers"
          f"{' and [the one taken below]' if found['command'] else ''}:")  # fmt: skip
    for line in found["asked"]:
        print(f"  {printable(line)}")
    if not found["command"]:
        print(printable(found["advice"]))
        return 0
    print("whoever runs this command states the answers in it; change those that are wrong:")
    print(f"  {printable(found['command'])}")
    return 0
