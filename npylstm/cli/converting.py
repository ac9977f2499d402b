"""``npylstm convert``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from npylstm.cli import arrays
from npylstm.cli.outputs import check_target
from npylstm.cli.printing import print_json, print_ledger, warn
from npylstm.cli.sources import find_importer, import_converters, source_options
from npylstm.errors import NpylstmError, ParityError
from npylstm.io import model_file
from npylstm.parity import ParityReport
from npylstm.runtime.model import Model
from npylstm.spec import ModelSpec

__all__ = ["convert"]


def convert(options: argparse.Namespace) -> int:
    """Convert a source, check and record it where possible, write the file, and print a report."""
    importer = find_importer(options.source)
    check_target(options, importer)
    extra = source_options(options, importer)
    spec: ModelSpec = importer.convert(options.source, **extra)
    if options.free_steps:
        spec = spec.with_free_steps()
    check = _author_check(spec, options, extra)
    if check is not None and not check.report.passed and not options.force:
        if options.json:
            parity = check.report.to_json()
            agreeing = list(check.agreeing)
            print_json({"output": None, "cases": 0, "parity": parity, "agreeing": agreeing})
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
        print_json(result | {"parity": None if report is None else report.to_json()})
    else:
        print(f"{options.output}: {len(spec.layers)} layers, {spec.parameters:,} parameters, "
              f"{len(spec.cases)} recorded cases")  # fmt: skip
        print_ledger(spec)
        _print_statements(spec)
        if report is not None:
            print(report.verdict)
            if report.diagnosis is not None:
                print(report.diagnosis)
    return 0 if report is None or report.passed else 1


def _author_check(spec: ModelSpec, options: argparse.Namespace, extra: dict[str, Any]) -> Any:
    """Compare with the author's outputs, if they are passed."""
    if options.check_input is None and options.check_output is None:
        return None
    if options.check_input is None or options.check_output is None:
        raise NpylstmError("--check-input and --check-output go together: give both")
    inputs = arrays.read_inputs(options.check_input, spec.inputs)
    outputs = arrays.read_outputs(options.check_output, spec.output_specs)
    return import_converters().check_author(spec, options.source, inputs, outputs, **extra)


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
            made: ModelSpec = import_converters().record(
                spec, runner, options.record, progress=True
            )
            made = made.with_cases([*spec.cases, *made.cases])
            report = Model(made).verify()
        except ParityError:
            model_file.save(spec, options.output)
            raise
        except Exception as error:  # a framework may raise anything
            warn(f"no cases recorded: {error}")
        else:
            for reason in made.provenance.get("not_recorded", ()):
                warn(f"not recorded: {reason}")
            return made, report
    return spec, Model(spec).verify() if spec.cases else None


def _print_way_out(alternatives: Sequence[str]) -> None:
    """Print the statements that give the author's outputs, if known."""
    if alternatives:
        print("these give the author's outputs:")
        for statement in alternatives:
            print(f"  {statement}")
    else:
        print("the author's program is the reference here: where a cause is named, change what "
              "you stated so that the model computes what that program computes")  # fmt: skip


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
