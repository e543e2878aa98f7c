"""Bytes and values of OpenADR 2.0b: the guard in front of the library, and what messages say.

openleadr 0.5.36 validates while it parses, before it authenticates, and lxml crashes the
process when a document with a DTD entity is parsed against a schema. So a message is
refused, its names are checked (see `names`), it is parsed without a schema and only then
validated, before the library sees it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final
from xml.parsers.expat import ExpatError

from lxml import etree
from openleadr.messaging import XML_SCHEMA

from adapters.openadr.config import MAX_BODY_BYTES
from adapters.openadr.names import ChosenNames, StrangeNameError, check_names
from marketplace_core.errors import RequestError

OADR: Final = "{http://openadr.org/oadr-2.0b/2012/07}"
EI: Final = "{http://docs.oasis-open.org/ns/energyinterop/201110}"
PYLD: Final = "{http://docs.oasis-open.org/ns/energyinterop/201110/payloads}"
XCAL: Final = "{urn:ietf:params:xml:ns:icalendar-2.0}"

_CHOSEN: Final = ChosenNames()
"""Of the whole process, as the dictionary is that it keeps small."""
_FORBIDDEN: Final = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_DECLARED: Final = re.compile(r"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([^"']*)["']""")
_ENCODINGS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_PARSER_OPTIONS: Final = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "dtd_validation": False,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
    "encoding": "utf-8",
}


class MessageRefusedError(RequestError):
    """A body that never reaches the library; `rule` names what it broke."""


@dataclass(frozen=True)
class Message:
    """A message that is well-formed and valid against the 2.0b schema."""

    kind: str
    """Element inside `oadrSignedObject`, such as `oadrPoll`."""
    ven_id: str | None
    ven_name: str | None
    """Only a registration carries it."""
    body: Any
    """The lxml element of `kind`."""


@dataclass(frozen=True)
class Answer:
    """What a VEN says to one event."""

    event_id: str
    modification: int
    opt_in: bool
    code: str
    """Response code; anything but 2xx means that the VEN will not follow."""


def read_message(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> Message:
    """Guard, parse and validate one body. Raises MessageRefusedError."""
    if len(body) > max_bytes:
        raise MessageRefusedError(f"{len(body)} bytes are more than {max_bytes}", rule="size")
    _check_text(body)
    root = _parse(body)
    if root.getroottree().docinfo.doctype:
        raise MessageRefusedError("a document type is not allowed", rule="dtd")
    if not XML_SCHEMA.validate(root):
        first = str(XML_SCHEMA.error_log.last_error)[:500]
        raise MessageRefusedError(f"not valid OpenADR 2.0b: {first}", rule="schema")
    return _message(root)


def fingerprint(der: bytes) -> str:
    """OpenADR fingerprint of a DER certificate: the last ten bytes of its SHA-256, in hex."""
    digest = hashlib.sha256(der).digest()
    return ":".join(f"{byte:02X}" for byte in digest[-10:])


def answers(message: Message) -> list[Answer]:
    """What an `oadrCreatedEvent` says to each event it names."""
    return [
        Answer(
            event_id=response.findtext(f".//{EI}eventID", ""),
            modification=int(response.findtext(f".//{EI}modificationNumber", "0")),
            opt_in=response.findtext(f"{EI}optType", "").strip() == "optIn",
            code=response.findtext(f"{EI}responseCode", "").strip(),
        )
        for response in message.body.iter(f"{EI}eventResponse")
    ]


def _check_text(body: bytes) -> None:
    """Refuse all but UTF-8, so that nobody hides a DTD in an encoding that we do not search."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MessageRefusedError("only UTF-8 is accepted", rule="encoding") from None
    if "\x00" in text:
        raise MessageRefusedError("a null character: only UTF-8 is accepted", rule="encoding")
    declared = _DECLARED.match(text)
    if declared and declared.group(1).lower() not in _ENCODINGS:
        raise MessageRefusedError(f"encoding {declared.group(1)[:40]!r}", rule="encoding")
    if _FORBIDDEN.search(text):
        raise MessageRefusedError("a DTD or an entity is not allowed", rule="dtd")


def _parse(body: bytes) -> Any:
    try:
        check_names(body, _CHOSEN)
    except StrangeNameError as error:
        raise MessageRefusedError(str(error), rule=error.rule) from None
    except ExpatError as error:
        raise MessageRefusedError(f"not well-formed: {error}", rule="xml") from None
    try:
        return etree.fromstring(body, etree.XMLParser(**_PARSER_OPTIONS))
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MessageRefusedError(f"not well-formed: {error}", rule="xml") from None


def _message(root: Any) -> Message:
    signed = root.find(f"{OADR}oadrSignedObject")
    if signed is None or len(signed) != 1:
        raise MessageRefusedError("an oadrPayload carries one oadrSignedObject", rule="schema")
    body = signed[0]
    kind = etree.QName(body).localname
    # oadrCreatedEvent and oadrRequestEvent wrap what they say in a payload element
    inner = body[0] if kind in {"oadrCreatedEvent", "oadrRequestEvent"} else body
    return Message(
        kind=kind,
        ven_id=_stripped(inner.findtext(f"{EI}venID")),
        ven_name=_stripped(body.findtext(f"{OADR}oadrVenName")),
        body=body,
    )


def _stripped(text: str | None) -> str | None:
    return (text or "").strip() or None
