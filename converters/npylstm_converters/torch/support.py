"""The lists in docs/pytorch.md: ``python -m npylstm_converters.torch.support`` prints them."""

from __future__ import annotations

import textwrap

from npylstm_converters.torch.module_options import CLASSES
from npylstm_converters.torch.rows import ROWS

__all__ = ["class_list", "operation_list"]

_WIDTH = 120
_NAMESPACE = "aten."


def operation_list() -> str:
    """Return the names of all operations of traced programs, as lines of text.

    Returns
    -------
    str
        The names in order, each once, separated by commas; in parentheses arguments that are
        supported with some values only. Names with an underscore in front are torch's own variants.
    """
    names: dict[str, dict[str, None]] = {}
    for target, row in ROWS.items():
        name = target.removeprefix(_NAMESPACE).partition(".")[0]
        if target.startswith(_NAMESPACE) and not name.startswith("_"):
            limits = names.setdefault(name.rstrip("_"), {})
            limits |= dict.fromkeys(
                f"{argument}={' or '.join(map(str, values))}"
                for argument, values in row.only.items()
            )
    texts = [f"{n} (only {', '.join(own)})" if own else n for n, own in sorted(names.items())]
    return textwrap.fill(f"{', '.join(texts)}.", _WIDTH)


def class_list() -> str:
    """Return the classes of torch.nn whose options are read from pickled modules.

    Returns
    -------
    str
        The names in order, separated by commas, as lines of text.
    """
    return textwrap.fill(f"{', '.join(sorted(CLASSES))}.", _WIDTH)


if __name__ == "__main__":
    print(operation_list(), class_list(), sep="\n\n")
