"""Questions that a state_dict leaves open about the connections of its modules, with answers.

The names and sizes of tensors determine the modules. The operations between two modules, the step
that a module reads, and the order of the input's axes are in the author's code only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from npylstm_converters.torch.modules import RECURRENT, Found

__all__ = ["WHICH_AXIS", "OpenQuestion", "Suggestion", "gap_between", "suggest"]

WHICH_AXIS = "which axis comes first?"
_BETWEEN = "relu, tanh, sigmoid or another activation; dropout or no word for nothing"
_READS = (
    "last (the last step), hidden (the final hidden state), mean, max, sum; no word: every step"
)
_SCORE = re.compile(r"att|score|energy")
_NORMS = ("BatchNorm1d", "LayerNorm")
_NUMBERED = re.compile(r"(?:(.*)\.)?(\d+)")


@dataclass(frozen=True)
class OpenQuestion:
    """A question that the file does not answer.

    Attributes
    ----------
    place, question
        Its position in the chain, and its text.
    answers
        The possible words of the chain there.
    suggested
        The answer in the suggested command; empty for no word.
    """

    place: str
    question: str
    answers: str
    suggested: str

    def __str__(self) -> str:
        return f"{self.place}: {self.question} {self.answers}"


@dataclass(frozen=True)
class Suggestion:
    """A chain with one answer to every question.

    Attributes
    ----------
    chain
        In the language of ``--layers``.
    questions
        The questions, in the order of the chain.
    timed
        Whether ``--batch-first`` or ``--sequence-first`` must be stated.
    """

    chain: str
    questions: tuple[OpenQuestion, ...]
    timed: bool


def suggest(modules: Sequence[Found], joined: Collection[str] = ()) -> Suggestion:
    """Return the open questions, and a chain with the likeliest answers.

    Only building the chain shows whether it fits.

    Parameters
    ----------
    modules
        In the order of the file.
    joined
        Names of modules that follow the module before them in an nn.Sequential, as the file says.
    """
    draft = _Draft(modules, joined)
    for number in range(len(modules)):
        draft.add(number)
    draft.end()
    return Suggestion(" -> ".join(draft.words), tuple(draft.questions), draft.timed)


class _Draft:
    """A chain under construction: words, questions, and the current tensor's axes."""

    def __init__(self, modules: Sequence[Found], joined: Collection[str]) -> None:
        self._modules, self._joined = modules, joined
        self._before: Found | None = None  # the last module with tensors
        self.words: list[str] = []
        self.questions: list[OpenQuestion] = []
        recurrent = [k for k, m in enumerate(modules) if m.kind in RECURRENT]
        self._last_recurrent = recurrent[-1] if recurrent else -1
        self.timed = bool(recurrent)
        self._axes = "steps" if recurrent else "features"  # the last axes: also "channels"
        self._weighted = False  # a matrix product precedes, without an activation after it
        self._sequential = {
            match[1] for a, b in itertools.pairwise(modules)
            if gap_between(a.name, b.name) and (match := _NUMBERED.fullmatch(a.name))
        }  # fmt: skip

    def add(self, number: int) -> None:
        """Add a module and the words before it."""
        module = self._modules[number]
        if module.word is not None:
            self._add_word(module, module.word.word)
            return
        if self._scores_steps(module, number):
            question = "is it the score of a step, by which the steps are summed?"
            answers = "attention(NAME): a softmax over the steps; else the name, and last or mean"
            self._ask(module.name, question, answers, f"attention({module.name})")
            self._before, self._axes = module, "features"
            return
        kind = self._kind(number)
        if self._before is None:
            self._input(module, kind)
        elif module.name not in self._joined:
            self._between(self._before, module, number)
        self._before = module
        self.words.append(self._with_options(module, kind))
        if kind == "Conv1d":
            self._axes = "channels"
        elif module.kind in RECURRENT:
            self._axes = "steps"
        if kind in ("Linear", "Conv1d"):
            self._weighted = True
        elif kind not in _NORMS:
            self._weighted = False

    def _scores_steps(self, module: Found, number: int) -> bool:
        """Whether a module's name and size are those of attention over a recurrent layer."""
        return (
            self._before is not None
            and self._before.kind in RECURRENT
            and self._last_recurrent < number < len(self._modules) - 1
            and module.kind.startswith("Linear")
            and module.tensors["weight"].shape[0] == 1
            and _SCORE.search(module.name.lower()) is not None
        )

    def _add_word(self, module: Found, word: str) -> None:
        """Add a module without tensors, which the file names but does not place."""
        if word in ("dropout", "identity"):
            return
        if module.name in self._joined:
            self.words.append(module.name)
        else:
            question = "where is it applied?"
            self._ask(
                module.name, question, "here, elsewhere in the chain, or nowhere", module.name
            )
        self._weighted = False

    def end(self) -> None:
        """Add the questions after the last module."""
        last = self._before
        if last is None:
            return
        if last.kind in RECURRENT:
            self._ask(f"after {last.name}", "what is the output?", _READS, "")
        else:
            answers = "softmax, log_softmax, sigmoid, tanh or another; no word for nothing"
            self._ask(f"after {last.name}", "is an activation applied last?", answers, "")

    def _input(self, module: Found, kind: str) -> None:
        gap = gap_before(module.name)
        if gap and not module.of_torch:
            self._ask(f"before {module.name}", _of_gap(gap), f"{_BETWEEN}; flatten", "identity")
        if kind == "Embedding":
            if not self.timed:
                self._axes, self.timed = "steps", True
            axes = "--batch-first: ids are (batch, steps), --sequence-first: (steps, batch)"
        elif kind == "Conv1d":
            if self.timed:
                question = "which axes does the input have?"
                answers = "no word: (batch, channels, steps), transpose: (batch, steps, channels)"
                self._ask("input", question, answers, "transpose")
            else:
                self._axes = "channels"
            axes = "--batch-first: (batch, steps, features) for what follows"
        else:
            axes = "--batch-first: (batch, steps, features), --sequence-first: (steps, batch, ...)"
        if self.timed:
            asked = OpenQuestion("input", WHICH_AXIS, axes, "--batch-first")
            self.questions.append(asked)

    def _between(self, before: Found, module: Found, number: int) -> None:
        place = f"between {before.name} and {module.name}"
        # A pickled module holds the modules without tensors, too.
        gap = [] if module.of_torch else gap_between(before.name, module.name)
        recurrent = before.kind in RECURRENT
        activation = self._activation(before, module, bool(gap))
        if not recurrent and (gap or module.kind != "PReLU"):
            self._ask(place, _of_gap(gap), _BETWEEN, activation)
        self._rearrange(place, before, module, number)
        if recurrent:
            self._ask(place, _of_gap(gap), _BETWEEN, activation)

    def _rearrange(self, place: str, before: Found, module: Found, number: int) -> None:
        """Add the questions on a module's input steps and axes."""
        recurrent = before.kind in RECURRENT
        if self._axes == "steps":
            if module.kind == "Conv1d" or (
                module.kind == "BatchNorm1d" and number < self._last_recurrent
            ):
                answers = "transpose: from (batch, steps, features) to (batch, channels, steps)"
                self._ask(place, f"which axes does {module.name} read?", answers, "transpose")
                self._axes = "channels"
            elif module.kind in RECURRENT or number < self._last_recurrent:
                if recurrent:
                    answers = "no word: every step; hidden -> repeat: the final state at every step"
                    repeated = "hidden -> repeat" if _decodes(before, module) else ""
                    self._ask(place, f"what does {module.name} read?", answers, repeated)
            else:
                pooled = "last" if self._last_recurrent >= 0 else "mean"
                self._ask(place, f"what does {module.name} read?", _READS, pooled)
                self._axes = "features"
        elif self._axes == "channels" and module.kind not in ("Conv1d", "BatchNorm1d", "PReLU"):
            answers = "transpose: from (batch, channels, steps) to (batch, steps, features)"
            self._ask(place, f"which axes does {module.name} read?", answers, "transpose")
            self._axes = "steps"
            if number > self._last_recurrent:
                self._ask(place, f"what does {module.name} read?", _READS, "mean")
                self._axes = "features"

    def _activation(self, before: Found, module: Found, gap: bool) -> str:
        """Return the likeliest activation: two matrix products in a row would equal one."""
        match = _NUMBERED.fullmatch(module.name)
        adjacent = not gap and match is not None and match[1] in self._sequential
        multiplies = module.kind in ("Linear", "Linear or Embedding", "Conv1d")
        multiplies |= module.kind in RECURRENT and self._axes == "channels"
        if self._weighted and (multiplies or gap) and not adjacent and module.kind != "PReLU":
            self._weighted = False
            return "relu"
        return "identity" if gap else ""

    def _ask(self, place: str, question: str, answers: str, suggested: str) -> None:
        self.questions.append(OpenQuestion(place, question, answers, suggested))
        self.words += [suggested] if suggested else []

    def _kind(self, number: int) -> str:
        """Return a module's kind; if its tensors fit two, the one that fits the next module."""
        module = self._modules[number]
        if module.kind != "Linear or Embedding":
            return module.kind
        rows, columns = module.tensors["weight"].shape
        behind = self._modules[number + 1] if number + 1 < len(self._modules) else None
        wanted = _features(behind) if behind is not None else rows
        fits = columns == wanted and (rows != wanted or rows > columns)
        return "Embedding" if number == 0 and fits else "Linear"

    def _with_options(self, module: Found, kind: str) -> str:
        """Return a module's text in the chain, with options that its tensors do not determine."""
        if module.cls:
            question = f"does its class, {module.cls}, compute what a {module.kind} does?"
            self._ask(module.name, question, "if not: from_torch(module, example)", "")
        if module.twin:
            question = f"is it a {module.kind}? A {module.twin} has the same tensors:"
            self._ask(module.name, question, "from_torch(module, example)", "")
        options: list[str] = []
        for option, value in module.asked.items():
            if option == "kind":
                options.append(kind.lower())
            elif option == "nonlinearity":
                options.append("tanh")
            else:
                options.append(f"{option}={value}")
        if not options:
            return module.name
        question = f"what is its {', '.join(module.asked)}?"
        choices = [v if " or " in v else f"{k}={v}" for k, v in module.asked.items()]
        stated = ", ".join(options)
        self.questions.append(OpenQuestion(module.name, question, ", ".join(choices), stated))
        return f"{module.name}({stated})"


