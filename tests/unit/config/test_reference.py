"""The shipped list of settings is the models', no more and no less."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from config.reference import reference
from config.settings import Settings

DEFAULTS = Path(__file__).parents[3] / "config/default.toml"


def test_the_shipped_defaults_are_the_models() -> None:
    shipped = DEFAULTS.read_text(encoding="utf-8")
    assert shipped == reference(), "python -m config.reference > config/default.toml"


def test_they_read_back_as_the_defaults() -> None:
    assert Settings.model_validate(tomllib.loads(reference())) == Settings()


def test_what_stands_in_comments_is_a_key_too() -> None:
    text = re.sub(r"(?m)^# ((\[|\w+ = ).*)$", r"\1", reference())
    text = re.sub(r"(?m)^(market|wall)_epoch = .*$", "", text)
    text = text.replace("=    # not set", '= "x"').replace("=    # required", '= "x"')
    data = tomllib.loads(text)
    assert set(data["modbus"]["devices"][0]) >= {"device_id", "host", "profile"}
    assert set(data["api"]["clients"][0]) == {"organisation", "role", "token_sha256"}
