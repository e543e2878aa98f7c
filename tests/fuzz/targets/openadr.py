"""OpenADR 2.0b: the guard in front of the library."""

from __future__ import annotations

import random
from pathlib import Path

from adapters.openadr.wire import MessageRefusedError, answers, read_message
from tests.fuzz.corpus import load
from tests.fuzz.judge import Target

GOLDEN = Path(__file__).parents[2] / "golden" / "openadr"


def message(frame: bytes) -> bool:
    """Guarded, parsed, validated; and what it says to events."""
    found = read_message(frame)
    said = answers(found)
    assert all(answer.modification >= 0 for answer in said)
    return bool(found.kind)


def some_message(rng: random.Random) -> bytes:
    """A golden message whose texts, ids and prefixes are others."""
    body = rng.choice(_MESSAGES)
    for old in (b"oadr:", b"ei:", b"ns2:"):
        if rng.random() < 0.5:
            new = rng.choice((b"oadr", b"ns3", b"q")) + b":"
            body = body.replace(old, new).replace(
                b"xmlns:" + old[:-1] + b"=", b"xmlns:" + new[:-1] + b"="
            )
    return body


_MESSAGES = [path.read_bytes() for path in sorted(GOLDEN.glob("*.xml"))]

TARGETS = (
    Target(
        "openadr",
        message,
        (MessageRefusedError,),
        share=2,
        make=some_message,
        seeds=[*_MESSAGES, *load("openadr")],
        tokens=(
            b"<",
            b">",
            b"</",
            b"/>",
            b"&amp;",
            b"&#x10FFFF;",
            b"&#0;",
            b"&x;",
            b"<!DOCTYPE a [",
            b"<!ENTITY a 'b'>",
            b"<![CDATA[",
            b"]]>",
            b"<?xml version='1.0' encoding='utf-16'?>",
            b"<?a b?>",
            b"<!--",
            b"-->",
            b"xmlns:x='urn:x'",
            b"xsi:nil='true'",
            b"\xef\xbb\xbf",
            b"<ei:venID>",
            b"</ei:venID>",
            b"PT1H",
            b"2017-01-01T00:00:00Z",
            b"xsi:type='x'",
        ),
    ),
)
