"""The doctor on machines that are not like this one."""

import functools
import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import nbformat
import pytest

from kdhelpers import data, distillation, experiments, models, storage, workshop
from kdhelpers.errors import UserError
from tests.test_notebooks import NOTEBOOKS, code_cells
from tests.test_readme import wanted

CREDENTIALS = {
    "keys in variables": {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"},
    "a container's role, as in Studio": {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"},
    "a container's role at an address": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://localhost/role"},
    "a web identity": {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"},
}
FILES = {
    "keys in a file": ("credentials", "[default]\naws_access_key_id = AKIDEXAMPLE\n"),
    "single sign-on": ("config", "[profile me]\nsso_session = us\nsso_account_id = 1\n"),
    "a program that knows them": ("config", "[default]\ncredential_process = /bin/ask\n"),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A home without caches and credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", *(name for named in CREDENTIALS.values() for name in named)):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KD_HOME", str(tmp_path / "not" / "there" / "yet"))
    return tmp_path


def found(name):
    (one,) = [finding for finding in workshop.doctor() if finding.name == name]
    return one


def test_the_report_prints_a_line_a_finding_and_names_what_is_missing(machine, monkeypatch):
    report = workshop.doctor()
    assert report.missing == []
    assert len(str(report).splitlines()) == len(report) == len({one.name for one in report})
    assert repr(report) == str(report), "a cell that ends with kd.doctor() shows it"

    def gone(_):
        raise UserError("it is not installed")

    monkeypatch.setattr(models, "locate", gone)
    assert workshop.doctor().missing == ["backbone"]


@pytest.mark.parametrize(("number", "words"), [(0, "0 fine-tuned teachers, 0 sets of logits, 0 students"),
                                               (1, "1 fine-tuned teacher, 1 set of logits, 1 student "),
                                               (2, "2 fine-tuned teachers, 2 sets of logits, 2 students")])  # fmt: skip
def test_what_is_counted_stands_in_the_right_number(machine, number, words):
    for kind in ("teachers", "logits", "students"):
        for index in range(number):
            (storage.cache_home() / kind / str(index)).mkdir(parents=True)
        (storage.cache_home() / kind / ".half-written").mkdir(parents=True)
    assert words in found("cache").text


def test_the_large_teacher_is_looked_for_and_not_downloaded(machine, monkeypatch):
    assert found("mpnet").level == "note"
    assert "405 MB" in found("mpnet").text
    assert not (storage.cache_home() / "models").exists()
    monkeypatch.setattr(models, "mpnet_is_cached", lambda: True)
    assert found("mpnet") == ("ok", "mpnet", "the large teacher mpnet-base is cached")


def test_a_clone_that_is_not_installed_is_looked_at_too(machine, monkeypatch):
    asked = metadata.requires

    def requires(name):
        if name == "kdhelpers":
            raise metadata.PackageNotFoundError(name)
        return asked(name)

    installed = found("packages")
    monkeypatch.setattr(metadata, "requires", requires)
    assert found("packages") == installed


def test_a_package_of_the_wrong_version_or_none_is_named(machine, monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=99", "no-such-package-here", "numpy"])
    finding = found("packages")
    assert finding.level == "missing"
    assert re.search(r"torch \S+ is not >=99", finding.text)
    assert "no-such-package-here is not installed" in finding.text


def test_what_only_an_extra_asks_for_is_not_missing(machine, monkeypatch):
    lines = ["numpy", "pandas>=2", "torch", 'no-such-package-here>=1; extra == "more"']
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert found("packages").level == "ok"


# One after the other is hidden from `import`; what is "gone" also from the list of installed packages. What has been
# imported is put back afterwards: it could not be imported twice.
WITHOUT = """
import contextlib, importlib.metadata, io, json, sys, traceback

class Hidden:
    modules = package = ()

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

hidden, from_name, said = Hidden(), importlib.metadata.Distribution.from_name, {}
def listed(name):
    if name == hidden.package:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(name)
importlib.metadata.Distribution.from_name = listed
sys.meta_path.insert(0, hidden)
for state, package, modules in json.loads(sys.argv[1]):
    hidden.modules, hidden.package = modules, package if state == "gone" else ""
    put_away = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] in (*modules, "kdhelpers")}
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            code = __import__("kdhelpers.__main__", fromlist=["main"]).main(["doctor"])
        except BaseException:
            code = traceback.format_exc()
    said[package] = [code, out.getvalue(), "torch" in sys.modules]
    sys.modules |= {name: module for name, module in put_away.items() if name.split(".")[0] != "kdhelpers"}
print(json.dumps(said))
"""
REQUIRED = [requirement.name for requirement in wanted()]
BROKEN = ("optuna", "evaluate", "onnx", "onnxruntime", "joblib", "psutil", "filelock")


@functools.cache
def without(state):
    """What `doctor` answers without each of the packages that are "gone" or "broken": one process for all of them."""
    modules = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(package.lower().replace("_", "-"), []).append(module)
    cases = [(state, name, modules[name.lower()]) for name in (REQUIRED if state == "gone" else BROKEN)]
    done = subprocess.run([sys.executable, "-c", WITHOUT, json.dumps(cases)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", REQUIRED)
def test_a_package_that_is_not_installed_is_said_before_anything_is_imported(name):
    code, said, imported = without("gone")[name]
    assert (code, imported) == (2, False), said
    assert f"{name} is not installed: pip install -r requirements.txt" in said
    assert said.endswith("error: mend first: packages\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_package_that_cannot_be_imported_is_said_in_a_sentence(name):
    """Also one that only another of our packages asks for."""
    code, said, _ = without("broken")[name]
    assert code == 2, said
    assert f"{name} cannot be imported: pip install -r requirements.txt" in said
    assert "memory" not in said, "the rest would need it"


def test_in_studio_what_is_missing_is_mended_by_make_studio(machine, monkeypatch):
    module = sys.modules[workshop.doctor.__module__]
    monkeypatch.setattr(module, "STUDIO", machine / "resource-metadata.json")
    module.STUDIO.write_text('{"SpaceName": "ann"}')
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-package-here"])
    report = workshop.doctor()
    assert [finding.name for finding in report] == ["Python", "packages", "Studio"]
    assert "no-such-package-here is not installed: make studio in a terminal" in report[1].text


@pytest.mark.parametrize(("gib", "level", "words"), [(3.8, "ok", "4 GiB"), (2, "note", "2 GiB: 4 GiB are wanted")])
def test_a_machine_with_little_memory_is_told_so(machine, monkeypatch, gib, level, words):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "total")(int(gib * 2**30)))
    assert found("memory") == (level, "memory", words)


@pytest.mark.parametrize(("limit", "words"), [(str(2 * 2**30), "2 GiB: 4 GiB are wanted"), ("max\n", "8 GiB")])
def test_a_container_that_may_use_a_part_of_the_memory_is_told_so(machine, monkeypatch, limit, words):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "total")(8 * 2**30))
    (machine / "memory.max").write_text(limit)
    places = (machine / "memory.max", machine / "not there")
    monkeypatch.setattr(sys.modules[workshop.doctor.__module__], "CONTAINER_LIMITS", places)
    assert found("memory").text == words


@pytest.mark.parametrize(("gib", "level", "words"), [(1.1, "ok", "1.1 GiB free"), (0.4, "note", "0.4 GiB free: 1 GiB")])
def test_a_disk_with_little_room_where_the_cache_lies_is_told_so(machine, monkeypatch, gib, level, words):
    asked = []
    free = namedtuple("Disk", "free")(int(gib * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: asked.append(place) or free)
    assert found("disk").level == level
    assert words in found("disk").text
    assert set(asked) == {machine}, "the cache's folder is not made yet: the one it will be made in"


@pytest.mark.parametrize("where", CREDENTIALS)
def test_credentials_in_the_environment_are_seen(machine, monkeypatch, where):
    assert found("AWS").level == "note"
    for name, value in CREDENTIALS[where].items():
        monkeypatch.setenv(name, value)
    assert found("AWS").level == "ok"


@pytest.mark.parametrize("where", FILES)
def test_credentials_in_files_are_seen(machine, where):
    name, text = FILES[where]
    (machine / ".aws").mkdir()
    (machine / ".aws" / name).write_text("[default]\nregion = eu-central-1\n")
    assert found("AWS").level == "note", "a region is no credential"
    (machine / ".aws" / name).write_text(text)
    assert found("AWS").level == "ok"


def test_every_student_that_a_notebook_reads_is_made_beforehand(monkeypatch):
    sources = [cell.source for path in NOTEBOOKS for cell in code_cells(nbformat.read(path, as_version=4))]
    wanted = {name for source in sources for name in re.findall(r'\.(?:rung|variant)\(\s*"([^"]+)"', source)}
    assert wanted
    made, prepared = [], []
    monkeypatch.setattr(distillation, "prepare", lambda settings: prepared.append(settings) or "kit")
    monkeypatch.setattr(experiments, "student", lambda kit, variant: made.append(variant.name))
    rows = [{"text": f"text {index}", "rating": index % 9 - 4.0} for index in range(3700)]
    monkeypatch.setattr(data, "read_movie_snippets", lambda: rows)
    workshop.fill_caches()
    assert set(made) == wanted
    assert [settings.name for settings in prepared] == ["movie-snippets", "files"]


def test_in_studio_the_doctor_says_which_kernel_this_is(machine, monkeypatch):
    """`workshop.doctor` is the function; its module is found by its name."""
    module, facts = sys.modules[workshop.doctor.__module__], machine / "resource-metadata.json"
    assert "Studio" not in {finding.name for finding in workshop.doctor()}
    facts.write_text('{"DomainId": "d-1", "SpaceName": "ann"}')
    monkeypatch.setattr(module, "STUDIO", facts)
    monkeypatch.setattr(module.sys, "prefix", module.sys.base_prefix)
    assert found("Studio").level == "note"
    assert "make studio" in found("Studio").text
    monkeypatch.setattr(module.sys, "prefix", str(machine / "distilling"))
    assert found("Studio") == ("ok", "Studio", "space ann, a kernel of its own")
