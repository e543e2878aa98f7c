"""Modbus TCP frames, whatever the network does to a stream and whatever else comes in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU

from adapters.modbus.frames import (
    FrameError,
    confirms,
    data_read,
    join,
    read_request,
    refusal,
    split,
    write_request,
)

FRAMES = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.binary(min_size=1, max_size=253)
    ),
    max_size=6,
)  # fmt: skip
LONGEST = 6 + 254


@given(FRAMES, st.binary(max_size=LONGEST - 1), st.data())
def test_frames_come_whole_however_the_stream_is_cut(
    frames: list[tuple[int, int, bytes]], begun: bytes, data: st.DataObject
) -> None:
    part = join(7, 1, b"\x03" + begun[:200])[:-1]
    stream = b"".join(join(*frame) for frame in frames) + part
    came, rest, at = list[tuple[int, int, bytes]](), b"", 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found, rest = split(rest + stream[at : at + step])
        came += found
        assert len(rest) < LONGEST
        at += step
    assert came == frames
    assert rest == part


@given(st.binary(max_size=600))
def test_any_bytes_are_frames_and_a_rest_or_an_error_that_shows_them(data: bytes) -> None:
    try:
        frames, rest = split(data)
    except FrameError as error:
        shown = error.evidence
        assert len(shown) == 7
        assert shown in data
    else:
        assert b"".join(join(*frame) for frame in frames) + rest == data
        assert all(pdu for _, _, pdu in frames)


@pytest.mark.parametrize(
    "header", ["0001 0001 0006 01", "0001 0000 0001 01", "0001 0000 00ff 01", "dead beef dead be"]
)
def test_a_header_that_cannot_be_one_is_an_error(header: str) -> None:
    """Protocol not 0, a length without a function code, a PDU of more than 253 bytes."""
    with pytest.raises(FrameError):
        split(bytes.fromhex(header))


@pytest.mark.parametrize("after", [b"", b"\x00", join(8, 2, b"\x03")])
def test_pdus_as_the_specification_has_them(after: bytes) -> None:
    """MODBUS Application Protocol V1.1b3: 6.3 (registers 108 to 110), 6.12 (2 and 3), 7."""
    assert read_request(0x6B, 3).hex() == "03006b0003"
    assert write_request(1, [0x000A, 0x0102]).hex() == "100001000204000a0102"
    answer = bytes.fromhex("0306022b00000064")
    assert split(join(7, 0x11, answer) + after)[0][0] == (7, 0x11, answer)
    assert data_read(answer, 3) == bytes.fromhex("022b00000064")
    assert confirms(bytes.fromhex("1000010002"), 1, 2)
    assert refusal(bytes.fromhex("8302")) == 2
    assert refusal(answer) == 0


@given(st.binary(min_size=1, max_size=253), st.integers(1, 125))
def test_an_answer_is_taken_for_registers_only_when_it_is_all_of_them(
    pdu: bytes, count: int
) -> None:
    data = data_read(pdu, count)
    assert (data is None) == (pdu[:2] != bytes([3, 2 * count]) or len(pdu) != 2 + 2 * count)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(1, 125))
def test_the_library_reads_our_requests_as_we_meant_them(
    transaction: int, unit: int, address: int, count: int
) -> None:
    """Two implementations of the same standard."""
    server = FramerSocket(DecodePDU(True))
    frame = join(transaction, unit, read_request(address, count))
    used, request = server.handleFrame(frame, 0, 0)
    assert used == len(frame)
    assert (request.transaction_id, request.dev_id) == (transaction, unit)
    assert (request.function_code, request.address, request.count) == (3, address, count)
    assert server.buildFrame(request) == frame
