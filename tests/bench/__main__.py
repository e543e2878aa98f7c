"""`make bench`: every benchmark beside its reference, medians and ratios.

Prints a table and writes `build/bench.json`: a list of
`{name, ours, reference, ratio, unit, runs}` with ratio = ours / reference.
Of rates higher is better, of times lower.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import (
    bench_clearing,
    bench_dispatch,
    bench_edge_cpu,
    bench_fleet,
    bench_modbus_poll,
    bench_mqtt_ingest,
    bench_planner,
    bench_store,
)

BENCHMARKS = {
    "clearing_2000x48": bench_clearing.run,
    "order_to_wire_1000": bench_dispatch.run,
    "dispatch_fanout_10k": bench_dispatch.run_10k,
    "mqtt_ingest_qos1": bench_mqtt_ingest.run,
    "planner_100k": bench_planner.run,
    "memory_per_device": bench_fleet.costs,
    "reconnect_10k": bench_fleet.reconnect,
    "store": bench_store.run,
    "modbus_poll_100": bench_modbus_poll.run,
    "edge_idle_cpu": bench_edge_cpu.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BENCHMARKS), help="which to run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    console = Console()
    rows: list[dict[str, object]] = []
    for name in options.names:
        console.print(f"running {name} ({options.runs} runs)")
        rows += BENCHMARKS[name](options.runs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    table = Table("benchmark", "ours", "reference", "ratio", "unit", "runs")
    for row in rows:
        figures = [f"{row[key]:,.4g}" for key in ("ours", "reference", "ratio")]
        table.add_row(str(row["name"]), *figures, str(row["unit"]), str(row["runs"]))
    console.print(table)
    console.print(f"written to {options.out}")


if __name__ == "__main__":
    main()
