"""Every key of a TOML file is found on its line."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.lines import line_numbers
from config.writing import to_toml

DOCUMENT = '''\
# a comment with [brackets]
lab = true

[api]
host = "x" # [not.a.table]
"port" = 1
text = """
[fake]
key = 1
"""
last = 'here'
[[modbus.devices]]
device_id = "a"
[modbus.devices.profile]
min_kw = 1
[[modbus.devices]]
device_id = "b"
profile.max_kw = 2
profile.min_kw = 3
[[modbus.devices.taps]]
n = 1
[[modbus.devices.taps]]
n = 2
[mqtt]
devices = [
  {device_id = "e", profile = {min_kw = 1}},
  # ] no end
  {device_id = "f"},
]
after = 1
'''


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("lab",), 2),
        (("api",), 4),
        (("api", "host"), 5),
        (("api", "port"), 6),
        (("api", "text"), 7),
        (("api", "last"), 11),
        (("modbus",), 12),
        (("modbus", "devices", 0), 12),
        (("modbus", "devices", 0, "device_id"), 13),
        (("modbus", "devices", 0, "profile"), 14),
        (("modbus", "devices", 0, "profile", "min_kw"), 15),
        (("modbus", "devices", 1), 16),
        (("modbus", "devices", 1, "device_id"), 17),
        (("modbus", "devices", 1, "profile", "max_kw"), 18),
        (("modbus", "devices", 1, "profile", "min_kw"), 19),
        (("modbus", "devices", 1, "taps", 0, "n"), 21),
        (("modbus", "devices", 1, "taps", 1, "n"), 23),
        (("mqtt", "devices"), 25),
        (("mqtt", "devices", 1, "device_id"), 25),
        (("mqtt", "after"), 30),
    ],
)
def test_a_key_is_on_its_line(location: tuple[str | int, ...], line: int) -> None:
    assert line_numbers(DOCUMENT)[location] == line


def test_nothing_inside_a_string_is_a_key() -> None:
    found = line_numbers(DOCUMENT)
    assert ("fake",) not in found
    assert ("api", "key") not in found


def test_line_ends_of_windows_change_nothing() -> None:
    assert line_numbers(DOCUMENT.replace("\n", "\r\n")) == line_numbers(DOCUMENT)


NAMES = st.text(alphabet="abc\"'#[]=. \n\u00e4", min_size=1, max_size=4)
SCALARS = st.one_of(
    st.integers(-9, 9), st.booleans(), st.text(alphabet='ab"\\\n#[]={}', max_size=6)
)
TABLES = st.recursive(
    st.dictionaries(NAMES, SCALARS, max_size=3),
    lambda inner: st.dictionaries(
        NAMES, st.one_of(SCALARS, inner, st.lists(inner, min_size=1, max_size=3)), max_size=3
    ),
    max_leaves=12,
)


def locations(value: Any) -> set[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found: set[tuple[str | int, ...]] = set()
    for key, item in inner:
        found.add((key,))
        if isinstance(item, dict | list):
            found |= {(key, *path) for path in locations(item)}
    return found


@given(TABLES)
def test_every_plain_key_of_any_document_is_found(value: dict[str, Any]) -> None:
    text = to_toml(value)
    found = line_numbers(text)
    data = tomllib.loads(text)
    plain = {path for path in locations(data) if not isinstance(at(data, path), dict | list)}
    assert plain <= set(found)
    assert set(found) <= locations(data)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        value = value[part]
    return value
