"""How many processors there are for us, which containers make a question of its own."""

import math
import os
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def n_available_cpus(cgroup_limit: Path = _CGROUP_LIMIT) -> int:
    """How many CPUs this process may use: its affinity mask, and the cgroup's quota rounded up.

    A thread more than that makes every step of llama.cpp wait for the one that is not running.
    ``cgroup_limit`` is a file of cgroup v2 with a quota and a period in microseconds.
    """
    n_allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = cgroup_limit.read_text().split()
        return max(1, min(n_allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # there is no such file, or the quota is "max"
        return n_allowed
