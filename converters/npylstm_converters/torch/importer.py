"""From a PyTorch source to a ModelSpec."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from npylstm import FormatError, ModelSpec, NpylstmError, UnsupportedError
from npylstm_converters.files import sha256_of
from npylstm_converters.registry import Importer
from npylstm_converters.toolkit.rolling import rolled
from npylstm_converters.torch.aliasing import functional
from npylstm_converters.torch.alternatives import alternatives
from npylstm_converters.torch.batches import (
    FixedBatchError,
    memories,
    other_batches,
    possible_batches,
    rebatched,
)
from npylstm_converters.torch.branches import check_branches, check_loops
from npylstm_converters.torch.dequantizing import Dequantized, dequantized
from npylstm_converters.torch.describing import describe
from npylstm_converters.torch.exported_sizes import (
    assumed,
    conditions,
    number_held,
    with_fixed_steps,
)
from npylstm_converters.torch.fast_paths import FAST_PATH, hides_steps
from npylstm_converters.torch.files import Kind, sniff, sniff_head
from npylstm_converters.torch.kept_states import kept_states
from npylstm_converters.torch.program import spec_of_program
from npylstm_converters.torch.program_inputs import free_sizes
from npylstm_converters.torch.quantized import notes_on, with_differences
from npylstm_converters.torch.runner import TorchRunner
from npylstm_converters.torch.running import quiet
from npylstm_converters.torch.scripted import module_of_script
from npylstm_converters.torch.snapshots import Snapshot
from npylstm_converters.torch.sources import (
    arguments,
    is_module,
    is_program,
    load_program,
    load_script,
    script_arguments,
    unguarded,
)
from npylstm_converters.torch.tracing import export_module
from npylstm_converters.torch.weights import from_state_dict

_MOST_TRACES = 8

__all__ = ["IMPORTER", "from_torch"]


def from_torch(
    source: Any,
    example: Any = None,
    *,
    layers: str | None = None,
    batch_first: bool | None = None,
    key: str | None = None,
    allow_unused: Sequence[str] | None = None,
    dequantize: bool | None = None,
) -> ModelSpec:
    """Convert a PyTorch module, program or weight file.

    Parameters
    ----------
    source
        A ``torch.nn.Module`` that ``torch.export`` can trace; an ``ExportedProgram``; or the path
        of a saved program (``.pt2``), of TorchScript, or of weights: a state_dict or a pickled
        module (``.pt``, ``.pth``, ``.ckpt``, ``.safetensors``, ``.pkl``), or a state_dict in JSON
        (nested lists), detected by content. Only programs and modules in memory need torch.
    example
        For a module and for TorchScript: example inputs, a tensor or a tuple of all of forward's
        arguments, or a dictionary of them by name. Free sizes stay free.
    layers
        For weights: the chain of modules, ``"rnn -> last -> output_layer"``. A pickled
        nn.Sequential needs none.
    batch_first
        For a state_dict with recurrent modules: whether inputs are (batch, steps, features). A
        pickled module holds it.
    key
        For a file with more contents: the path of the state_dict, ``"model_state"``.
    allow_unused
        For a state_dict: names of modules or tensors that may stay unused.
    dequantize
        Whether modules of 8 bits, which quantize_dynamic made, are converted with dequantized
        weights. Their outputs differ, because torch also rounds the inputs of such a module.

    Returns
    -------
    ModelSpec
        Without recorded cases; :func:`npylstm_converters.record` adds them. Where modules were
        dequantized, ``provenance`` states it.

    Raises
    ------
    UnsupportedError
        Lists everything that is not supported, or that a state_dict does not determine.
    FormatError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    spec = _converted(source, example, layers, batch_first, key, allow_unused)
    found = spec.provenance.get("dequantized", ())
    if found and not dequantize:
        raise UnsupportedError([
            f"{', '.join(found)}: is quantized to 8 bits, and so are its inputs in every call, "
            "which is not supported. It can be converted with dequantized weights by "
            "dequantize=True (--dequantize): outputs differ from the quantized module's, often by "
            "1 to 3 percent of the largest. Better convert the module that was quantized"
        ])  # fmt: skip
    return spec


