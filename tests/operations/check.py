"""Treat what a layer declares as claims, and try to break each of them.

A layer says which shapes it makes, that samples of a batch stay apart, whether its time axis can be
cut, which state it carries, which weights it has, how its config travels. :func:`check_operation`
believes none of it: it runs the layer's NumPy ``forward``, moves one part of an input at a time, and
looks which outputs move. What fails is named in an :class:`AssertionError`.

How a claim about time is read off a layer stands in :func:`operations.time_claims.claimed_time_axes` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.number_claims import (
    Oracle,
    check_kernels,
    check_mask,
    check_oracle,
    check_precision,
    check_weights,
)
from operations.probe import Probe
from operations.refused import missed_streams
from operations.shape_claims import (
    check_declarations,
    check_json,
    check_purity,
    check_samples_alone,
    check_samples_apart,
    check_shapes,
)
from operations.sizes import KERNEL_SIZES, SIZES, Sizes
from operations.time_claims import check_time

from npylstm.ops.base import Operation
from npylstm.ops.shapes import Shape


def check_operation(
    layer: Operation,
    *shapes: Shape,
    dtype: str = "float64",
    integer: Sequence[int] | Mapping[int, tuple[int, int]] = (),
    masks: Sequence[int] = (),
    positive: bool = False,
    without_effect: Sequence[str] = (),
    oracle: Oracle | None = None,
    sizes: Sequence[Sizes] = SIZES,
) -> None:
    """Try to break every claim of a layer.

    Parameters
    ----------
    layer
        With its config.
    shapes
        Of the inputs, with symbols: ``("batch", "steps", 3)``.
    dtype
        In which it computes; claims about time and samples are about dependence, not rounding.
    integer
        Which inputs are ids: integers from 0 to below :func:`vocabulary`; or the range of each.
    masks
        Which inputs are masks of zeros and ones, besides those that the layer calls ``masked``.
    positive
        Draw inputs between 0.5 and 1.5, for functions that are defined there only.
    without_effect
        Weights that change nothing, by their formula.
    oracle
        What must come out: a function of the weights and the inputs.
    sizes
        Numbers for the symbols, several times; the first has to have two samples or more.

    Raises
    ------
    AssertionError
        Naming the claim that does not hold.
    """
    probe = Probe(
        layer,
        shapes,
        dtype=dtype,
        integer=integer,
        masks=masks,
        positive=positive,
    )
    check_json(layer)
    check_purity(probe, sizes[0])
    for each in sizes:
        check_shapes(probe, each)
        check_declarations(probe, each)
        check_samples_apart(probe, each)
    check_samples_alone(probe, sizes[0])
    check_time(probe, sizes[0])
    check_mask(probe, sizes[0])
    check_weights(probe, sizes[0], without_effect)
    check_precision(probe, sizes[0])
    if oracle is not None:
        check_oracle(probe, sizes[0], oracle)
    check_kernels(probe, (*sizes, *KERNEL_SIZES))


def main() -> None:
    """List what refuses to stream and could."""
    from operations.cases import CASES

    drawn = ("integer", "masks", "positive")
    for case in CASES:
        options = {key: value for key, value in case.options.items() if key in drawn}
        for missed in missed_streams(Probe(case.layer, case.shapes, **options)):
            print(f"{case}: times {missed.times}: {', '.join(missed.found)}")


if __name__ == "__main__":  # PYTHONPATH=.:tests python -m operations.check
    main()
