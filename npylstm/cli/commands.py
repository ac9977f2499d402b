"""The commands. Each takes the parsed options and returns the exit status."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from npylstm import console, parity, plot
from npylstm.cli import arrays
from npylstm.engine import code_cache
from npylstm.errors import NpylstmError, ParityError, UnsupportedError
from npylstm.graph.stream_plan import plan_stream
from npylstm.io import model_file, npz
from npylstm.ops.shapes import BATCH, format_shape
from npylstm.parity import ParityReport
from npylstm.printable import printable
from npylstm.runtime.model import Model, load
from npylstm.spec import ModelSpec
from npylstm.summary import summarise

__all__ = ["bench", "convert", "diagnose", "info", "predict", "trace", "verify", "warmup"]


def _converters() -> ModuleType:
    """Import the converters, which only some commands need."""
    try:
        return importlib.import_module("npylstm_converters")
    except ImportError as error:
        raise NpylstmError(f"the importers are not installed: {error}") from None


_SOURCE_OPTIONS = ("architecture", "layers", "batch_first", "key", "allow_unused", "example")


def _source_options(options: argparse.Namespace, importer: Any) -> dict[str, Any]:
    """Return the options for the source as the importer's arguments; reject unknown ones."""
    given = {name: getattr(options, name) for name in _SOURCE_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    foreign = [name for name in given if name not in importer.options]
    if foreign:
        option = foreign[0].replace("_", "-")
        raise NpylstmError(f"--{option} does not go with a source of {importer.name}")
    if "example" in given:
        given["example"] = arrays.read_example(given["example"])
    return given


def _importer(source: str) -> Any:
    try:
        return _converters().find_importer(source)
    except ImportError as error:
        raise NpylstmError(f"{error}; pip install 'npylstm[keras]'") from None


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def convert(options: argparse.Namespace) -> int:
    """Convert a source, check and record it where possible, write the file, and print a report."""
    importer = _importer(options.source)
    _check_target(options, importer)
    extra = _source_options(options, importer)
    spec: ModelSpec = importer.convert(options.source, **extra)
    check = _author_check(spec, options, extra)
    if check is not None and not check.report.passed and not options.force:
        if options.json:
            parity = check.report.to_json()
            agreeing = list(check.agreeing)
            _print_json({"output": None, "cases": 0, "parity": parity, "agreeing": agreeing})
        else:
            print(check.report)
            _print_way_out(check.agreeing)
            print(f"{options.output}: not written; give --force to write it all the same")
        return 1
    if check is not None:
        spec = check.spec
    spec, report = _recorded(importer, spec, extra, options)
    model_file.save(spec, options.output)
    if options.json:
        result = {"output": options.output, "parameters": spec.parameters, "cases": len(spec.cases),
                  "provenance": dict(spec.provenance)}  # fmt: skip
        _print_json(result | {"parity": None if report is None else report.to_json()})
    else:
        print(f"{options.output}: {len(spec.layers)} layers, {spec.parameters:,} parameters, "
              f"{len(spec.cases)} recorded cases")  # fmt: skip
        _print_ledger(spec)
        _print_statements(spec)
        if report is not None:
            print(report.verdict)
            if report.diagnosis is not None:
                print(report.diagnosis)
    return 0 if report is None or report.passed else 1


def _check_written(path: str | None, *reads: str | None) -> None:
    """Check, before anything runs, that an output file replaces neither an input nor a model."""
    if path is None:
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise NpylstmError(f"{path}: there is no folder {folder}")
    if not os.path.exists(path):
        return
    for read in filter(None, reads):
        if os.path.exists(read) and os.path.samefile(read, path):
            raise NpylstmError(f"{path}: is read here, and would be lost; give another name")
    if os.path.isfile(path) and model_file.is_model(path):
        raise NpylstmError(f"{path}: is a model, which would be lost; give another name")


def _check_page(path: str | None, *reads: str | None) -> None:
    """Check the name of an HTML page, and that it replaces no input."""
    if path is not None:
        from npylstm.parity import page

        page.check_name(path)
        _check_written(path, *reads)


def _print_way_out(alternatives: Sequence[str]) -> None:
    """Print the statements that give the author's outputs, if known."""
    if alternatives:
        print("these give the author's outputs:")
        for statement in alternatives:
            print(f"  {statement}")
    else:
        print("the author's program is the reference here: where a cause is named, change what "
              "you stated so that the model computes what that program computes")  # fmt: skip


def _check_target(options: argparse.Namespace, importer: Any) -> None:
    """Check that the output file replaces neither an input nor a file that is not a model."""
    target = options.output
    if not os.path.exists(target):
        return
    given = (options.architecture, options.example, options.check_input, options.check_output)
    for source in (*importer.files(options.source), *filter(None, given)):
        if os.path.exists(source) and os.path.samefile(source, target):
            what = "is the source itself" if source == options.source else f"is {source}"
            raise NpylstmError(
                f"{target}: {what}, which would be lost; give another name for the .npz"
            )
    if not options.force and (os.path.isdir(target) or not model_file.is_model(target)):
        raise NpylstmError(
            f"{target}: exists and is no npylstm model; give another name, or --force"
        )


def _author_check(spec: ModelSpec, options: argparse.Namespace, extra: dict[str, Any]) -> Any:
    """Compare with the author's outputs, if they are passed."""
    if options.check_input is None and options.check_output is None:
        return None
    if options.check_input is None or options.check_output is None:
        raise NpylstmError("--check-input and --check-output go together: give both")
    inputs = arrays.read_inputs(options.check_input, spec.inputs)
    outputs = arrays.read_outputs(options.check_output, spec.output_specs)
    return _converters().check_author(spec, options.source, inputs, outputs, **extra)


def _recorded(
    importer: Any, spec: ModelSpec, extra: dict[str, Any], options: argparse.Namespace
) -> tuple[ModelSpec, ParityReport | None]:
    """Record cases with the framework and compare; if that fails, warn in one line.

    Raises
    ------
    ParityError
        If the framework's outputs have other shapes; the model is written nevertheless.
    """
    if options.record != 0:
        try:
            runner = importer.runner(options.source, spec, **extra)
            made: ModelSpec = _converters().record(spec, runner, options.record, progress=True)
            made = made.with_cases([*spec.cases, *made.cases])
            report = Model(made).verify()
        except ParityError:
            model_file.save(spec, options.output)
            raise
        except Exception as error:  # a framework may raise anything
            _warn(f"no cases recorded: {error}")
        else:
            for reason in made.provenance.get("not_recorded", ()):
                _warn(f"not recorded: {reason}")
            return made, report
    return spec, Model(spec).verify() if spec.cases else None


def _warn(message: str) -> None:
    """Print one line on stderr."""
    print(f"npylstm: warning: {' '.join(message.split())}", file=sys.stderr)


def _print_statements(spec: ModelSpec) -> None:
    """Print the statements that the structure depends on and that the source does not prove."""
    stated = spec.provenance.get("stated")
    if not stated or not isinstance(stated, list):
        return
    proven = spec.provenance.get("proof") == "proven"
    print("stated, and proven by the author's outputs:" if proven else "stated, not proven:")
    for sentence in stated:
        print(f"  {sentence}")
    undecided = spec.provenance.get("undecided")
    if isinstance(undecided, list):
        print("the author's outputs do not decide: these give them as well:")
        for statement in undecided:
            print(f"  {statement}")


def info(options: argparse.Namespace) -> int:
    """Describe a converted model, or the model that a source would give."""
    if options.proof:
        return _proof(options)
    if model_file.is_model(options.model):
        spec = model_file.read(options.model)
    else:
        importer = _importer(options.model)
        extra = _source_options(options, importer)
        if importer.can_describe(options.model, **extra):
            return _describe(importer.describe(options.model, **extra), options.json)
        spec = importer.convert(options.model, **extra)
    if options.json:
        weights = {
            f"{layer.name}/{key}": list(array.shape)
            for layer in spec.layers
            for key, array in layer.weights.items()
        }
        streams = {"streams": not _in_the_way(spec)}
        _print_json(spec.to_json() | {"weights": weights, "cases": len(spec.cases)} | streams)
        return 0
    print(summarise(spec))
    print(console.wrapped(f"streams: {_in_the_way(spec) or 'yes'}", "  "))
    for key, value in spec.provenance.items():
        if key != "tensors":
            for entry in value if isinstance(value, list) else [value]:
                print(console.wrapped(f"{key}: {entry}", "  "))
    _print_ledger(spec)
    return 0


def _proof(options: argparse.Namespace) -> int:
    """Replay the recorded cases and print a page for the records."""
    from npylstm.parity.proof import format_proof, prove

    if not model_file.is_model(options.model):
        raise NpylstmError(
            f"{options.model}: --proof needs a converted model; first run "
            f"`npylstm convert {options.model} MODEL.npz`"
        )
    document, report = prove(options.model)
    if options.json:
        _print_json(document)
    else:
        print(format_proof(document))
    return 0 if report.passed else 1


def _print_ledger(spec: ModelSpec) -> None:
    """Print every tensor of the source, with its layer and weights."""
    rows = []
    entries = spec.provenance.get("tensors")
    for entry in filter(_is_entry, entries if isinstance(entries, list) else []):
        layer, became = entry["layer"], ", ".join(entry["weights"])
        weights = (became or "not needed in inference") if layer else "left over"
        rows.append([entry["source"], format_shape(entry["shape"]), layer or "-", weights])
    if rows:
        console.print_table(["tensor of the source", "shape", "layer", "weights"], rows)


def _is_entry(entry: Any) -> bool:
    """Whether an entry of the file is a valid line of the ledger."""
    if not isinstance(entry, dict):
        return False
    shape, weights = entry.get("shape"), entry.get("weights")
    named = all(isinstance(entry.get(key), str) for key in ("source", "layer"))
    sized = isinstance(shape, list) and all(type(d) is int for d in shape)
    return named and sized and isinstance(weights, list) and all(type(w) is str for w in weights)


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
        _print_json(found)
        return 0
    count = len(found["modules"])
    print(f"{found['format']}, the weights of {count} module{'s' * (count != 1)}:")
    for line in found["modules"]:
        print(f"  {printable(line)}")
    for line in found["notes"]:
        print(f"note: {printable(line)}")
    what = found.get("what", "a state_dict")
    if not found["asked"]:
        print(printable(found["advice"]))
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


def verify(options: argparse.Namespace) -> int:
    """Replay recorded or new cases and print the parity table."""
    _check_written(options.plot, options.model, options.against)
    _check_page(options.html, options.model, options.against)
    model = load(options.model, options.backend)
    if options.against is None:
        if options.cases is not None or options.seed is not None:
            raise NpylstmError("--cases and --seed go with --against: recorded cases are fixed")
        cases = model.spec.cases
        if not cases:
            raise NpylstmError(
                f"{options.model}: holds no recorded cases, so there is nothing to verify; convert "
                "it again where its framework is installed, or compare it with its source: npylstm "
                f"verify {options.model} --against SOURCE"
            )
        report = model.verify()
    else:
        importer = _importer(options.against)
        extra = _source_options(options, importer)
        runner = importer.runner(options.against, model.spec, **extra)
        seed = secrets.randbits(32) if options.seed is None else options.seed
        converters = _converters()
        fresh = converters.record(model.spec, runner, options.cases, seed=seed, progress=True)
        cases = fresh.cases
        label = f"{runner.description}, seed {seed}"
        report = converters.comparing.compare_with_runner(model, runner, cases, label)
    if options.json:
        _print_json(report.to_json())
    else:
        console.print_table(*report.table())
        print(report.verdict)
        if report.diagnosis is not None:
            print(report.diagnosis)
    if options.plot:
        plot.parity(model, cases, options.plot)
    if options.html:
        report.to_html(options.html)
    return 0 if report.passed else 1


def diagnose(options: argparse.Namespace) -> int:
    """Print which mistake explains outputs of another program."""
    _check_page(options.html, options.model, options.input, options.output)
    model = load(options.model, options.backend)
    inputs = arrays.read_inputs(options.input, model.inputs)
    outputs = arrays.read_outputs(options.output, model.outputs)
    state = arrays.read_state(options.state) if options.state else None
    lengths = npz.read_npy(options.lengths) if options.lengths else None
    found = parity.diagnose(model, inputs, outputs, state=state, lengths=lengths)
    if options.json:
        _print_json(found.to_json())
    else:
        print(found)
    if options.html:
        found.to_html(options.html)
    return 0 if found.agrees else 1


def predict(options: argparse.Namespace) -> int:
    """Compute outputs and write them."""
    _check_written(options.output, options.model, options.input)
    model = load(options.model, options.backend)
    inputs = arrays.read_inputs(options.input, model.inputs)
    y = model.predict(
        inputs, batch_size=options.batch_size, threads=options.threads,
        progress=options.batch_size is not None,
    )  # fmt: skip
    outputs = y if isinstance(y, dict) else {model.outputs[0].name: y}
    if options.output:
        arrays.write(outputs, options.output)
    if options.json:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        values = None if options.output else {k: v.tolist() for k, v in outputs.items()}
        _print_json({"output": options.output, "shapes": shapes, "values": values})
    elif options.output:
        listed = ", ".join(f"{k} {format_shape(v.shape)}" for k, v in outputs.items())
        print(f"{options.output}: {listed}, {model.backend} back end")
    else:
        for name, array in outputs.items():
            if len(outputs) > 1:
                print(f"# {name} {format_shape(array.shape)}")
            arrays.print_csv(array)
    return 0


def trace(options: argparse.Namespace) -> int:
    """Compute the gates of all recurrent layers and draw or write them."""
    _check_written(options.output, options.model, options.input)
    model = load(options.model, "numpy")
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
        _print_json({"output": options.output, "layers": summary})
    else:
        listed = ", ".join(f"{n} {format_shape(s)}" for n, s in summary.items())
        print(f"{options.output}: {listed}")
    return 0


def bench(options: argparse.Namespace) -> int:
    """Time whole calls with both back ends, and print medians."""
    spec = model_file.read(options.model)
    models = [Model(spec, "numpy")]
    if Model(spec, "auto").backend == "numba":
        models.append(Model(spec, "numba"))
    rng = np.random.default_rng(0)
    results: list[dict[str, Any]] = []
    with console.progress("bench", len(options.batch) * len(models)) as advance:
        for batch in options.batch:
            sizes = {BATCH: batch}
            x = {
                t.name: rng.standard_normal(
                    [sizes.get(d, options.steps) if isinstance(d, str) else d for d in t.shape]
                ).astype(spec.dtype)
                for t in spec.inputs
            }
            for model in models:
                times = _time(lambda: model.predict(x), options.seconds)  # noqa: B023
                shape = next(iter(x.values())).shape
                results.append(
                    {"backend": model.backend, "input": list(shape), "calls": len(times),
                     "median_us": 1e6 * statistics.median(times), "min_us": 1e6 * min(times)}
                )  # fmt: skip
                advance()
    if options.json:
        _print_json(results)
        return 0
    rows = [
        [r["backend"], format_shape(r["input"]), str(r["calls"]), f"{r['median_us']:.1f}",
         f"{r['min_us']:.1f}"]
        for r in results
    ]  # fmt: skip
    header = ["back end", "input", "calls", "median us", "min us"]
    console.print_table(header, rows, title=f"{spec.name}, 1 thread of npylstm's own")
    return 0


def warmup(options: argparse.Namespace) -> int:
    """Compile all kernels into the cache on disk, for example when a container image is built."""
    results = []
    with console.progress("warmup", len(options.model)) as advance:
        for path in options.model:
            start = time.perf_counter()
            load(path, backend="numba").warm_up()
            results.append({"model": path, "seconds": time.perf_counter() - start})
            advance()
    folder = code_cache.cache_folder()
    if options.json:
        _print_json({"cache": folder, "models": results})
        return 0
    rows = [[str(r["model"]), f"{r['seconds']:.2f}"] for r in results]
    console.print_table(["model", "seconds"], rows, title=f"kernels in {folder or 'no cache'}")
    return 0


def _time(call: Any, seconds: float) -> list[float]:
    """Return the times of repeated calls, after a first call that compiles."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times
