"""The session of a Sparkplug edge node as its host sees it: messages in, decisions out. Pure.

Eclipse Sparkplug 3.0.0, chapter 5. A birth says which metrics there are, data names them by
name or alias, every message but a death counts on by one. `_TRANSITIONS` is the one table of
what follows from what.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from adapters.mqtt.sparkplug_payload import (
    MAX_SEQUENCE,
    DataType,
    Metric,
    Payload,
    Raw,
    Value,
    typed,
)
from adapters.mqtt.sparkplug_topic import Verb
from adapters.mqtt.wire import WireError

REBIRTH: Final = "Node Control/Rebirth"
BD_SEQ: Final = "bdSeq"
MAX_MILLIS: Final = 4_102_444_800_000
"""1 January 2100: no later time is believed."""
_FAULTS_NAMED: Final = 4
"""Faults of a message that its evidence names."""
NODE: Final = ""
"""Stands for the edge node itself where a device could."""


class Life(enum.Enum):
    """What a host may believe of an edge node or a device."""

    ABSENT = "absent"
    """Never born as far as we know, or dead: nothing it says can be understood."""
    BORN = "born"
    DOUBTED = "doubted"
    """Messages are missing, a birth may be among them: what an alias means is not sure."""


class Sign(enum.Enum):
    """What a message, or the loss of our own link, says of a life."""

    BIRTH = enum.auto()
    IN_ORDER = enum.auto()
    OUT_OF_ORDER = enum.auto()
    REPEATED = enum.auto()
    """The broker delivers again what was there before."""
    DEATH = enum.auto()
    STRAY_DEATH = enum.auto()
    """The Will of an earlier session: its bdSeq is not that of the birth."""
    UNHEARD = enum.auto()
    """Our own link was down: anything may have been said meanwhile."""


class Step(enum.Flag):
    """What is to be done about it."""

    NOTHING = 0
    TAKE = enum.auto()
    """Believe its metrics."""
    ASK = enum.auto()
    """Ask for a rebirth."""
    BURY = enum.auto()
    """It, and whatever hangs on it, is gone."""


_A, _B, _D = Life.ABSENT, Life.BORN, Life.DOUBTED
_TRANSITIONS: Final[dict[tuple[Life, Sign], tuple[Life, Step]]] = {
    (_A, Sign.BIRTH): (_B, Step.TAKE),
    (_A, Sign.IN_ORDER): (_A, Step.ASK),
    (_A, Sign.OUT_OF_ORDER): (_A, Step.ASK),
    (_A, Sign.REPEATED): (_A, Step.NOTHING),
    (_A, Sign.DEATH): (_A, Step.NOTHING),
    (_A, Sign.STRAY_DEATH): (_A, Step.NOTHING),
    (_A, Sign.UNHEARD): (_A, Step.ASK),
    (_B, Sign.BIRTH): (_B, Step.TAKE),
    (_B, Sign.IN_ORDER): (_B, Step.TAKE),
    (_B, Sign.OUT_OF_ORDER): (_D, Step.TAKE | Step.ASK),
    (_B, Sign.REPEATED): (_B, Step.NOTHING),
    (_B, Sign.DEATH): (_A, Step.BURY),
    (_B, Sign.STRAY_DEATH): (_B, Step.NOTHING),
    (_B, Sign.UNHEARD): (_D, Step.ASK),
    (_D, Sign.BIRTH): (_B, Step.TAKE),
    (_D, Sign.IN_ORDER): (_D, Step.TAKE | Step.ASK),
    (_D, Sign.OUT_OF_ORDER): (_D, Step.TAKE | Step.ASK),
    (_D, Sign.REPEATED): (_D, Step.NOTHING),
    (_D, Sign.DEATH): (_A, Step.BURY),
    (_D, Sign.STRAY_DEATH): (_D, Step.NOTHING),
    (_D, Sign.UNHEARD): (_D, Step.ASK),
}


class _UndeclaredError(WireError):
    """A metric that its birth did not declare."""


class Sample(msgspec.Struct, frozen=True):
    """A metric's value at an instant."""

    name: str
    value: Value | None
    """None: the device says that there is none."""
    at_ms: int
    historical: bool


