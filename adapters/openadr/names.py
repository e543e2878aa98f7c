"""Which names may stand in a message, asked before libxml2 sees any of them.

libxml2 keeps every name it parses (elements, attributes, prefixes, namespaces, targets of
processing instructions) in a dictionary that lives as long as its thread. Whoever sends new
names in each message would fill the memory. Expat forgets a document with its parser: it
reads the message first, and only names that the schema has, and a bounded number of others where
a sender is free to choose, go on to libxml2.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final
from xml.parsers import expat

import openleadr
from lxml import etree

_XSD: Final = "{http://www.w3.org/2001/XMLSchema}"
_KNOWN_SPACES: Final = frozenset({
    "http://www.w3.org/2001/XMLSchema", "http://www.w3.org/2001/XMLSchema-instance",
})  # fmt: skip
_INSTANCE: Final = frozenset({"type", "nil", "schemaLocation", "noNamespaceSchemaLocation"})
"""Attributes that any element may have (XML Schema Part 1, section 3.2.7)."""
_USUAL: Final = re.compile(r"[a-z]{1,3}|(ns|n|p|q)[0-9]{1,3}", re.ASCII)
"""Prefixes that toolkits make up; few enough to be kept for good."""
ROOM: Final = 2_048
"""Prefixes and namespaces that are neither usual nor the schema's, in the life of a process."""
LONGEST: Final = 256
"""Characters of one of them."""
_BETWEEN: Final = " "


class StrangeNameError(Exception):
    """A name that goes no further; its text says which."""

    def __init__(self, words: str, rule: str = "name") -> None:
        super().__init__(words)
        self.rule = rule


class ChosenNames:
    """Prefixes and namespaces that senders chose: known again, and limited in number."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._seen: set[str] = set()

    def admit(self, name: str) -> None:
        """Take note of a name; StrangeNameError when it is too long or there is no room."""
        if name in self._seen:
            return
        if len(name) > LONGEST:
            raise StrangeNameError(f"a prefix or namespace of {len(name)} characters")
        if len(self._seen) >= self._room:
            raise StrangeNameError(
                f"{name!r}: too many prefixes and namespaces that are none of the schema were used "
                "since the start; use the schema's"
            )
        self._seen.add(name)


def check_names(body: bytes, chosen: ChosenNames) -> None:
    """Read a body to its end and ask for each name; StrangeNameError, or expat's ExpatError."""
    parser = expat.ParserCreate("utf-8", _BETWEEN)
    names, spaces, prefixes = _schema()

    def element(name: str, attributes: list[str]) -> None:
        for each in (name, *attributes[::2]):
            local = each.rpartition(_BETWEEN)[2]
            if local not in names:
                words = f"not valid OpenADR 2.0b: {local[:LONGEST]!r} is none of its names"
                raise StrangeNameError(words, rule="schema")

    def namespace(prefix: str | None, uri: str | None) -> None:
        if prefix and prefix not in prefixes and not _USUAL.fullmatch(prefix):
            chosen.admit(prefix)
        if uri and uri not in spaces:
            chosen.admit(uri)

    def instruction(target: str, _data: str) -> None:
        raise StrangeNameError(f"a processing instruction, {target[:LONGEST]!r}", rule="xml")

    parser.ordered_attributes = True
    parser.StartElementHandler = element
    parser.StartNamespaceDeclHandler = namespace
    parser.ProcessingInstructionHandler = instruction
    parser.Parse(body, True)


@functools.cache
def _schema() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Names, namespaces and prefixes of the schema files that come with the library."""
    names, spaces, prefixes = set(_INSTANCE), set(_KNOWN_SPACES), set[str]()
    for path in sorted((Path(openleadr.__file__).parent / "schema").glob("*.xsd")):
        root = etree.parse(str(path)).getroot()
        spaces.add(root.get("targetNamespace", ""))
        prefixes.update(filter(None, root.nsmap))
        for each in root.iter(_XSD + "element", _XSD + "attribute"):
            names.add(each.get("name", ""))
    return frozenset(names), frozenset(spaces), frozenset(prefixes)