def _converted(
    source: Any, example: Any, layers: str | None, batch_first: bool | None, key: str | None,
    allow_unused: Sequence[str] | None,
) -> ModelSpec:  # fmt: skip
    """Convert a source, with dequantized weights where it is quantized."""
    stated = [
        name
        for name, value in (
            ("layers", layers), ("batch_first", batch_first), ("key", key),
            ("allow_unused", allow_unused),
        )
        if value is not None
    ]  # fmt: skip
    if isinstance(source, (str, os.PathLike)):
        kind = sniff(source)
        if kind in (Kind.PROGRAM, Kind.TORCHSCRIPT):
            if stated:
                raise NpylstmError(
                    f"{os.fspath(source)}: is {kind.value}, which holds its own computation: "
                    f"{', '.join(stated)} go with a state_dict"
                )
            if kind is Kind.PROGRAM:
                spec = _from_program(load_program(source), kind.value)
            else:
                spec = _from_script(load_script(source, example), example)
        elif example is not None:
            raise NpylstmError(
                f"{os.fspath(source)}: is a state_dict, which cannot be traced: state layers, or "
                "load it into its module and convert that"
            )
        else:
            spec = from_state_dict(source, layers, batch_first, key, allow_unused or ())
        provenance = {**spec.provenance, "source_sha256": sha256_of(source)}
        return replace(spec, provenance=provenance)
    if stated:
        raise NpylstmError(f"{', '.join(stated)} go with a state_dict file, not with an object")
    if is_program(source):
        return _from_program(source, "an exported program")
    if not is_module(source):
        raise FormatError(
            f"expected a path, a torch.nn.Module or an ExportedProgram, got {type(source).__name__}"
        )
    if example is None:
        raise NpylstmError("a module needs example inputs: from_torch(module, example)")
    import torch

    if isinstance(source, torch.jit.ScriptModule):
        return _from_script(source, example)
    before = Snapshot(source)
    try:
        return _from_module(dequantized(source), *arguments(example))
    finally:
        before.restore_weights()


def _from_script(scripted: Any, example: Any) -> ModelSpec:
    scripted = scripted.eval()
    made, args = module_of_script(scripted), script_arguments(scripted, example)
    # Rounded inputs of quantized modules could look like another branch of forward.
    original = None if made.codes else scripted
    return _from_module(made, args, {}, Kind.TORCHSCRIPT.value, original)


def _from_module(
    made: Dequantized,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    source: str = "a module, traced by torch.export",
    original: Any = None,
) -> ModelSpec:
    """Trace a module and convert it; ``original`` is what it was made from."""
    module, codes, halves = made
    name = type(module).__name__
    program = export_module(module, args, kwargs)
    notes: list[str] = []
    try:
        spec = spec_of_program(program, source, name)
    except FixedBatchError as error:
        program, spec, notes = _with_other_batch(module, program, error, source, name)
    except UnsupportedError as error:
        fewer = () if "is not supported" in str(error) else _with_fewer_free_sizes(module, program)
        for other in fewer:
            with contextlib.suppress(UnsupportedError):
                program, spec = other, spec_of_program(other, source, name)
                break
        else:
            raise
    states = kept_states(module if original is None else original, args, kwargs)
    notes += check_branches(module, program, spec, original)
    free = rolled(spec)
    if free is not None:
        with contextlib.suppress(UnsupportedError):
            notes = [*notes, *check_loops(module, program, free, original)]
            spec = free
    decisions = [*spec.provenance["decisions"], *notes_on(codes, halves), *notes]
    provenance = with_differences({**spec.provenance, "decisions": decisions}, codes)
    spec = with_fixed_steps(replace(spec, provenance=provenance))
    return assumed(spec, *(
        f"every call starts from the {state} that the module had when it was converted; forward "
        "changes it from call to call" for state in states
    ), *([FAST_PATH] if hides_steps(module, args, kwargs) else []))  # fmt: skip


def _with_other_batch(
    module: Any, program: Any, error: FixedBatchError, source: str, name: str
) -> tuple[Any, ModelSpec, list[str]]:
    """Trace again with another batch, or with the attributes that hold the example's made free.

    Raises
    ------
    FixedBatchError
        Naming these attributes, if the batch stays that of the example.
    """
    args, kwargs = program.example_inputs
    for example in other_batches(module, args, kwargs):
        with contextlib.suppress(UnsupportedError):
            again = export_module(module, *example, widen=False)
            return again, spec_of_program(again, source, name), []
    causes: dict[str, None] = {}
    for axis, size in possible_batches(args, kwargs):
        held = memories(module, size)
        causes |= {memory.text: None for memory in held}
        if any(memory.value is not None for memory in held):
            with contextlib.suppress(UnsupportedError), rebatched(module, held, axis):
                again = export_module(module, args, kwargs, widen=False)
                texts = ", ".join(memory.text for memory in held)
                note = f"batch: of any size, where the module holds the example's: {texts}"
                return again, spec_of_program(again, source, name), [note]
    if causes:
        texts = ", ".join(causes)
        reasons = [
            f"{reason}; the module holds the example's batch in {texts}: reset that before "
            "conversion, or take it from the input" for reason in error.reasons
        ]  # fmt: skip
        raise FixedBatchError(reasons) from None
    raise error