class Declared(msgspec.Struct, frozen=True):
    """A metric as its birth declared it."""

    name: str
    alias: int | None
    datatype: DataType


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What a message says; whose it is, its sender knows by the topic."""

    born: bool = False
    died: tuple[str, ...] = ()
    """Devices that are gone, and `NODE` when the edge node is."""
    samples: tuple[Sample, ...] = ()
    faults: tuple[str, ...] = ()
    """Metrics that could not be understood."""


_NOTHING: Final = Heard()


class _Table:
    """The metrics that one birth declared."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.by_name: dict[str, Declared] = {}
        self.by_alias: dict[int, Declared] = {}
        for metric in metrics:
            if metric.name is None or metric.datatype is None:
                continue  # nothing can name it; the birth's own faults say so
            declared = Declared(metric.name, metric.alias, metric.datatype)
            self.by_name[metric.name] = declared
            if metric.alias is not None:
                self.by_alias[metric.alias] = declared

    def find(self, metric: Metric) -> Declared:
        """What a metric is; raises _UndeclaredError."""
        if metric.name is not None:
            found = self.by_name.get(metric.name)
        else:
            found = None if metric.alias is None else self.by_alias.get(metric.alias)
        if found is None:
            label = metric.name if metric.name is not None else f"alias {metric.alias}"
            raise _UndeclaredError(f"{label} was never declared, or without a type", b"")
        return found


class NodeSession:
    """One edge node and those of its devices that somebody is interested in."""

    def __init__(self, wanted: Mapping[str, Collection[str]]) -> None:
        """`wanted`: of each bound device the metrics that mean something to us.

        `NODE` stands for metrics of the node itself.
        """
        self.missing = 0
        """Messages that the sequence numbers show to be lost."""
        self.doubted = 0
        """Metrics left aside because their alias may have another meaning by now."""
        self.wants_rebirth = ""
        """Why a rebirth is to be asked for; empty when nothing is amiss."""
        self._bound = {device: frozenset(names) for device, names in wanted.items()}
        self._lives: dict[str, Life] = {NODE: Life.ABSENT}
        self._tables: dict[str, _Table] = {}
        self._last: int | None = None
        self._bd_seq: Value | None = None

    def life(self, device: str) -> Life:
        """Of a device, or of the node itself: doubt about the node is doubt about each."""
        node = self._lives[NODE]
        return self._lives.get(device, Life.ABSENT) if node is Life.BORN else node

    def declared(self, device: str) -> Mapping[str, Declared]:
        """Metrics by name, as the newest birth declared them; empty before one."""
        table = self._tables.get(device)
        return {} if table is None else table.by_name

    def unheard(self) -> None:
        """Our link was down: whatever was said meanwhile is not known."""
        self._step(NODE, Sign.UNHEARD, "the link was down")

    def take(self, verb: Verb, device: str, payload: Payload, *, again: bool = False) -> Heard:
        """Follow one message; `again`: the broker may have delivered it before.

        Raises: WireError when it has no sequence number although it needs one.
        """
        if verb is Verb.NDEATH:
            return self._death(payload)
        if verb in {Verb.NCMD, Verb.DCMD}:
            return _NOTHING  # a command of a host, our own among them
        if payload.seq is None:
            raise WireError(f"{verb.value} without seq", b"")
        if verb is Verb.NBIRTH:
            return self._birth(payload)
        step = self._step(NODE, self._order(payload.seq, again=again), "messages are missing")
        if Step.TAKE not in step or (device not in self._bound and verb is not Verb.NDATA):
            return _NOTHING
        return self._of_device(verb, device, payload)

    def _birth(self, payload: Payload) -> Heard:
        self._last = payload.seq
        self._bd_seq = _bd_seq(payload)
        self._lives = {NODE: self._lives[NODE]}
        self._tables = {NODE: _Table(payload.metrics)}
        self.wants_rebirth = ""
        self._step(NODE, Sign.BIRTH, "")
        return self._read(NODE, payload, born=True) if NODE in self._bound else Heard(born=True)

    def _death(self, payload: Payload) -> Heard:
        told = _bd_seq(payload)
        stray = None not in {told, self._bd_seq} and told != self._bd_seq
        step = self._step(NODE, Sign.STRAY_DEATH if stray else Sign.DEATH, "")
        if Step.BURY not in step:
            return _NOTHING
        gone = tuple(self._lives)
        self._lives, self._tables = {NODE: self._lives[NODE]}, {}
        return Heard(died=gone)

    def _of_device(self, verb: Verb, device: str, payload: Payload) -> Heard:
        if verb is Verb.DBIRTH:
            self._step(device, Sign.BIRTH, "")
            self._tables[device] = _Table(payload.metrics)
            return self._read(device, payload, born=True)
        if verb is Verb.DDEATH:
            step = self._step(device, Sign.DEATH, "")
            self._tables.pop(device, None)
            return Heard(died=(device,)) if Step.BURY in step else _NOTHING
        if verb is Verb.DDATA and Step.TAKE not in self._step(
            device, Sign.IN_ORDER, f"{device} sends data and was not born"
        ):
            return _NOTHING
        return self._read(device, payload, born=False) if device in self._bound else _NOTHING

    def _order(self, seq: int, *, again: bool) -> Sign:
        if self._last is None:
            return Sign.OUT_OF_ORDER
        if again and seq == self._last:
            return Sign.REPEATED
        lost = (seq - self._last - 1) % (MAX_SEQUENCE + 1)
        self._last = seq
        if self._lives[NODE] is not Life.ABSENT:
            self.missing += lost
        return Sign.OUT_OF_ORDER if lost else Sign.IN_ORDER

    def _step(self, device: str, sign: Sign, reason: str) -> Step:
        life = self._lives.get(device, Life.ABSENT)
        self._lives[device], step = _TRANSITIONS[life, sign]
        if Step.ASK in step and not self.wants_rebirth:
            unknown = life is Life.ABSENT and device == NODE
            self.wants_rebirth = "it was not born since we listen" if unknown else reason
        return step

    def _read(self, device: str, payload: Payload, *, born: bool) -> Heard:
        table, wanted, faults = self._tables[device], self._bound[device], []
        samples: list[Sample] = []
        doubted = self._lives[NODE] is Life.DOUBTED and not born
        for metric in payload.metrics:
            if doubted and metric.name is None:
                self.doubted += 1
                continue
            try:
                declared = table.find(metric)
                if declared.name in wanted:
                    samples.append(_sample(declared, metric, payload.timestamp_ms))
            except _UndeclaredError as error:
                faults.append(str(error))
                if not born and not self.wants_rebirth:
                    self.wants_rebirth = str(error)
            except WireError as error:
                faults.append(str(error))
        return Heard(born=born, samples=tuple(samples), faults=tuple(faults))


