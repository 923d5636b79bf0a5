"""``index.md`` names tests that exist, and all tests that are named after a section."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INDEX = (HERE / "index.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)(?:::(\w+))?`", INDEX)


def names_in(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, functions) and node.name.startswith("test_")
    }


def path_of(name: str) -> Path:
    return HERE.parents[1] / name if "/" in name else HERE / name


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_index_names_tests_that_exist(file: str) -> None:
    there = names_in(path_of(file))
    assert there
    assert {test for named, test in NAMED if named == file and test} <= there


def test_index_has_a_row_for_every_section() -> None:
    sections = re.findall(r"^\| (\d+)[. ,]", INDEX, re.MULTILINE)
    assert sorted(set(sections), key=int) == [str(section) for section in range(1, 11)]


def test_files_of_a_section_have_tests_of_that_section_only() -> None:
    for path in HERE.glob("test_section_*.py"):
        section = path.name.split("_")[2]
        assert path.name in INDEX, "named in the index"
        assert all(test.startswith(f"test_{section}_") for test in names_in(path)), path.name
