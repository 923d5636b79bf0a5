"""How much host memory there is for us, which containers make a question of its own.

``psutil`` knows the machine's memory but not the control groups', whose limit is what ends a
process in a container.
"""

import functools
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import attrs


@attrs.frozen
class _GroupFiles:
    """The files of one version of control groups."""

    limits: tuple[str, ...]
    usage: str
    idle_cache: str
    """Line of ``memory.stat``: page cache that nobody used lately, which counts as used but is
    given back as soon as somebody asks."""
    busy_cache: str
    """... and that somebody did, which is given back before the limit ends a process."""


_FILES = {
    "cgroup2": _GroupFiles(
        ("memory.max", "memory.high"), "memory.current", "inactive_file", "active_file"
    ),
    "cgroup": _GroupFiles(
        ("memory.limit_in_bytes",),
        "memory.usage_in_bytes",
        "total_inactive_file",
        "total_active_file",
    ),
}
"""By file system type. ``memory.high`` ends nobody, but beyond it a process hardly moves."""


def available_bytes(root: Path = Path("/")) -> int:
    """What can be allocated now without swapping, in bytes: the machine's available memory, or what
    the control groups around this process leave of it. Below 0 is 0. Any thread.

    ``root`` is the folder with ``proc`` and whatever ``proc/self/mountinfo`` mentions.
    """
    return max(0, min([_machine_room(root), *_group_rooms(root, with_busy_cache=False)]))


def most_bytes(root: Path = Path("/")) -> int:
    """What could be allocated now at the very most, in bytes: with all page cache dropped and all
    swap used. Any thread."""
    rooms = [_machine_room(root), *_group_rooms(root, with_busy_cache=True)]
    return max(0, min(rooms)) + (_machine_figure(root, "SwapFree") or 0)


@functools.cache
def available_at_start() -> int:
    """``available_bytes`` when it was first asked for, so that everything worked out from it fits
    together however much the server has allocated since."""
    return available_bytes()


def _machine_room(root: Path) -> int:
    available = _machine_figure(root, "MemAvailable")
    if available is None:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return available


def _machine_figure(root: Path, wanted: str) -> int | None:
    """Bytes."""
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0]) * 1024
    return None


def _group_rooms(root: Path, *, with_busy_cache: bool) -> Iterator[int]:
    """What each control group around this process leaves, outer ones included."""
    for folder, files in _group_folders(root):
        limits = [number for name in files.limits if (number := _number(folder / name)) is not None]
        usage = _number(folder / files.usage)
        if limits and usage is not None:
            cache = _statistic(folder, files.idle_cache)
            if with_busy_cache:
                cache += _statistic(folder, files.busy_cache)
            yield min(limits) - max(0, usage - cache)


def _group_folders(root: Path) -> Iterator[tuple[Path, _GroupFiles]]:
    """The folders of this process's memory control groups, from the inside out."""
    paths = dict(_own_groups(root))
    for kind, mount_root, mount_point in _mounts(root):
        if kind not in paths:
            continue
        top = root / mount_point.lstrip("/")
        path = PurePosixPath(paths[kind])
        # A container sees the mount of its own group, but often its path as seen from outside.
        inner = path.relative_to(mount_root) if path.is_relative_to(mount_root) else None
        names = inner.parts if inner and ".." not in inner.parts else ()
        for depth in range(len(names), -1, -1):
            yield top.joinpath(*names[:depth]), _FILES[kind]


def _own_groups(root: Path) -> Iterator[tuple[str, str]]:
    """File system type and path of the groups that this process is in (``man 7 cgroups``)."""
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            yield "cgroup2", path
        elif "memory" in controllers.split(","):
            yield "cgroup", path


def _mounts(root: Path) -> Iterator[tuple[str, str, str]]:
    """File system type, root and mount point of the mounts that may count memory."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        mount_root, mount_point = left.split()[3:5]
        kind, _source, options = right.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            yield kind, mount_root, mount_point


def _statistic(folder: Path, name: str) -> int:
    for line in _lines(folder / "memory.stat"):
        found, _, value = line.partition(" ")
        if found == name:
            return int(value)
    return 0


def _number(file: Path) -> int | None:
    """None where there is no such file, or it says ``max``."""
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _lines(file: Path) -> list[str]:
    """The file's lines; none where it cannot be read: the outermost group has no limit's file."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
