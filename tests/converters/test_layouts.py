"""The table of layouts: every gate lands where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from npylstm_converters import layouts

FEATURES, UNITS = 3, 5
RNG = np.random.default_rng(0)


def packed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        RNG.normal(size=(FEATURES, 4 * UNITS)),
        RNG.normal(size=(UNITS, 4 * UNITS)),
        RNG.normal(size=4 * UNITS),
    )


def test_keras_packs_i_f_c_o() -> None:
    kernel, recurrent, bias = packed()
    weights = layouts.lstm_from_keras(kernel, recurrent, bias)
    for k, gate in enumerate("ifco"):
        columns = slice(k * UNITS, (k + 1) * UNITS)
        np.testing.assert_array_equal(weights[f"W_{gate}"], kernel[:, columns])
        np.testing.assert_array_equal(weights[f"U_{gate}"], recurrent[:, columns])
        np.testing.assert_array_equal(weights[f"b_{gate}"], bias[columns])


def test_without_bias_there_is_none() -> None:
    kernel, recurrent, _ = packed()
    weights = layouts.lstm_from_keras(kernel, recurrent, None)
    assert sorted(weights) == sorted(f"{x}_{g}" for x in "WU" for g in "ifco")


def test_keras1_lists_i_c_f_o() -> None:
    arrays = [np.full((2, 2), k) for k in range(12)]
    weights = layouts.lstm_from_keras1(arrays)
    assert [int(weights[f"W_{g}"][0, 0]) for g in "icfo"] == [0, 3, 6, 9]
    assert [int(weights[f"U_{g}"][0, 0]) for g in "icfo"] == [1, 4, 7, 10]
    assert [int(weights[f"b_{g}"][0, 0]) for g in "icfo"] == [2, 5, 8, 11]


def test_torch_packs_rows_in_its_own_order() -> None:
    ih, hh = RNG.normal(size=(4 * UNITS, FEATURES)), RNG.normal(size=(4 * UNITS, UNITS))
    b1, b2 = RNG.normal(size=(2, 4 * UNITS))
    weights = layouts.lstm_from_torch(ih, hh, b1, b2, hr := RNG.normal(size=(2, UNITS)))
    for k, gate in enumerate("ifco"):  # i f g o, and g is the candidate
        rows = slice(k * UNITS, (k + 1) * UNITS)
        np.testing.assert_array_equal(weights[f"W_{gate}"], ih[rows].T)
        np.testing.assert_array_equal(weights[f"U_{gate}"], hh[rows].T)
        np.testing.assert_array_equal(weights[f"b_{gate}"], b1[rows] + b2[rows])
    np.testing.assert_array_equal(weights["P"], hr.T)
    weights = layouts.gru_from_torch(ih[: 3 * UNITS], hh[: 3 * UNITS], b1[:15], b2[:15])
    for k, gate in enumerate("rzh"):
        rows = slice(k * UNITS, (k + 1) * UNITS)
        np.testing.assert_array_equal(weights[f"W_{gate}"], ih[rows].T)
        np.testing.assert_array_equal(weights[f"U_{gate}"], hh[rows].T)
        np.testing.assert_array_equal(weights[f"b_{gate}"], b1[rows])
        np.testing.assert_array_equal(weights[f"rb_{gate}"], b2[rows])
    weights = layouts.rnn_from_torch(ih[:UNITS], hh[:UNITS], None, None)
    assert set(weights) == {"W_h", "U_h"}


def test_cudnn_layout_is_keras_own() -> None:
    """Keras 2 converts CuDNN weights when an LSTM loads them; that conversion is the reference."""
    legacy = pytest.importorskip("tf_keras.src.saving.legacy.hdf5_format")
    from tf_keras import layers

    kernel, recurrent, _ = packed()
    bias = RNG.normal(size=8 * UNITS)
    converted = legacy._convert_rnn_weights(layers.LSTM(UNITS), [kernel, recurrent, bias])
    expected = layouts.lstm_from_keras(*converted)
    weights = layouts.lstm_from_cudnn(kernel, recurrent, bias)
    for key, array in expected.items():
        np.testing.assert_array_equal(weights[key], array, err_msg=key)
