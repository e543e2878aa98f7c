"""A small file that holds the newest state of something, atomically and durably."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

from marketplace_core.errors import StoreError


class DurableFile:
    """Writes the latest content; a crash leaves the one before or this one, never half of it."""

    def __init__(self, path: Path, key: str, content: Callable[[], bytes]) -> None:
        """`key` names the setting in errors; `content` gives the file as it is to be now."""
        self._path = path
        self._key = key
        self._content = content
        self._lock = threading.Lock()
        self._taken = 0
        self._written = 0

    async def save(self) -> None:
        """Return once the content as of now (or a later one) is on disk. Raises StoreError."""
        self._taken += 1
        content = self._content()
        try:
            await asyncio.to_thread(self._write, self._taken, content)
        except OSError as error:
            raise StoreError(f"{self._key}: {self._path} cannot be written: {error}") from error

    def _write(self, number: int, content: bytes) -> None:
        with self._lock:
            if number <= self._written:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_name(self._path.name + ".new")
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._written = number
