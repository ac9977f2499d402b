"""A sample of the matrix of planted mistakes: what each diagnosis names first, and what it proves.

The wrong outputs come from an oracle that shares no code with npylstm; ``make diagnose-matrix`` runs
hundreds of them and prints the table.
"""

from __future__ import annotations

import pytest
from planted.matrix import alarms, ask, drawn, only
from planted.models import BUILDERS

# One planting of every kind, in models of all sorts; of `output_order` for the two states of an LSTM
# `state_swapped` is another name.
SAMPLE = [
    "lstm_sequence/0/gates_permuted/ONNX read in lstm",
    "gru_stacked/0/gates_permuted/PyTorch read in every layer",
    "lstm_wide/0/kernel_transposed/whole, rows as columns in lstm_0",
    "bilstm_stacked/0/recurrent_kernel_transposed/in both_1/backward",
    "text_gru/0/bias_missing/recurrent biases in gru",
    "lstm_projected/0/bias_doubled/biases in lstm",
    "lstm_backwards/0/forget_bias/left out in lstm",
    "rnn_stacked/0/activation/relu in every layer",
    "attention_lstm/0/activation/gelu taken for gelu_tanh in hidden",
    "lstm_hard/0/recurrent_activation/hard_sigmoid_sixth in every layer",
    "gru_state/0/reset_after/recurrent bias outside in gru",
    "bigru_last/0/update_gate_inverted/in both/backward",
    "lstm_state/0/state_swapped/in lstm_1",
    "gru_before/0/initial_state/not reset between samples",
    "lstm_bare/0/direction/other way in lstm",
    "packed_bilstm/0/directions_swapped/in both",
    "birnn_merged/0/merge_mode/ave taken for mul in both",
    "bilstm_stacked/0/sequence_order/backward output of both_0 not turned",
    "gru_before/0/layout/batch and time exchanged",
    "lstm_stacked/0/time_shift/outputs by +2",
    "last_of_sequence/0/last_step/step -2 of last",
    "masked_lstm/0/mask/repeats taken for zeros",
    "packed_bilstm/0/mask/lengths ignored",
    "conv_lstm/0/padding/same in conv",
    "lstm_layer_norm/0/epsilon/1e-05 in norm",
    "batch_norm_gru/0/training_mode/statistics of the batch in norm_out",
    "batch_norm_gru/0/normalization_swapped/moving_mean and moving_variance in norm_in",
    "lstm_stacked/0/layers_swapped/lstm_0 and lstm_1",
    "heads_gru/0/weights_stale/another training's kernel and bias in head",
    "lstm_sequence/0/scaling/outputs by feature",
    "lstm_classifier/0/reduced_precision/bfloat16 weights",
    "encoder/0/output_order/encoder/h and encoder/c",
    "lstm_classifier/0/logits/softmax left out of head",
]


@pytest.mark.parametrize("name", SAMPLE)
def test_the_planted_mistake_is_named_first_and_proven(name: str) -> None:
    verdict = ask(only(name))
    assert verdict.answer == "first", verdict
    assert verdict.proven, verdict
    assert not verdict.false_proofs
    assert not verdict.broken


@pytest.mark.parametrize(
    "name",
    [
        "lstm_sequence/0/training_mode/dropout 0.2 on the outputs",
        "lstm_sequence/0/reduced_precision/float16 activations",
        "lstm_classifier/0/reduced_precision/tf32 products",
    ],
)
def test_what_has_no_correction_is_named_without_proof(name: str) -> None:
    verdict = ask(only(name))
    assert verdict.answer == "first", verdict
    assert not verdict.proven, verdict


def test_a_correct_model_has_no_causes() -> None:
    for name, answer in alarms(len(BUILDERS), [*BUILDERS], 40, "numpy"):
        assert not answer.causes, f"{name}: {answer}"


@pytest.mark.parametrize("kind", ["unknown", "pair"])
def test_nothing_is_proven_that_does_not_give_the_outputs(kind: str) -> None:
    for one in drawn(kind, 4, [*BUILDERS][::7], 50):
        verdict = ask(one)
        assert not verdict.false_proofs, verdict
        assert not verdict.broken, verdict
