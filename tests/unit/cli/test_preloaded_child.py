"""A child that was forked ready-made is a child like any other: the kill tests rest on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.children import Child
from tests.harness.preloaded import PreloadedChild

pytestmark = pytest.mark.process
SCRIPT = """
import json, os, sys, time
from pathlib import Path
print(os.environ["FLEXWAY_TOLD"], sys.argv[1:], __name__, flush=True)
ready = Path(sys.argv[1])
ready.with_suffix(".new").write_text(json.dumps({"pid": os.getpid()}))
ready.with_suffix(".new").rename(ready)
if len(sys.argv) > 2:
    sys.exit(int(sys.argv[2]))
time.sleep(60)
"""


@pytest.fixture(params=[Child, PreloadedChild])
def kind(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> type[Child]:
    (tmp_path / "a_script_of_a_test.py").write_text(SCRIPT)
    monkeypatch.setenv("FLEXWAY_TOLD", "by the environment")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found: type[Child] = request.param
    return found


def test_it_runs_a_module_with_arguments_environment_and_log(
    kind: type[Child], tmp_path: Path
) -> None:
    ready = str(tmp_path / "child.ready.json")
    child = kind("child", ["a_script_of_a_test", ready, "3"], tmp_path)
    assert child.wait(30) == 3
    assert child.tail() == f"by the environment {[ready, '3']} __main__"
    assert not child.running


def test_it_has_an_id_of_its_own_and_dies_of_a_signal(kind: type[Child], tmp_path: Path) -> None:
    child = kind("child", ["a_script_of_a_test", str(tmp_path / "child.ready.json")], tmp_path)
    assert child.wait_ready() == {"pid": child.pid}
    assert child.pid != os.getpid()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    assert child.running
    assert child.kill() == -9
    assert not Path(f"/proc/{child.pid}").exists()
    again = kind("child", ["a_script_of_a_test", str(tmp_path / "child.ready.json")], tmp_path)
    assert json.dumps(again.wait_ready())
    assert again.stop() == -15
