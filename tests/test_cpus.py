import os
from pathlib import Path

import pytest

from tgi_llama.cpus import n_available_cpus

_N_ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000\n", _N_ALLOWED),
        ("50000 100000\n", 1),
        ("100000 100000\n", 1),
        ("100001 100000\n", min(2, _N_ALLOWED)),
        ("99900000 100000\n", _N_ALLOWED),
        ("nonsense\n", _N_ALLOWED),
    ],
)
def test_n_available_cpus_quota_is_rounded_up_and_capped(
    tmp_path: Path, limit: str, expected: int
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(limit)

    assert n_available_cpus(file) == expected


def test_n_available_cpus_without_cgroup_is_the_affinity(tmp_path: Path) -> None:
    assert n_available_cpus(tmp_path / "absent") == _N_ALLOWED
