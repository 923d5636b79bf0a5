"""The machine's memory and the limits of control groups, from files."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tgi_llama.host_memory import available_bytes, most_bytes

_MEMINFO = "MemTotal:       2000 kB\nMemFree:  100 kB\nMemAvailable:   1000 kB\n"
_V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
_V1_MOUNTS = (
    "32 31 0:29 {root} /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)
_NO_LIMIT_V1 = "9223372036854771712\n"


def _machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"proc/meminfo": _MEMINFO, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def _v2(group: str, limit: str, usage: int, *, inactive: int = 0) -> dict[str, str]:
    folder = f"sys/fs/cgroup{group}"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{usage}\n",
        f"{folder}/memory.stat": f"anon 17\ninactive_file {inactive}\n",
    }


def _v1(group: str, limit: str, usage: int, *, inactive: int = 0) -> dict[str, str]:
    folder = f"sys/fs/cgroup/memory{group}"
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{usage}\n",
        f"{folder}/memory.stat": f"inactive_file 3\ntotal_inactive_file {inactive}\n",
    }


def test_available_bytes_without_control_groups_is_the_machines(tmp_path: Path) -> None:
    assert available_bytes(_machine(tmp_path, {})) == 1000 * 1024


def test_available_bytes_without_proc_is_a_number_of_bytes(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) > 0


def test_available_bytes_of_this_machine_is_at_most_its_memory() -> None:
    assert 0 < available_bytes() < 2**60


@pytest.mark.parametrize(
    ("limit", "usage", "inactive", "expected"),
    [
        ("max", 500, 0, 1000 * 1024),
        ("600000", 500_000, 0, 100_000),
        ("600000", 500_000, 200_000, 300_000),  # page cache that is given back when asked for
        ("600000", 100, 200, 600_000),  # the two are not read at the same moment
        ("600000", 700_000, 0, 0),
        ("9000000000", 0, 0, 1000 * 1024),
    ],
)
def test_available_bytes_v2_limit_less_what_is_used(
    tmp_path: Path, limit: str, usage: int, inactive: int, expected: int
) -> None:
    files = {"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": _V2_MOUNT}
    group = _v2("/a", limit, usage, inactive=inactive)

    assert available_bytes(_machine(tmp_path, files | group)) == expected


@pytest.mark.parametrize(
    ("tight", "expected"), [("", 10_000), ("/a", 10_000), ("/a/b", 10_000), ("/other", 90_000)]
)
def test_available_bytes_v2_tightest_group_on_the_way_up_counts(
    tmp_path: Path, tight: str, expected: int
) -> None:
    files = {"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": _V2_MOUNT}
    for group in ("", "/a", "/a/b", "/other"):
        files |= _v2(group, "20000" if group == tight else "100000", 10_000)

    assert available_bytes(_machine(tmp_path, files)) == expected


def test_available_bytes_v2_high_counts_as_a_limit(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": _V2_MOUNT}
    files |= _v2("", "max", 1000) | {"sys/fs/cgroup/memory.high": "5000\n"}

    assert available_bytes(_machine(tmp_path, files)) == 4000


def test_available_bytes_v2_path_outside_of_the_namespace_is_its_root(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/../b\n", "proc/self/mountinfo": _V2_MOUNT}

    assert available_bytes(_machine(tmp_path, files | _v2("", "5000", 1000))) == 4000


def test_most_bytes_counts_swap_and_page_cache_in_use(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": _V2_MOUNT}
    files |= _v2("/a", "600000", 500_000, inactive=100_000)
    files["sys/fs/cgroup/a/memory.stat"] += "active_file 300000\n"
    files["proc/meminfo"] = _MEMINFO + "SwapFree: 7 kB\n"

    assert available_bytes(_machine(tmp_path, files)) == 200_000
    assert most_bytes(tmp_path) == 500_000 + 7 * 1024


def test_available_bytes_v1_nested_groups_and_page_cache(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/a/b\n0::/\n",
        "proc/self/mountinfo": _V1_MOUNTS.format(root="/"),
    }
    files |= _v1("", _NO_LIMIT_V1.strip(), 900) | _v1("/a", "50000", 30_000, inactive=10_000)
    files |= _v1("/a/b", _NO_LIMIT_V1.strip(), 20_000)

    assert available_bytes(_machine(tmp_path, files)) == 30_000


def test_available_bytes_v1_in_a_container_that_sees_its_path_from_outside(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/1f\n",
        "proc/self/mountinfo": _V1_MOUNTS.format(root="/docker/1f"),
    }

    assert available_bytes(_machine(tmp_path, files | _v1("", "50000", 20_000))) == 30_000
