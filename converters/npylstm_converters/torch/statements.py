"""Sentences on everything that a chain states and the state_dict does not prove."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from npylstm.spec import TensorSpec
from npylstm_converters.toolkit.chain import Step
from npylstm_converters.torch.chain_words import DEFAULTS
from npylstm_converters.torch.chains import is_timed, modules_in, named
from npylstm_converters.torch.modules import RECURRENT, Found
from npylstm_converters.torch.open_questions import gap_before, gap_between

__all__ = ["assumptions", "statements"]

_READ = {
    "last": "the last step", "hidden": "the final hidden state", "mean": "the mean over the steps",
    "max": "the largest values over the steps", "sum": "the sum over the steps",
}  # fmt: skip
_NOTHING = ("identity", "dropout")


def statements(
    steps: Sequence[Step], modules: Mapping[str, Found], input: TensorSpec, unused: Sequence[str]
) -> list[str]:
    """Return the statements of a chain as sentences.

    Parameters
    ----------
    steps, modules
        The chain, and the modules by name.
    input
        The input that the chain reads.
    unused
        Names of modules that are not in the chain.
    """
    said = [f"inputs are {_axes(input)}"]
    before: Found | None = None
    words: list[Step] = []
    for step in steps:
        module = named(step, modules)
        if module is None:
            words.append(step)
            continue
        said += _joined(before, words, module)
        said += _options(step, module)
        before, words = module, []
    if before is not None:
        said.append(_ended(before, words))
    return said + [f"{name} is not used" for name in unused]


def assumptions(
    steps: Sequence[Step], modules: Mapping[str, Found], batch_first: bool | None, input: TensorSpec
) -> list[str]:
    """Return sentences on defaults, for options that the user did not state."""
    found = []
    first = next(modules[name] for step in steps for name in modules_in(step, modules))
    # Conv1d fixes the axes of its input.
    if is_timed(steps, modules) and batch_first is None and first.kind != "Conv1d":
        found.append(f"assumed: inputs are {_axes(input)}")
    for step in steps:
        if (
            step.word in DEFAULTS
            and step.word not in modules
            and not step.values
            and not step.options
        ):
            option, value = DEFAULTS[step.word]
            found.append(f"assumed: {step.word} has {option} {value}")
    return found


def _axes(input: TensorSpec) -> str:
    """Return the names of an input's axes."""
    shape = ["features" if isinstance(d, int) else d for d in input.shape]
    if len(shape) == 3 and shape[1] == "features":
        shape[1] = "channels"
    return f"{'ids ' if input.integer else ''}({', '.join(shape)})"


def _options(step: Step, module: Found) -> Iterator[str]:
    """Yield a sentence for each option that a module's tensors do not determine."""
    if module.twin:
        yield f"{step.word} is a {module.kind}, not a {module.twin}"
    if module.cls:
        yield f"{step.word}, of class {module.cls}, computes what a {module.kind} does"
    what = "is of kind" if "kind" in module.asked else "has nonlinearity"
    yield from (f"{step.word} {what} {value}" for value in step.values)
    if step.options:
        yield f"{step.word} has {', '.join(f'{k} {v}' for k, v in step.options.items())}"


def _joined(before: Found | None, words: Sequence[Step], module: Found) -> Iterator[str]:
    """Yield sentences on the operations between two modules, or before the first."""
    name = module.name
    others = [str(step) for step in words if step.word not in (*_READ, *_NOTHING)]
    applied = " and ".join(others)
    if before is None:
        gap = gap_before(name)
        at = f", at {' and '.join(gap)}" if gap else ""
        if applied:
            yield f"before {name}{at}, {applied} {_is(others)} applied to the input"
        elif gap:
            yield f"before {name}{at}, nothing changes the values"
        return
    if before.kind in RECURRENT or any(step.word in _READ for step in words):
        read = " of ".join(_READ[s.word] for s in reversed(words) if s.word in _READ)
        yield f"{name} reads {read or 'every step'} of {before.name}"
    gap = gap_between(before.name, name)
    at = f", at {' and '.join(gap)}," if gap else ""
    if applied:
        yield f"between {before.name} and {name}{at or ','} {applied} {_is(others)} applied"
    else:
        yield f"between {before.name} and {name}{at} there is no activation"


def _is(words: Sequence[str]) -> str:
    return "is" if len(words) == 1 else "are"


def _ended(last: Found, words: Sequence[Step]) -> str:
    """Return a sentence on the output."""
    read = " of ".join(_READ[s.word] for s in reversed(words) if s.word in _READ)
    others = [str(s) for s in words if s.word not in (*_READ, *_NOTHING)]
    every = "every step" if last.kind in RECURRENT else ""
    what = f"{read or every} of {last.name}" if read or every else f"that of {last.name}"
    if others:
        return f"the output is {what}, to which {' and '.join(others)} {_is(others)} applied"
    return f"the output is {what}, with no activation after it"
