"""``npylstm verify`` and ``npylstm diagnose``."""

from __future__ import annotations

import argparse
import secrets
import shlex

from npylstm import console, parity, plot
from npylstm.cli import arrays
from npylstm.cli.outputs import check_page, check_written
from npylstm.cli.printing import print_json
from npylstm.cli.sources import (
    custom_functions,
    find_importer,
    import_converters,
    refuse_source_options,
    source_options,
)
from npylstm.errors import NpylstmError
from npylstm.io import npz
from npylstm.runtime.model import load

__all__ = ["diagnose", "verify"]


def verify(options: argparse.Namespace) -> int:
    """Replay recorded or new cases and print the parity table."""
    check_written(options.plot, options.model, options.against)
    check_page(options.html, options.model, options.against)
    model = load(options.model, options.backend, custom_functions(options))
    if options.against is None:
        if options.cases is not None or options.seed is not None:
            raise NpylstmError("--cases and --seed go with --against: recorded cases are fixed")
        refuse_source_options(options, "goes with --against SOURCE", ["custom"])
        cases = model.spec.cases
        if not cases:
            raise NpylstmError(
                f"{options.model}: holds no recorded cases, so there is nothing to verify; convert "
                "it again where its framework is installed, or compare it with its source: npylstm "
                f"verify {shlex.quote(options.model)} --against SOURCE"
            )
        report = model.verify()
    else:
        importer = find_importer(options.against)
        extra = source_options(options, importer)
        runner = importer.runner(options.against, model.spec, **extra)
        seed = secrets.randbits(32) if options.seed is None else options.seed
        converters = import_converters()
        fresh = converters.record(model.spec, runner, options.cases, seed=seed, progress=True)
        cases = fresh.cases
        label = f"{runner.description}, seed {seed}"
        report = converters.comparing.compare_with_runner(model, runner, cases, label)
    if options.json:
        print_json(report.to_json())
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
    check_page(options.html, options.model, options.input, options.output)
    model = load(options.model, options.backend, custom_functions(options))
    inputs = arrays.read_inputs(options.input, model.inputs)
    outputs = arrays.read_outputs(options.output, model.outputs)
    state = arrays.read_state(options.state) if options.state else None
    lengths = npz.read_npy(options.lengths) if options.lengths else None
    found = parity.diagnose(model, inputs, outputs, state=state, lengths=lengths)
    if options.json:
        print_json(found.to_json())
    else:
        print(found)
    if options.html:
        found.to_html(options.html)
    return 0 if found.agrees else 1
