"""Entries of a stream: limits, and what is not believed."""

from __future__ import annotations

import pytest

from gateway.bus.packing import pack, unpack
from tests.harness.bus import KEY, record


@pytest.mark.parametrize(
    ("most_records", "most_bytes", "sizes"),
    [(4, 10**6, [4, 4, 2]), (100, 10**6, [10]), (100, 1, [1] * 10)],
)
def test_entries_stay_within_their_limits(
    most_records: int, most_bytes: int, sizes: list[int]
) -> None:
    records = [record(number) for number in range(10)]
    entries = list(pack(records, KEY, most_records=most_records, most_bytes=most_bytes))
    opened = [unpack(entry, KEY) or [] for entry in entries]
    assert [len(found) for found in opened] == sizes
    assert [r for found in opened for r in found] == records


def test_a_changed_entry_is_not_believed() -> None:
    (entry,) = pack([record(0)], KEY, most_records=10, most_bytes=1000)
    for place in range(len(entry)):
        changed = bytearray(entry)
        changed[place] ^= 1
        assert unpack(bytes(changed), KEY) is None
    assert unpack(b"", KEY) is None
    assert unpack(entry, b"another") is None
