"""What a state_dict does not prove about how its modules are joined: asked, answered, stated.

The names and sizes of tensors prove which modules there are. What stands between two of them, which
step a layer reads, and how inputs lie is code of the author's, and in no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from npylstm_converters.chain import Step
from npylstm_converters.torch.modules import RECURRENT, Found

__all__ = ["Joint", "joints", "statements", "suggestion"]

_BETWEEN = "relu, tanh, sigmoid, another activation, dropout, or identity for nothing"
_READS = (
    "last (the last step), hidden (the final hidden state), mean, max, or no word for every step"
)
_NORMS = ("BatchNorm1d", "LayerNorm")
_NUMBERED = re.compile(r"(?:(.*)\.)?(\d+)")


@dataclass(frozen=True)
class Joint:
    """A question that the file does not answer.

    Attributes
    ----------
    place, question
        Where it is, and what is open.
    answers
        What may stand in the chain there.
    taken
        What the suggested command takes; empty for nothing.
    """

    place: str
    question: str
    answers: str
    taken: str

    def __str__(self) -> str:
        taken = self.taken or "nothing"
        return f"{self.place}: {self.question} {self.answers}. The command below takes {taken}."


def joints(modules: Sequence[Found]) -> list[Joint]:
    """List every question that the file leaves open, in the order of the file."""
    found = [Joint("input", "which axis comes first?", "--batch-first: (batch, steps, features), "
                   "--sequence-first: (steps, batch, features)", "--batch-first")
             for _ in range(any(m.kind in RECURRENT for m in modules))]  # fmt: skip
    for module, behind in zip(modules, [*modules[1:], None], strict=True):
        for option, value in module.asked.items():
            found.append(_of_option(module, option, value, behind))
        if behind is not None:
            found += _between(module, behind)
    if modules:
        last = modules[-1].name
        if modules[-1].kind in RECURRENT:
            found.append(Joint(last, "what is the output?", _READS, ""))
        else:
            answers = "softmax, log_softmax, sigmoid, tanh, or no word for nothing"
            found.append(Joint(f"after {last}", "is an activation applied last?", answers, ""))
    return found


def _of_option(module: Found, option: str, value: str, behind: Found | None) -> Joint:
    taken = _answer(module, option, value, behind)
    return Joint(module.name, f"{option} is not in the file:", f"such as {value}", taken)


def _answer(module: Found, option: str, value: str, behind: Found | None) -> str:
    if option == "kind":
        rows, columns = module.tensors["weight"].shape
        ids = behind is not None and behind.kind in RECURRENT and rows > columns
        return "embedding" if ids else "linear"
    return value.split(" or ")[0]


def _between(module: Found, behind: Found) -> Iterator[Joint]:
    place = f"between {module.name} and {behind.name}"
    gap = _gap(module.name, behind.name)
    if module.kind in RECURRENT and behind.kind in RECURRENT:
        answers = "no word for every step; last and a vector repeated: from_torch(module, example)"
        yield Joint(place, f"what does {behind.name} read?", answers, "")
    elif module.kind in RECURRENT:
        taken = "last" if behind.kind in ("Linear", "Linear or Embedding") else ""
        yield Joint(place, f"what does {behind.name} read?", _READS, taken)
        yield Joint(place, "and what stands there besides?", _BETWEEN, "")
    elif gap:
        listed = ", ".join(gap)
        question = f"what stands at {listed}? No tensors, so"
        yield Joint(place, question, _BETWEEN, _computes(module, behind))
    elif behind.kind != "PReLU" and module.kind not in ("Linear or Embedding",):
        turned = "; transpose for (batch, features, steps) to (batch, steps, features)"
        more = turned if module.kind == "Conv1d" and behind.kind in RECURRENT else ""
        yield Joint(place, "what stands there?", f"{_BETWEEN}{more}", _computes(module, behind))


def _gap(before: str, after: str) -> list[str]:
    """Modules that a numbering leaves out: ``model.1`` between ``model.0`` and ``model.2``."""
    a, b = _NUMBERED.fullmatch(before), _NUMBERED.fullmatch(after)
    if not a or not b or a[1] != b[1]:
        return []
    prefix = f"{a[1]}." if a[1] else ""
    return [f"{prefix}{k}" for k in range(int(a[2]) + 1, int(b[2]))]


def _computes(module: Found, behind: Found) -> str:
    """The likeliest word between two modules: two products in a row would be one."""
    if module.kind == "Conv1d" and behind.kind in RECURRENT:
        return "relu -> transpose"
    weighted = ("Linear", "Conv1d")
    if module.kind in (*weighted, *_NORMS) and behind.kind in weighted:
        return "relu"
    return "identity" if _gap(module.name, behind.name) else ""


def suggestion(modules: Sequence[Found]) -> str:
    """Write a chain that answers every question; whoever runs it states the answers."""
    words: list[str] = []
    for module, behind in zip(modules, [*modules[1:], None], strict=True):
        options = [
            _answer(module, k, v, behind) if k in ("nonlinearity", "kind") else f"{k}={v}"
            for k, v in module.asked.items()
        ]
        words.append(f"{module.name}({', '.join(options)})" if options else module.name)
        if behind is not None:
            words += [joint.taken for joint in _between(module, behind) if joint.taken]
    return " -> ".join(words)


_READ = {
    "last": "the last step of {before}", "hidden": "the final hidden state of {before}",
    "mean": "the mean over the steps of {before}", "max": "the largest over the steps of {before}",
}  # fmt: skip


def statements(
    steps: Sequence[Step],
    modules: Mapping[str, Found],
    batch_first: bool | None,
    left_over: Sequence[str],
) -> list[str]:
    """Say in sentences what a chain states beyond what the file proves."""
    said: list[str] = []
    if batch_first is not None:
        axes = "(batch, steps, features)" if batch_first else "(steps, batch, features)"
        said.append(f"inputs are {axes}")
    before, words = "", list[str]()
    for step in steps:
        module = modules.get(step.word)
        if module is None:
            words.append(str(step))
            continue
        said += _joined(before, modules.get(before), words, module)
        said += [f"{step.word}: {value}" for value in step.values]
        said += [f"{step.word}: {k} is {v}" for k, v in step.options.items()]
        before, words = step.word, []
    if words:
        said.append(f"the output is {' of '.join(reversed([*map(_of_output, words)]))} of {before}")
    else:
        said.append(f"the output is that of {before}, as it is")
    return said + [f"{name} is not used" for name in left_over]


def _of_output(word: str) -> str:
    return {"last": "the last step", "hidden": "the final hidden state"}.get(word, word)


def _joined(before: str, above: Found | None, words: Sequence[str], module: Found) -> Iterator[str]:
    name = module.name
    if above is None:
        yield f"{name} reads the input" + (f" through {' and '.join(words)}" if words else "")
        return
    read = next((word for word in words if word in _READ), None)
    if above.kind in RECURRENT:
        what = _READ[read] if read else "every step of {before}"
        yield f"{name} reads {what.format(before=before)}"
    others = [word for word in words if word not in _READ and word != "identity"]
    if others:
        yield f"{' and '.join(others)} {'stands' if len(others) == 1 else 'stand'} between " \
              f"{before} and {name}"  # fmt: skip
    elif read is None or above.kind not in RECURRENT:
        yield f"nothing stands between {before} and {name}"
    else:
        yield f"there is no activation between {before} and {name}"
