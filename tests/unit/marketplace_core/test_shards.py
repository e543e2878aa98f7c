"""Ranges of shards: read, compared, and what they leave out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_core.ids import DEVICE_SHARDS, shard_of
from marketplace_core.shards import EVERY_SHARD, ShardRange, left_out, shard_range

SHARD = st.integers(0, DEVICE_SHARDS - 1)
RANGES = st.tuples(SHARD, SHARD).map(lambda pair: ShardRange(min(pair), max(pair)))


@given(RANGES)
def test_a_range_is_read_as_it_is_written(shards: ShardRange) -> None:
    assert shard_range(str(shards)) == shards


@pytest.mark.parametrize("text", ["", "80", "80-", "0-f", "80-7f", "00-100", "GG-HH", " 00-ff"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|before"):
        shard_range(text)


@given(st.lists(RANGES, max_size=6))
def test_what_is_left_out_is_what_nobody_holds(ranges: list[ShardRange]) -> None:
    held = {shard for first, last in ranges for shard in range(first, last + 1)}
    free = [shard for first, last in left_out(ranges) for shard in range(first, last + 1)]
    assert free == sorted(set(range(DEVICE_SHARDS)) - held)


@given(RANGES, RANGES)
def test_ranges_meet_where_they_have_a_shard_in_common(one: ShardRange, other: ShardRange) -> None:
    common = set(range(one[0], one[1] + 1)) & set(range(other[0], other[1] + 1))
    assert one.meets(other) == bool(common)


def test_a_device_is_held_by_the_range_of_its_shard() -> None:
    shard = shard_of("ev-1")
    assert ShardRange(shard, shard).holds("ev-1")
    assert EVERY_SHARD.holds("ev-1")
    assert EVERY_SHARD.whole
    assert not ShardRange(0, shard - 1).holds("ev-1")
