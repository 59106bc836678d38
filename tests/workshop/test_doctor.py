"""The doctor on machines that are not like this one."""

import re
import sys
from importlib import metadata

import nbformat
import pytest

from kdhelpers import data, distillation, experiments, models, storage, workshop
from kdhelpers.errors import UserError
from tests.test_notebooks import NOTEBOOKS, code_cells

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