class Rebirths:
    """When an edge node may be asked for a rebirth: at once, then not more often than so."""

    def __init__(self, every_s: float) -> None:
        """`every_s`: wall seconds between two requests to one node."""
        self._every_s = every_s
        self._asked: float | None = None

    def due(self, session: NodeSession, at_s: float) -> bool:
        """Whether to ask now; notes that it is done. `at_s`: monotonic seconds."""
        if not session.wants_rebirth:
            return False
        if self._asked is not None and at_s - self._asked < self._every_s:
            return False
        self._asked = at_s
        return True


def rebirth_request(at_ms: int) -> Payload:
    """The command that asks an edge node to be born again; by name, it never has an alias."""
    switch = Metric(name=REBIRTH, timestamp_ms=at_ms, datatype=DataType.BOOLEAN, value=True)
    return Payload(timestamp_ms=at_ms, metrics=(switch,))


def evidence(faults: Sequence[str]) -> str:
    """What is wrong with a message's metrics, in one line."""
    more = len(faults) - _FAULTS_NAMED
    return "; ".join(faults[:_FAULTS_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _sample(declared: Declared, metric: Metric, sent_ms: int | None) -> Sample:
    at_ms = metric.timestamp_ms if metric.timestamp_ms is not None else sent_ms
    if at_ms is None or at_ms >= MAX_MILLIS:
        raise WireError(f"{declared.name} has no timestamp that can be meant: {at_ms}", b"")
    value = metric.value
    if isinstance(value, Raw):
        value = typed(value, declared.datatype)
    return Sample(declared.name, value, at_ms, metric.historical)


def _bd_seq(payload: Payload) -> Value | None:
    for metric in payload.metrics:
        if metric.name == BD_SEQ:
            return metric.value.value if isinstance(metric.value, Raw) else metric.value
    return None
