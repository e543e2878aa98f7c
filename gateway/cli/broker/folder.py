"""The folder that a broker's access files are kept in: read, compared, written whole or not."""

from __future__ import annotations

import difflib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adapters.mqtt.access import (
    ACL_HEADER,
    Login,
    Told,
    acl_text,
    blocks_of,
    security_commands,
)
from gateway.cli.broker.passwords import (
    entries_of,
    hashed,
    matches,
    new_password,
    password_text,
)
from marketplace_core.errors import ConfigError

ACL: Final = "acl"
PASSWORDS: Final = "passwords"
COMMANDS: Final = "dynamic-security.jsonl"
HANDOUT: Final = "handout"
_SUFFIX: Final = ".password"
_MODE: Final = 0o600


@dataclass(frozen=True)
class Wanted:
    """What a run is to make of the folder."""

    logins: Sequence[Login]
    given: Mapping[str, str]
    """Passwords that are set elsewhere (the gateway's own file), by login."""
    rotate: frozenset[str] = frozenset()
    passwords: bool = True
    """False: logins prove themselves with certificates."""
    dynamic_security: bool = False


@dataclass(frozen=True)
class Change:
    """What differs between the folder and what is wanted of it."""

    acl: str
    acl_before: str
    entries: dict[str, str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    renewed: tuple[str, ...]
    hand_out: dict[str, str] = field(repr=False)
    """Passwords to be written for whoever sets the devices up, by login."""
    withdrawn: tuple[Path, ...]
    """Hand-out files of logins that are gone."""
    commands: str | None = field(repr=False)
    """Requests to dynamic security; None = not asked for."""
    untold: int
    """Logins whose password is known to nobody but the broker and the device."""

    def difference(self) -> Iterator[str]:
        """The change in words, without any secret."""
        yield from difflib.unified_diff(
            self.acl_before.splitlines(), self.acl.splitlines(), f"{ACL} (now)", f"{ACL} (new)",
            lineterm="", n=1,
        )  # fmt: skip
        for mark, names in (("+", self.added), ("~", self.renewed), ("-", self.removed)):
            for name in names:
                yield f"{mark} login {name}"


def compare(folder: Path, wanted: Wanted) -> Change:
    """Hold a folder against what is wanted; nothing is written.

    Raises: ConfigError when the folder holds files of somebody else, or cannot be read.
    """
    before = _read(folder / ACL)
    if before and not before.startswith(ACL_HEADER):
        raise ConfigError(f"{folder / ACL} was not written by this command: give an empty folder")
    entries = entries_of(_read(folder / PASSWORDS)) if wanted.passwords else {}
    names = [login.name for login in wanted.logins]
    known = {**_handed_out(folder, names), **wanted.given} if wanted.passwords else {}
    fresh = {
        name: new_password()
        for name in (names if wanted.passwords else ())
        if name in wanted.rotate or (name not in entries and name not in known)
    }
    known |= fresh
    kept = {name: _entry(entries.get(name), known.get(name)) for name in names if wanted.passwords}
    old, new = blocks_of(before), blocks_of(acl := acl_text(wanted.logins))
    was = set(entries) | set(old)
    renewed = [n for n in names if n in entries and kept.get(n) not in {None, entries[n]}]
    gone = sorted(was - set(names))
    moved = [name for name in names if name in old and old[name] != new[name]]
    told = Told(
        passwords=known, gone=gone, moved=frozenset(moved), renewed=frozenset([*renewed, *fresh])
    )
    return Change(
        acl=acl, acl_before=before, entries=kept,
        added=tuple(name for name in names if name not in was),
        removed=tuple(gone), renewed=tuple(renewed), hand_out=fresh,
        withdrawn=tuple(_withdrawn(folder, set(names))),
        commands=_requests(wanted, told),
        untold=sum(name not in known for name in names) if wanted.passwords else 0,
    )  # fmt: skip


def _requests(wanted: Wanted, told: Told) -> str | None:
    if not wanted.dynamic_security:
        return None
    return "".join(f"{request}\n" for request in security_commands(wanted.logins, told))


def _entry(entry: str | None, password: str | None) -> str:
    """The entry of a login: the one it has, unless its password is known to be another."""
    if password is None:
        return entry or ""
    return entry if entry is not None and matches(password, entry) else hashed(password)


def write(folder: Path, change: Change, *, passwords: bool) -> None:
    """Write what changed: each file whole or not at all, mode 0600; what is as it was stays.

    What is handed out comes first: a run that was killed is finished by the next one.
    Raises: ConfigError when the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if change.hand_out:
            _hand_out(folder / HANDOUT, change.hand_out)
        if passwords:
            _replace(folder / PASSWORDS, password_text(change.entries), like=folder)
        if change.commands is not None:
            _replace(folder / COMMANDS, change.commands, like=None)
        _replace(folder / ACL, change.acl, like=folder)
        for path in change.withdrawn:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder} cannot be written: {error.strerror}; give --out a folder"
            " that you may write to"
        ) from error


def _hand_out(folder: Path, passwords: Mapping[str, str]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, password in passwords.items():
        _replace(folder / f"{name}{_SUFFIX}", f"{password}\n", like=None, sync=False)
    os.sync()  # once: a fleet has tens of thousands of them


def _replace(path: Path, text: str, *, like: Path | None, sync: bool = True) -> None:
    """Put a file in place of another; root gives it to the owner of `like`, the broker's user."""
    owner = like.stat() if like is not None and os.geteuid() == 0 else None
    if _is_as_wanted(path, text, owner):
        return
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its mode is 0600
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if owner is not None:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _is_as_wanted(path: Path, text: str, owner: os.stat_result | None) -> bool:
    if not path.is_file():
        return False
    found = path.stat()
    own = owner is None or (found.st_uid, found.st_gid) == (owner.st_uid, owner.st_gid)
    return own and stat.S_IMODE(found.st_mode) == _MODE and _read(path) == text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{path} cannot be read: {why}") from error


def _handed_out(folder: Path, names: Sequence[str]) -> dict[str, str]:
    found = {name: _read(folder / HANDOUT / f"{name}{_SUFFIX}").strip() for name in names}
    return {name: password for name, password in found.items() if password}


def _withdrawn(folder: Path, names: set[str]) -> Iterator[Path]:
    for path in sorted((folder / HANDOUT).glob(f"*{_SUFFIX}")):
        if path.name.removesuffix(_SUFFIX) not in names:
            yield path
