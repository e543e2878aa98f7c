"""Real PostgreSQL and Redis on free loopback ports, that can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.lab import HOST, free_port, wait_for_port

PASSWORD = "a password with @ and / in it"
"""Hard to put into a URL, easy to keep in a file."""
_UNPRIVILEGED = "postgres"


def _binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        assert versions, f"{name} is missing: scripts/services.sh postgresql installs it"
        found = str(versions[-1])
    return found


class PostgresServer:
    """One cluster in a folder of its own; `kill` is kill -9 of every process of it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._prefix: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, _UNPRIVILEGED)
            self._prefix = ["runuser", "-u", _UNPRIVILEGED, "--"]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "-D", str(self._data), "-U", "flexway", "-A", "scram-sha-256",
            f"--pwfile={secret}", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8",
        )  # fmt: skip

    def start(self) -> None:
        settings = {"listen_addresses": HOST, "port": self.port, "unix_socket_directories": "",
                    "shared_buffers": "64MB", "max_connections": 100}  # fmt: skip
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, _binary("postgres"), "-D", str(self._data), *options],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """End every process at once, as a crash would."""
        assert self._process is not None
        for pid in self._postmaster_tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._postmaster(), signal.SIGINT)  # fast shutdown
            self._process.wait(30)

    def database(self, *options: str) -> str:
        """The URL, without the password, of a new and empty database."""
        self._databases += 1
        name = f"flexway_{self._databases}"
        self._run(
            "createdb", "-h", HOST, "-p", str(self.port), "-U", "flexway",
            "--template=template0", *options, name,
        )  # fmt: skip
        return f"postgresql://flexway@{HOST}:{self.port}/{name}"

    def _answers(self) -> bool:
        ready = subprocess.run(
            [_binary("pg_isready"), "-q", "-h", HOST, "-p", str(self.port)], check=False
        )
        return ready.returncode == 0

    def _postmaster(self) -> int:
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def _postmaster_tree(self) -> list[int]:
        """The postmaster and its children: none may live on and finish what was begun."""
        first = self._postmaster()
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def _run(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(
            [*self._prefix, _binary(program), *arguments], env=environment, cwd="/",
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


class RedisServer:
    """One Redis with a password; `kill` loses what it held, as it persists nothing."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", "--port", str(self.port), "--bind", HOST, "--save", "",
                 "--appendonly", "no", "--requirepass", PASSWORD, "--dir", str(self._folder)],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_for_port(self.port)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        """Let it hang: connections stay, answers do not come."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def keys(self, command: str, *arguments: str) -> str:
        """What redis-cli answers."""
        done = subprocess.run(
            ["redis-cli", "-h", HOST, "-p", str(self.port), command, *arguments],
            env={**os.environ, "REDISCLI_AUTH": PASSWORD}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A running cluster; its folder is not below pytest's, which only root can enter."""
    with tempfile.TemporaryDirectory(prefix="flexway-pg-") as name:
        Path(name).chmod(0o755)
        server = PostgresServer(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="flexway-redis-") as name:
        server = RedisServer(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()
