"""The second wall: a process that evaluates queries can reach no network and no other file.

The first wall is :mod:`kg.guard`, which refuses queries by their parse tree. Should it
miss one, the kernel refuses the system call: seccomp forbids sockets and new programs,
Landlock leaves only the snapshot to read, and resource limits forbid to write. None of
them needs privileges, each works only on Linux, and each may be missing on a given
machine; what is in force is said, never assumed.
"""

from __future__ import annotations

import errno
import resource
import sys
from pathlib import Path
from typing import Any

from kg.errors import SettingsError

_FORBIDDEN = (
    "socket",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "io_uring_setup",
    "execve",
    "execveat",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
)
MOST_FILES = 4096
"""File handles of a query process: its pipe, and the files of the store."""


def _load(name: str) -> Any:
    """A wall's library, if this system has what it needs; loading it asks the linker, so once is enough."""
    if sys.platform != "linux":
        return None
    try:
        return __import__(name)
    except (ImportError, OSError, RuntimeError):
        return None


# Loaded at import: a forked process inherits them, and behind the walls nothing can be imported.
_seccomp = _load("pyseccomp")
_landlock = _load("landlock")


def _bar_network() -> bool:
    if _seccomp is None:
        return False
    try:
        rules = _seccomp.SyscallFilter(_seccomp.ALLOW)
        for call in _FORBIDDEN:
            rules.add_rule(_seccomp.ERRNO(errno.EPERM), call)
        rules.load()
    except (OSError, ValueError):
        return False
    return True


def _bar_files(folder: Path) -> bool:
    if _landlock is None:
        return False
    try:
        rules = _landlock.Ruleset()
        rules.allow(str(folder), rules=_landlock.FSAccess.READ_FILE | _landlock.FSAccess.READ_DIR)
        rules.apply()
    except (OSError, _landlock.LandlockError):
        return False
    return True


def enter(folder: Path, *, memory: int, mode: str = "auto") -> tuple[str, ...]:
    """Shut this process in, for good.

    Args:
        folder: the only folder that can be read from now on.
        memory: bytes of address space.
        mode: ``auto`` puts up the walls this system has, ``require`` insists on both,
            ``off`` only sets the resource limits.

    Returns:
        The walls that stand: ``network``, ``files``.

    Raises:
        SettingsError: ``require``, and a wall cannot be put up here.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    walls: list[str] = []
    if mode != "off":
        # Landlock first: it opens the folder, which needs nothing that seccomp forbids.
        walls += ["files"] * _bar_files(folder)
        walls += ["network"] * _bar_network()
    if mode == "require" and len(walls) < 2:
        missing = ", ".join({"files", "network"} - set(walls))
        raise SettingsError(
            f"STRATA_SANDBOX=require, but this system cannot bar: {missing}. "
            "It takes Linux 5.13 with Landlock and libseccomp; or set STRATA_SANDBOX=auto."
        )
    return tuple(sorted(walls))
