"""The error tree. Expected failures are values (`results.py`); these are for the edge.

FlexwayError
├── RequestError    the caller's fault: what it sent breaks a rule (4xx)
│   ├── RejectedError      a well-formed request that the market's rules refuse
│   │   └── NotFoundError      what it names does not exist, or is not the caller's to see
│   └── RecordError        one record of a batch is wrong; the rest goes on
├── DeviceError     a device or its link; says whether a retry makes sense
├── StoreError      the database or the journal
│   └── FencedError        another writer holds a newer epoch of this shard
└── ConfigError     configuration: names the key and the remedy
"""

from __future__ import annotations


class FlexwayError(Exception):
    """Root of everything Flexway raises on purpose."""


class RequestError(FlexwayError):
    """What the caller sent is wrong; a retry of the same request cannot succeed."""

    def __init__(self, message: str, *, field: str = "", rule: str = "", remedy: str = "") -> None:
        """`field` names the offending input, `rule` what it breaks, `remedy` what to do."""
        super().__init__(message)
        self.message = message
        self.field = field
        self.rule = rule
        self.remedy = remedy


class RejectedError(RequestError):
    """A well-formed request that a market rule refuses."""


class NotFoundError(RejectedError):
    """What is named does not exist, or is not the caller's to see: the same words for both."""

    def __init__(self, kind: str, name: str) -> None:
        """`kind` is the noun, such as `order`; `name` what it was called."""
        super().__init__(f"there is no {kind} {name}", field=f"{kind}_id", rule=f"known {kind}")


class RecordError(RequestError):
    """One record of a batch is wrong."""

    def __init__(
        self, message: str, *, line: int, field: str = "", rule: str = "", remedy: str = ""
    ) -> None:
        """`line` is the 1-based line (or record) number in the batch."""
        super().__init__(message, field=field, rule=rule, remedy=remedy)
        self.line = line


class DeviceError(FlexwayError):
    """A device or the link to it failed; carries the evidence."""

    def __init__(
        self, message: str, *, device_id: str, retryable: bool, evidence: str = ""
    ) -> None:
        """`retryable` says whether asking again can help; `evidence` is bytes or registers."""
        super().__init__(message)
        self.device_id = device_id
        self.retryable = retryable
        self.evidence = evidence


class StoreError(FlexwayError):
    """The database or the journal refused or failed."""


class FencedError(StoreError):
    """Another writer took over this shard of the journal, or of the devices, with a newer epoch."""


class ConfigError(FlexwayError):
    """Configuration that cannot be used: names the key and what to do."""
