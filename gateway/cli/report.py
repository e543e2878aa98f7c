"""The report of a day: `report.json`, `report.html` and `statement.csv`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.cli.report_statement import statement_csv
from gateway.cli.report_view import view

_TEMPLATE = "report.html.j2"


def write_report(report: Mapping[str, Any], out_dir: Path) -> None:
    """Write `report.json`, the self-contained page and the statement into a folder."""
    out_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False, default=_plain)
    (out_dir / "report.json").write_text(text + "\n", encoding="utf-8")
    (out_dir / "report.html").write_text(render_html(report), encoding="utf-8")
    lines = statement_csv(report.get("statement", ()))
    (out_dir / "statement.csv").write_text(lines, encoding="utf-8", newline="")


def render_html(report: Mapping[str, Any]) -> str:
    """The page: no script, no request to anywhere, every value escaped."""
    environment = Environment(
        loader=PackageLoader("gateway.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(page=view(report))


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    msg = f"a report holds plain values, not {type(value).__name__}"
    raise TypeError(msg)
