"""Topic aliases: a number in place of a topic that was said before on this connection. No I/O.

MQTT 5, section 3.3.2.3.4. Each side says in CONNECT or CONNACK how many it takes (3.1.2.11.5,
3.2.2.3.8); the two directions have nothing to do with each other, and a new connection begins
with none.
"""

from __future__ import annotations

NONE = 0
"""No alias: zero is not one."""


class AliasError(Exception):
    """An alias that the other side may not use: the connection is of no use any more."""


class Received:
    """What the broker's aliases stand for."""

    def __init__(self, most: int) -> None:
        """`most`: highest alias that we said we take."""
        self._most = most
        self._topics: dict[int, bytes] = {}

    def topic(self, topic: bytes, alias: int) -> bytes:
        """The topic of a message; one that it carries beside an alias is remembered.

        Raises: AliasError for an alias out of bounds, or one that stands for nothing yet.
        """
        if not 0 < alias <= self._most:
            raise AliasError(f"the topic alias {alias}; 1 to {self._most} are allowed")
        if topic:
            self._topics[alias] = topic
            return topic
        known = self._topics.get(alias)
        if known is None:
            raise AliasError(f"the topic alias {alias}, which was never given a topic")
        return known


class Sent:
    """Which topics the broker knows by a number.

    An alias is for a topic that is said again: it is given with the second message, while
    the broker takes more. Saying each topic once, as a fan-out does, spends none.
    """

    def __init__(self, most: int) -> None:
        """`most`: highest alias that the broker takes; 0 for none."""
        self._most = most
        self._known: dict[bytes, int] = {}
        self._once: set[bytes] = set()

    def address(self, topic: bytes) -> tuple[bytes, int]:
        """What to write as the topic and as the alias of a message (`NONE` for neither)."""
        alias = self._known.get(topic, NONE)
        if alias:
            return b"", alias
        if len(self._known) >= self._most:
            return topic, NONE
        if topic not in self._once:
            self._once.add(topic)
            return topic, NONE
        self._once.discard(topic)
        alias = self._known[topic] = len(self._known) + 1
        if alias == self._most:
            self._once.clear()  # nobody else gets one
        return topic, alias
