"""The wire format of protocol buffers: what is read, and what damaged bytes give."""

from __future__ import annotations

import pytest
from npylstm_converters.toolkit import wire
from npylstm_converters.toolkit.wire import Message, read_varint
from tensorflow_layout import field, fixed32, varint

from npylstm import FormatError

INSIDE = field(1, 5) + field(2, b"name")
BYTES = field(1, 300) + field(2, INSIDE) + field(2, field(1, 6)) + fixed32(3, 7) + field(9, b"x")


def test_fields_are_read_by_number() -> None:
    message = Message(BYTES, 1, 2, 3, 4)
    assert message.integer(1) == 300
    assert message.integer(3) == 7
    assert [m.integer(1) for m in message.messages(2, 1)] == [5, 6]
    assert [m.text(2) for m in message.messages(2, 2)] == ["name", ""]


def test_missing_fields_are_empty() -> None:
    message = Message(b"", 1, 2)
    assert (message.integer(1), message.text(2), message.data(2)) == (0, "", None)
    assert message.texts(2) == []
    assert message.message(1, 5).integer(5) == 0


def test_the_last_of_a_single_field_counts() -> None:
    assert Message(field(1, 1) + field(1, 2), 1).integer(1) == 2
    assert Message(field(1, b"a") + field(1, b"b"), 1).texts(1) == ["a", "b"]


def test_what_nobody_asks_for_is_skipped() -> None:
    fixed64 = varint(8 << 3 | 1) + bytes(8)
    assert Message(fixed64 + field(7, b"z" * 1000) + field(1, 3), 1).integer(1) == 3


@pytest.mark.parametrize("size", [0, 1, 127, 128, 2**32, 2**64 - 1])
def test_numbers_of_seven_bits_a_byte(size: int) -> None:
    data = memoryview(b"\xff" + varint(size))
    assert read_varint(data, 1) == (size, len(data))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x08", "a number has no end"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "longer than 64 bits"),
        (b"\x08" + b"\xff" * 11, "longer than 64 bits"),
        (b"\x0a\x05abc", "a field of 5 bytes, of which 3 are there"),
        (b"\x0d\x00", "a field of 4 bytes, of which 1 are there"),
        (b"\x0b", "wire type 3"),
        (field(1, b"\xff\xfe"), "field 1: expected UTF-8"),
        (field(1, 4), "field 1: expected bytes"),
    ],
)
def test_damage_is_named(data: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        Message(data, 1).text(1)


def test_other_types_than_expected() -> None:
    with pytest.raises(FormatError, match="field 1: expected a number"):
        Message(field(1, b"a"), 1).integer(1)
    with pytest.raises(FormatError, match="field 1: expected messages"):
        list(Message(field(1, 1), 1).messages(1))
    with pytest.raises(FormatError, match="field 1: expected text"):
        Message(field(1, 1), 1).texts(1)


def test_messages_of_one_file_share_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MOST_FIELDS", 10)
    data = field(1, field(1, 0) * 4) * 2
    assert [m.integer(1) for m in Message(data, 1).messages(1, 1)] == [0, 0]  # 10 fields
    message = Message(data + field(2, 0), 1)
    with pytest.raises(FormatError, match="more than 10 fields"):
        list(message.messages(1, 1))
