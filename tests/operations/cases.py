"""Configurations of every kind of layer, each option at least once away from its default."""

from __future__ import annotations

from operations import array_cases, cell_cases, normalization_cases, scan_cases, window_cases
from operations.attention_cases import attention, nested
from operations.case import MAJOR, SEQUENCE, Case, Refused
from operations.elementwise_cases import elementwise
from operations.moving_cases import moving
from operations.oracles import softmax
from operations.recurrent_cases import bidirectional, recurrent
from operations.weighted_cases import weighted

from npylstm.ops.arithmetic import Reduce
from npylstm.ops.attention import Attention
from npylstm.ops.bidirectional import Bidirectional
from npylstm.ops.cells import GRU, LSTM
from npylstm.ops.convolution import Conv1D, Pool1D
from npylstm.ops.external import External
from npylstm.ops.indexing import Flip, Pad, Repeat, Select, SizeOf, Slice
from npylstm.ops.masking import MaskedMean, MaskedSoftmax, Masking
from npylstm.ops.normalization import UnitNormalization
from npylstm.ops.products import Dot, MatMul
from npylstm.ops.shaping import Concatenate, Reshape

__all__ = ["CASES", "REFUSED"]

CASES: tuple[Case, ...] = (
    *array_cases.CASES,
    *cell_cases.CASES,
    *scan_cases.CASES,
    *window_cases.CASES,
    *normalization_cases.CASES,
    *recurrent(),
    *bidirectional(),
    *weighted(),
    *elementwise(),
    *attention(),
    *nested(),
    *moving(),
)

REFUSED: tuple[Refused, ...] = (
    *array_cases.REFUSED,
    *window_cases.REFUSED,
    *normalization_cases.REFUSED,
    Refused(softmax(0), (SEQUENCE,)),
    Refused(softmax(1), (MAJOR,)),
    Refused(Reduce("mean", (0,)), (SEQUENCE,)),
    Refused(Flip((0,)), (SEQUENCE,)),
    Refused(Select(0, 1), (SEQUENCE,)),
    Refused(Slice(1, 0, 2), (MAJOR,)),
    Refused(Pad(0, 1, 0), (SEQUENCE,)),
    Refused(Repeat(0, 2), (SEQUENCE,)),
    Refused(SizeOf(0), (SEQUENCE,), mixes=False),
    Refused(Concatenate(0), (SEQUENCE, SEQUENCE)),
    Refused(Reshape((3, -1)), (MAJOR,)),
    Refused(Reshape(((0, 1), (0, 0), 3)), (SEQUENCE,)),
    Refused(Reshape(((1, 0), (1, 1), 3)), (("steps*batch", 3), SEQUENCE)),
    Refused(MatMul(), (("steps", "batch"), ("batch", 2))),
    Refused(MatMul(), (("batch", 3), (3, "batch"))),
    Refused(Dot((1, 1)), (MAJOR, MAJOR)),
    Refused(Dot((2, 2)), (MAJOR, MAJOR)),
    Refused(Attention(), (MAJOR, MAJOR)),
    Refused(MaskedMean(), (MAJOR, ("steps", "batch"))),
    Refused(MaskedSoftmax(1), (MAJOR, MAJOR)),
    Refused(UnitNormalization((0, 1)), (MAJOR,)),
    Refused(Masking(), (("steps", 3, "batch"),), options={"masks": (0,)}),
    Refused(LSTM(3, 4), (MAJOR,), mixes=False),
    Refused(LSTM(3, 4, time_major=True), (SEQUENCE,), mixes=False),
    Refused(Bidirectional(GRU(3, 4), GRU(3, 4, go_backwards=True)), (MAJOR,), mixes=False),
    Refused(Conv1D(3, 4, 2), (MAJOR,)),
    Refused(Pool1D("max", 2, 1), (MAJOR,)),
    Refused(Reshape(((0, 0), 9)), (MAJOR,)),
    Refused(External("f", ((0, 1), 3)).with_function(lambda x: x.sum(0)), (SEQUENCE,)),
)