def _decodes(before: Found, module: Found) -> bool:
    """Whether the names and sizes of two recurrent modules are those of an autoencoder."""
    units = before.tensors.get("weight_hh_l0")
    return (
        module.kind in RECURRENT
        and units is not None
        and "enc" in before.name.lower()
        and "dec" in module.name.lower()
        and _features(module) == units.shape[1]
    )


def _features(module: Found) -> int:
    """Return the size of the last axis of a module's input; -1 if unknown."""
    for name in ("weight_ih_l0", "weight_ih", "weight", "running_mean"):
        if name in module.tensors:
            shape = module.tensors[name].shape
            return int(shape[1] if len(shape) > 1 else shape[0])
    return -1


def _of_gap(gap: Sequence[str]) -> str:
    """Return the question about modules without tensors at a gap in the numbering."""
    if not gap:
        return "is there an activation?"
    return f"what is {' and '.join(gap)}, without tensors?"


def gap_between(before: str, after: str) -> list[str]:
    """Return the missing numbers: ``model.1`` between ``model.0`` and ``model.2``."""
    a, b = _NUMBERED.fullmatch(before), _NUMBERED.fullmatch(after)
    if not a or not b or a[1] != b[1]:
        return []
    return _numbered(a[1], range(int(a[2]) + 1, min(int(b[2]), int(a[2]) + 100)))


def gap_before(first: str) -> list[str]:
    """Return the missing numbers before the first module: ``model.0`` before ``model.1``."""
    match = _NUMBERED.fullmatch(first)
    return _numbered(match[1], range(min(int(match[2]), 100))) if match else []


def _numbered(prefix: str | None, numbers: range) -> list[str]:
    return [f"{prefix}.{k}" if prefix else str(k) for k in numbers]