def _with_fewer_free_sizes(module: Any, program: Any, most: int = 2) -> Iterator[Any]:
    """Yield traces with fewer free sizes: a Linear behind a Flatten ties steps to features."""
    import torch

    shapes, batches = free_sizes(program)
    others = list(dict.fromkeys(d for s in shapes for d in s if not isinstance(d, int | str)))
    others = [d for d in others if d not in batches]
    kept_sets = [
        chosen for count in range(min(len(others) - 1, most), -1, -1)
        for chosen in itertools.combinations(others, count)
    ]  # fmt: skip
    for chosen in kept_sets[:_MOST_TRACES]:
        kept = {*batches, *chosen}
        axes = iter([[a for a, d in enumerate(shape) if d in kept] for shape in shapes])

        def free(value: Any, axes: Iterator[list[int]] = axes) -> Any:
            if not isinstance(value, torch.Tensor):
                return None
            return dict.fromkeys(next(axes), torch.export.Dim.AUTO)

        args, kwargs = program.example_inputs
        with contextlib.suppress(UnsupportedError):
            yield export_module(module, args, kwargs, free, widen=False)


def _from_program(program: Any, source: str) -> ModelSpec:
    program = functional(program)
    try:
        spec = spec_of_program(program, source)
    except UnsupportedError as refusal:
        if program.example_inputs is None or "is not supported" in str(refusal):
            raise
        error = refusal
    else:
        spec = with_fixed_steps(spec) if number_held(program) else spec
        return assumed(spec, *(
            f"the program was exported for {condition}: what its author's code computes for other "
            "sizes is not known" for condition in conditions(program)
        ))  # fmt: skip
    # In a program with all sizes fixed, the sizes that it does not use can become free.
    number = number_held(program)
    with quiet():
        module = unguarded(program)
    for args, kwargs in _wider(*program.example_inputs):
        try:
            made = export_module(module, args, kwargs, widen=False)
            if number:
                with contextlib.suppress(UnsupportedError):
                    made = next(_with_fewer_free_sizes(module, made, most=0), made)
            spec = spec_of_program(made, source)
        except UnsupportedError as refusal:
            if "is not supported" in str(refusal):
                raise
            continue
        free = dict.fromkeys(d for t in spec.inputs for d in t.shape if isinstance(d, str))
        sentences = [
            f"the program was exported with fixed sizes: that its author's code computes the same "
            f"for any {' and '.join(free)} is assumed"
        ]
        if number:
            sentences.append(
                f"sizes other than the batch stay those of the program, which holds {number}: it "
                "may be computed from them; export with dynamic_shapes to free them"
            )
            spec = with_fixed_steps(spec)
        return assumed(spec, *sentences)
    raise error from None


def _wider(args: Any, kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the example, then copies with two samples on each axis of size one."""
    import torch
    from torch.utils import _pytree as pytree

    leaves, structure = pytree.tree_flatten((args, kwargs))
    yield args, kwargs
    for axis in range(3):
        wide = [
            v.repeat_interleave(2, dim=axis)
            if isinstance(v, torch.Tensor) and v.ndim > axis and v.shape[axis] == 1
            else v
            for v in leaves
        ]
        yield pytree.tree_unflatten(wide, structure)


class _TorchImporter(Importer):
    name = "torch"
    options = ("example", "layers", "batch_first", "key", "allow_unused", "dequantize")

    def accepts(self, source: Any, head: bytes) -> bool:
        if head:
            return sniff_head(source, head)
        return is_module(source) or is_program(source)

    def convert(self, source: Any, **options: Any) -> ModelSpec:
        return from_torch(source, **options)

    def can_describe(self, source: Any, **options: Any) -> bool:
        weights_only = (Kind.ZIP, Kind.LEGACY, Kind.SAFETENSORS, Kind.PICKLE, Kind.JSON)
        return "layers" not in options and sniff(source) in weights_only

    def describe(self, source: Any, **options: Any) -> dict[str, Any]:
        return describe(source, options.get("key"))

    def alternatives(self, source: Any, **options: Any) -> Iterator[tuple[str, ModelSpec]]:
        if "layers" in options:
            chosen = {k: v for k, v in options.items() if k in ("key", "allow_unused")}
            yield from alternatives(source, options["layers"], options.get("batch_first"), **chosen)

    def runner(self, source: Any, spec: ModelSpec, **options: Any) -> TorchRunner:
        own = {name: value for name, value in options.items() if name != "dequantize"}
        return TorchRunner(source, spec, **own)


IMPORTER = _TorchImporter()
