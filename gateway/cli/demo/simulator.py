"""What the demo has the simulator do beside the day: plan it, make its history, judge it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any, Final

from gateway.children import Child
from gateway.cli.demo.world import Json
from marketplace_core.errors import FlexwayError

_PATIENCE_S: Final = 300.0
"""Wall seconds that one of its commands may take; a slow machine takes some ten."""


class Simulator:
    """Runs `python -m firmware_sim ...` over one folder, some of it beside other work."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        """`data`: folder of the real data; None = what is shipped."""
        self._folder = folder
        self._data = ["--data", str(data)] if data else []
        self._running: dict[str, Child] = {}

    @property
    def history(self) -> Path:
        """The meter history; whole once `finish("history")` has returned."""
        return self._folder / "history.csv"

    def plan(self, seed: int, day: date) -> Json:
        """Make the day and what is hidden behind it; return what everybody may know of it."""
        self._start(
            "plan", "--seed", str(seed), "--day", day.isoformat(), *self._data,
            "--out", str(self._folder / "scenario.json"),
            "--world", str(self._folder / "world.json"),
        )  # fmt: skip
        self.finish("plan")
        scenario: Json = json.loads((self._folder / "scenario.json").read_text(encoding="utf-8"))
        return scenario

    def begin_history(self, spoiled_line: int) -> None:
        """Begin to write the meter history before the day, with one row wrong on purpose."""
        spoil = ["--spoil", str(spoiled_line)]
        self._start("history", *self._both(), *spoil, "--out", str(self.history))

    def begin_counterfactual(self) -> None:
        """Begin to play the day as it would have been if nobody was called."""
        self._start("counterfactual", *self._both(), "--out", str(self._counterfactual))

    def judge(self, report: Json, truth: Path) -> Any:
        """What really happened, held against a report; the gateway never reads it.

        `truth`: folder in which the devices wrote it. The counterfactual has to be begun.
        """
        self.finish("counterfactual")
        told, found = self._folder / "report.json", self._folder / "truth.json"
        told.write_text(json.dumps(report), encoding="utf-8")
        self._start(
            "judge", *self._both(), "--report", str(told), "--truth", str(truth),
            "--counterfactual", str(self._counterfactual), "--out", str(found),
        )  # fmt: skip
        self.finish("judge")
        return json.loads(found.read_text(encoding="utf-8"))

    def finish(self, command: str) -> None:
        """Wait for a command that was begun. Raises FlexwayError with what it said."""
        child = self._running[command]
        if child.wait(_PATIENCE_S) != 0:
            raise FlexwayError(f"firmware_sim {command}: {child.tail()}")
        del self._running[command]

    def abort(self) -> None:
        """End what still runs."""
        for child in self._running.values():
            child.kill()
        self._running.clear()

    @property
    def _counterfactual(self) -> Path:
        return self._folder / "counterfactual.jsonl"

    def _both(self) -> list[str]:
        folder = self._folder
        return ["--scenario", str(folder / "scenario.json"), "--world", str(folder / "world.json")]

    def _start(self, command: str, *arguments: str) -> None:
        self._running[command] = Child(
            command, ["firmware_sim", command, *arguments], self._folder
        )  # fmt: skip
