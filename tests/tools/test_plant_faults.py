"""The planted faults: each finds the place where it is to stand. What they turn red is seen by hand, it takes long."""

import ast
import re

import pytest

from tests.tools import plant_faults
from tests.tools.plant_faults import FAULTS, ROOT, fresh_copy, look

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return fresh_copy(tmp_path_factory.mktemp("faults") / "clean")


def contents(folder):
    places = (folder / "kdhelpers", folder / "notebooks")
    return {path.relative_to(folder): path.read_bytes() for place in places for path in place.rglob("*.*")}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_changes_one_file_which_can_still_be_read(name, clean, tmp_path):
    copy = fresh_copy(tmp_path / "copy")
    BY_NAME[name].plant(copy)
    before, after = contents(clean), contents(copy)
    (changed,) = [path for path in before if before[path] != after[path]]
    assert changed.suffix in (".py", ".ipynb")
    if changed.suffix == ".py":
        ast.parse(after[changed])


def test_a_fault_without_its_place_is_refused(clean):
    with pytest.raises(AssertionError, match="stands there 0 times"):
        plant_faults.replace("kdhelpers/errors.py", "no such line", "another")(clean)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_is_looked_for_where_there_is_something(name):
    looked = look(BY_NAME[name], notebooks_only=False)
    files = [word for word in looked if word.startswith(("tests/", "notebooks/"))]
    assert files
    assert all((ROOT / file).exists() for file in files)
    assert not any(word.startswith("tests/") for word in look(BY_NAME[name], notebooks_only=True))


def test_what_turned_red_names_each_file_once():
    assert plant_faults.said([]) == "NOT SEEN"
    failed = ["a.py::one", "a.py::two", "b.ipynb::Cell 3"]
    assert plant_faults.said(failed) == "red: a.py::one, b.ipynb::Cell 3 and 1 more"


def test_a_cache_of_its_own_keeps_teachers_and_no_student(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_HOME", str(tmp_path / "all"))
    for kind in ("teachers", "students"):
        (tmp_path / "all" / kind / "one").mkdir(parents=True)
        (tmp_path / "all" / kind / "one" / "config.json").write_text("{}")
    cache = plant_faults.own_cache(tmp_path / "own")
    assert [str(path.relative_to(cache)) for path in cache.rglob("*.json")] == ["teachers/one/config.json"]


def test_the_readme_counts_them():
    (said,) = re.findall(r"plants (\w+)\s+faults", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert said == dict(zip(range(8, 13), "eight nine ten eleven twelve".split(), strict=True))[len(FAULTS)]
