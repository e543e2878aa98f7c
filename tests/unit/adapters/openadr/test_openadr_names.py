"""Names that a sender makes up do not stay in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from adapters.openadr import wire
from adapters.openadr.names import LONGEST, ChosenNames, StrangeNameError, check_names
from adapters.openadr.wire import MessageRefusedError, read_message

POLL = (Path(__file__).parents[3] / "golden" / "openadr" / "poll.xml").read_bytes()
PAGE = 4_096
MESSAGES = 20
NAMES = 1_000
SIZE = 100
"""2 MB of names that are all different: without the guard so much is kept, and more."""
MOST_KEPT = 1_000_000


def with_attributes(*attributes: bytes) -> bytes:
    return POLL.replace(b"<oadrPayload ", b"<oadrPayload " + b" ".join(attributes) + b" ", 1)


FLOODS: dict[str, Callable[[list[bytes]], bytes]] = {
    "elements": lambda names: b"<a>" + b"".join(b"<" + n + b"/>" for n in names) + b"</a>",
    "attributes": lambda names: with_attributes(*(n + b'="1"' for n in names)),
    "prefixes": lambda names: with_attributes(*(b"xmlns:" + n + b'="urn:x"' for n in names)),
    "namespaces": lambda names: with_attributes(
        *(b'xmlns:p%d="urn:%b"' % (index, n) for index, n in enumerate(names))
    ),
    "instructions": lambda names: (
        b"".join(b"<?" + n + b" a?>" for n in names) + POLL.split(b"?>")[1]
    ),
}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


@pytest.fixture(autouse=True)
def room_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_CHOSEN", ChosenNames())


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_new_names_is_not_kept(kind: str) -> None:
    rng = random.Random(7)

    def flood() -> None:
        names = [b"n" + rng.randbytes(SIZE // 2).hex().encode() for _ in range(NAMES)]
        with suppress(MessageRefusedError):  # the first few may be valid
            read_message(FLOODS[kind](names))

    for _ in range(10):
        flood()
    before = resident()
    for _ in range(MESSAGES):
        flood()
    assert resident() - before < MOST_KEPT
    assert read_message(POLL).kind == "oadrPoll"


def test_a_sender_may_choose_its_prefixes_and_declare_what_it_does_not_use() -> None:
    body = POLL.replace(b"ei:", b"mine:").replace(b"xmlns:ei", b"xmlns:mine")
    extra = b'<oadrPayload xmlns:v="urn:vendor" '
    assert read_message(body.replace(b"<oadrPayload ", extra)).ven_id == "PLACE-OF-VEN-ID"


def test_names_that_are_chosen_are_limited_in_number_and_length() -> None:
    chosen = ChosenNames(room=2)
    for _ in range(3):
        check_names(b'<longer:oadrPoll xmlns:longer="urn:y"/>', chosen)
    with pytest.raises(StrangeNameError, match="use the schema's"):
        check_names(b'<other:oadrPoll xmlns:other="urn:y"/>', chosen)
    for usual in (b"ei", b"ns12", b"oadr", b"xsi", b"longer"):
        check_names(b'<%b:oadrPoll xmlns:%b="urn:y"/>' % (usual, usual), chosen)
    with pytest.raises(StrangeNameError, match="characters"):
        check_names(b'<q:oadrPoll xmlns:q="urn:%b"/>' % (b"y" * LONGEST), ChosenNames())
