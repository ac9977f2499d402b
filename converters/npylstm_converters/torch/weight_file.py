"""A weight file with its modules, and the chain that joins them: stated, or in the file itself.

The order of an ``nn.Sequential`` is in a pickled module. The forward of any other class is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from npylstm import UnsupportedError
from npylstm_converters.errors import Refusal
from npylstm_converters.toolkit.chain import Step, parse_steps
from npylstm_converters.torch.chain_words import BEYOND, INPUT, JOINING, WORDS
from npylstm_converters.torch.chains import modules_in
from npylstm_converters.torch.files import Checkpoint, read_checkpoint
from npylstm_converters.torch.module_options import SEQUENTIAL
from npylstm_converters.torch.modules import RECURRENT, Found, find_modules
from npylstm_converters.torch.wrappers import WRAPPERS

__all__ = ["WeightFile"]


class WeightFile:
    """The modules of a weight file.

    Parameters
    ----------
    path, key
        As for :func:`~npylstm_converters.torch.files.read_checkpoint`, which states the errors.

    Attributes
    ----------
    label
        The path as text.
    checkpoint
        The contents.
    modules
        All modules, also those without tensors if the file is a pickled module.
    by_name
        Those that a chain may name, by name.
    """

    def __init__(self, path: str | os.PathLike[str], key: str | None = None) -> None:
        self.label = os.fspath(path)
        self.checkpoint: Checkpoint = read_checkpoint(path, key)
        self.modules: list[Found] = find_modules(self.checkpoint.tensors, self.checkpoint.modules)
        # A chain never names the others: it names the word that they are.
        self.by_name = {m.name: m for m in self.modules if m.word is None}
        self._names = {*self.by_name, *self.checkpoint.modules}
        self._words = {m.name: m.word for m in self.modules if m.word is not None}

    @property
    def own_chain(self) -> list[Step] | None:
        """The chain in the file itself: that of an nn.Sequential; None if there is none."""
        root = self.checkpoint.modules.get("")
        if root is None or root.cls != SEQUENTIAL:
            return None
        try:
            steps = list(self._expanded(""))
        except Refusal:
            return None
        modules = [self.by_name[step.word] for step in steps if step.word in self.by_name]
        # A recurrent module returns its state, too, which no other module of torch reads.
        return None if not modules or any(m.kind in RECURRENT for m in modules) else steps

    def joined(self) -> set[str]:
        """Return the names of modules that follow the one before them in an nn.Sequential."""
        found: set[str] = set()
        modules = self.checkpoint.modules
        for module in modules.values():
            for child in module.children[1:] if module.cls == SEQUENTIAL else ():
                first = child
                while modules[first].cls == SEQUENTIAL and modules[first].children:
                    first = modules[first].children[0]
                found.add(first)
        return found

    def steps(self, layers: str | None) -> list[Step]:
        """Return the steps of a chain, with the full names of modules.

        A name may lack the components before it if that is unambiguous: ``lstm`` for
        ``model.lstm``. The name of an nn.Sequential in a pickled module means its submodules.

        Raises
        ------
        UnsupportedError
            If no chain is stated, and the file has none; or for a name that fits several modules.
        """
        if layers is None:
            own = self.own_chain
            if own is None:
                raise UnsupportedError([self._question()])
            return own
        try:
            return [part for step in parse_steps(layers) for part in self._resolved(step)]
        except Refusal as reason:
            raise UnsupportedError([f"layers: {reason}"]) from None

    def batch_first(self, steps: Sequence[Step], stated: bool | None) -> bool | None:
        """Return the order of the input's axes: as stated, or that of the first recurrent module.

        Raises
        ------
        UnsupportedError
            If there is a recurrent module, and neither says it.
        """
        recurrent = self._recurrent(steps)
        if stated is not None or not recurrent:
            return stated
        if self.knows_batch_first(steps):
            return recurrent[0].known["batch_first"] == "True"
        where = "a state_dict" if not _exchanges_batch(steps) else "the file for this chain"
        raise UnsupportedError(
            [f"{self.label}: batch_first is not in {where}: state --batch-first or "
             "--sequence-first (batch_first=True or False)"]
        )  # fmt: skip

    def knows_batch_first(self, steps: Sequence[Step]) -> bool:
        """Whether the file holds the order of the axes of a chain's first recurrent module."""
        recurrent = self._recurrent(steps)
        known = bool(recurrent) and "batch_first" in recurrent[0].known
        return known and not _exchanges_batch(steps)

    def _recurrent(self, steps: Sequence[Step]) -> list[Found]:
        names = [name for step in steps for name in modules_in(step, self.by_name)]
        return [self.by_name[name] for name in names if self.by_name[name].kind in RECURRENT]

    def _question(self) -> str:
        text = "; ".join(str(m) for m in self.modules if m.tensors)
        root = self.checkpoint.modules.get("")
        if root is not None:
            return (
                f"{self.label}: holds a pickled {root.cls} of {text}. The forward of a class is "
                f"not in the file: `npylstm info {self.label}` shows what to state; or {BEYOND}"
            )
        return (
            f"{self.label}: holds {text}. A state_dict does not store how they are joined: "
            f"`npylstm info {self.label}` shows what to state; or {BEYOND}"
        )

    def _resolved(self, step: Step) -> Iterator[Step]:
        """Yield the steps that a stated one means."""
        name = self._full_name(step.word)
        if step.word in JOINING and self._names_parts(step):
            yield replace(step, values=tuple(self._parts(step)))
        elif self._is_short(name):
            if step.values or step.options:
                raise Refusal(f"{name}: takes no options, got {step}")
            yield from self._expanded(name)
        else:
            yield replace(step, word=name)

    def _names_parts(self, step: Step) -> bool:
        """Whether the options of a step name modules or words."""
        names = map(self._full_name, step.values)
        return any(n in self._names or n in WORDS or n == INPUT for n in names)

    def _is_short(self, name: str) -> bool:
        """Whether a name means steps of other names: a Sequential, or a module that is a word."""
        return name not in self.by_name and name in self.checkpoint.modules

    def _parts(self, step: Step) -> Iterator[str]:
        """Yield the names that the parts of a joining word mean."""
        for value in step.values:
            name = self._full_name(value)
            steps = list(self._expanded(name)) if self._is_short(name) else [Step(name)]
            if any(s.values or s.options for s in steps) or (
                len(steps) > 1 and step.word != "attention"
            ):
                raise Refusal(f"{name}: is {' -> '.join(map(str, steps))}, which is no single part")
            yield from (s.word for s in steps)

    def _full_name(self, word: str) -> str:
        """Return the name of the module that a word means, or the word itself."""
        plain = ".".join(part for part in word.split(".") if part not in WRAPPERS)
        for exact in (word, plain):
            if exact in self._names:
                return exact
        if word in WORDS:
            return word
        ends = [n for n in self._names if n.endswith(f".{plain}")]
        if len(ends) > 1:
            raise Refusal(f"{word}: fits several modules: {', '.join(sorted(ends)[:20])}")
        return ends[0] if ends else word

    def _expanded(self, path: str) -> Iterator[Step]:
        """Yield the steps of a pickled module: those of its submodules for an nn.Sequential."""
        module = self.checkpoint.modules[path]
        found = self.by_name.get(path or ("" if module.children else "model"))
        word = self._words.get(path or "model")
        if word is not None and word.word in self.by_name:
            raise Refusal(f"{path}: is the word {word}, which is the name of another module, too")
        if word is not None:
            yield word
        elif found is not None and found.of_torch:
            yield Step(found.name)
        elif module.cls == SEQUENTIAL:
            for child in module.children:
                yield from self._expanded(child)
        else:
            raise Refusal(
                f"{path}: is a {module.cls}, whose forward is not in the file: name its "
                f"submodules; or {BEYOND}"
            )


def _exchanges_batch(steps: Sequence[Step]) -> bool:
    """Whether a chain exchanges the batch with another axis, so that modules read other axes."""
    return any(step.word == "transpose" and "0" in step.values for step in steps)
