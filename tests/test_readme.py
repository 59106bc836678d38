"""What README, CONTRIBUTING, INSTRUCTOR.md and the notebooks name is there: commands, options, targets, files."""

import ast
import importlib
import json
import re
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

import kdhelpers
from kdhelpers import evaluation
from kdhelpers.__main__ import main
from kdhelpers.sagemaker import sdk
from tests.evaluation.test_report import metrics  # noqa: F401
from tests.tools import record, results

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
TEXTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "notebooks").glob("*.md")), ROOT / "Makefile")
}
for notebook in NOTEBOOKS:
    cells = nbformat.read(notebook, as_version=4).cells
    TEXTS[notebook.name] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
PAPERS = [name for name in TEXTS if name.endswith(".md")]
PAST = {"CHANGELOG.md"}  # it names what is no longer there, too


def commands():
    """(where, command line) of everything that is typed after `python -m kdhelpers`."""
    found = {}
    for name, text in TEXTS.items():
        text = text.replace("\\\n", " ")
        if name not in PAST:
            for match in re.finditer(r"(?:-m|\$\(RUN\)) kdhelpers ([a-z][^\n`#|]*)", text):
                found[match[1].strip()] = name
            for match in re.finditer(r"`kdhelpers ([a-z][^\n`#|]*)", text):
                found[match[1].strip()] = name
    return [(where, line) for line, where in found.items() if "..." not in line]


@pytest.mark.parametrize(("where", "line"), commands(), ids=lambda value: value)
def test_a_command_is_understood_up_to_its_last_word(where, line, capsys, monkeypatch):
    """With an unknown option behind it, a command is refused for that option alone, and nothing is run."""
    from kdhelpers import sagemaker

    monkeypatch.setattr(sagemaker, "image_python", lambda image: sys.executable, raising=False)
    command, *words = shlex.split(line)
    if "--help" in words:
        assert main([command, "--help"]) == 0
        return
    assert main([command, *words, "--no-such-option"]) == 2
    said = capsys.readouterr().err
    if "are required" in said:  # prose may leave out what the command is to work on
        assert main([command, "WHAT", *words, "--no-such-option"]) == 2
        said = capsys.readouterr().err
    assert "unknown argument --no-such-option" in said, where


def test_there_are_commands_to_look_at():
    assert len(commands()) > 12
    assert {line.split()[0] for _, line in commands()} >= {"distill", "export", "benchmark", "ablation", "sagemaker"}


def targets():
    return set(re.findall(r"^([a-z-]+):", TEXTS["Makefile"], flags=re.M))


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "Makefile"])
def test_every_make_target_that_is_named_exists(name):
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)(?=[` \n])", TEXTS[name], flags=re.M))
    assert named <= targets(), name


def test_make_help_lists_every_target_that_has_not_been_renamed():
    described = set(re.findall(r"^([a-z-]+):.*##", TEXTS["Makefile"], flags=re.M))
    assert targets() - described == {"ladder"}
    assert set(re.search(r"^\.PHONY: (.*)$", TEXTS["Makefile"], flags=re.M)[1].split()) == targets()


def files_named(text):
    """Links, and what stands between backticks and looks like a path of this repository."""
    yield from (target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target)
    places = r"`((?:kdhelpers|tests|notebooks|images|\.ci)/[\w./-]*|(?:README|CONTRIBUTING|CHANGELOG|INSTRUCTOR)\.md)`"
    yield from re.findall(places, text)
    for module in re.findall(r"-m (tests[\w.]*)", text):
        yield module.replace(".", "/") + ("" if (ROOT / module.replace(".", "/")).is_dir() else ".py")


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in PAST])
def test_every_file_that_is_named_exists(name):
    here = ROOT / "notebooks" if (ROOT / "notebooks" / name).exists() else ROOT
    named = [file for file in files_named(TEXTS[name]) if file and "NAME" not in file]
    missing = [file for file in named if not any((folder / file).exists() for folder in (here, ROOT))]
    assert not missing, missing


def test_tables_made_from_the_record_are_as_the_record_has_them():
    assert results.main(["--check"]) == 0
    used = [block[2] for page in results.PAGES for block in results.BLOCK.finditer(page.read_text(encoding="utf-8"))]
    kept = {path.stem for path in record.RECORDS.glob("*.json")}
    assert set(results.MADE) | kept <= set(used) <= set(results.MADE) | set(record.MEASURED)


def test_a_table_that_differs_from_the_record_is_noticed(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n<!-- from the record: seeds -->\nold\n<!-- end -->\n\nkept\n", encoding="utf-8")
    monkeypatch.setattr(results, "PAGES", (page,))
    assert results.main(["--check"]) == 1
    assert results.main([]) == results.main(["--check"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "\nold\n" not in text
    assert "\nkept\n" in text
    assert "distilled student" in text


def test_the_large_teachers_run_is_printed_from_its_record(metrics, tmp_path, monkeypatch):  # noqa: F811
    """As `distill` printed it: every row, the verdict, what it is about, and what luck does."""
    metrics |= {"recipe": "movie-snippets-base", "hard_answers": metrics["student"]}
    metrics |= {"two_controls": {"text": "luck alone does nothing"}}
    monkeypatch.setattr(results, "LARGE", record := tmp_path / "movie-snippets-base.json")
    page = "<!-- from the record: large_teacher -->\nas it was\n<!-- end -->\n"
    assert results.filled(page, None) == page, "what has no record yet stays as it is"
    record.write_text(json.dumps(metrics), encoding="utf-8")
    filled = results.filled(page, None)
    assert "as it was" not in filled
    assert "distill --recipe movie-snippets-base --controls all` (seed 42)" in filled
    for line in "\n".join(evaluation.result_lines(metrics, Path("runs/movie-snippets-base"))).splitlines():
        assert line.rstrip() in filled
    assert "Luck of the seed: luck alone does nothing." in filled


def test_the_record_of_the_large_teachers_run_is_what_the_page_shows():
    if not results.LARGE.is_file():
        pytest.skip("no run of the large teacher has been recorded")
    run = json.loads(results.LARGE.read_text(encoding="utf-8"))
    assert (run["recipe"], run["rows"]["test"]) == ("movie-snippets-base", 1000)
    assert {"teacher", "control", "second_control", "student", "baseline", "taught_baseline", "verdict"} <= set(run)
    page = (results.ROOT / "notebooks" / "RESULTS.md").read_text(encoding="utf-8")
    assert run["verdict"]["text"] in " ".join(page.split())


def test_names_of_former_releases_are_gone():
    former = r"\bladder\b|\brungs?\b|word pieces|gives? back|--states\b|kd\.check\b|kd\.checks\b"
    for name in PAPERS:
        if name not in PAST:
            assert not re.findall(former, TEXTS[name]), name


def test_the_papers_agree_about_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    latest = re.search(r"^## (\S+)", TEXTS["CHANGELOG.md"], flags=re.M)[1]
    assert citation["version"] == latest == kdhelpers.__version__
    assert citation["license"] == re.search(r'^license = "(.*)"', project, flags=re.M)[1] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


ONLY_SOME_NEED = {"sagemaker-core", "boto3", "botocore", "moto", "ipython", "vadersentiment"}


def wanted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


def extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {Requirement(line).name for lines in project["optional-dependencies"].values() for line in lines}


def pins():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_requirement_of_the_package_is_pinned_within_its_range():
    for requirement in wanted():
        assert requirement.specifier.contains(pins()[requirement.name]), requirement


BY_HAND = re.compile(r"^python3 -m venv ~/distilling .*\n~/distilling/bin/pip .*$", flags=re.M)


@pytest.mark.parametrize("name", ["README.md", "AWS.md", "00_start_here.ipynb"])
def test_the_two_lines_that_make_studio_stands_for_do_what_it_does(name):
    """The same everywhere: the pinned PyTorch from the same index, and a kernel of the same name."""
    (lines,) = BY_HAND.findall(TEXTS[name])
    assert dict(re.findall(r"\b([a-z]+)==(\S+)", lines)) == {"torch": pins()["torch"]}
    makefile = TEXTS["Makefile"]
    assert re.search(r"^TORCH_INDEX \?= (\S+)", makefile, flags=re.M)[1] in lines
    assert re.search(r"ipykernel install .*", makefile)[0] in lines
    assert lines.count("--no-cache-dir") == 2
    assert "-r requirements.txt -e ." in lines


def test_the_page_about_aws_has_what_a_first_job_needs_and_what_is_said_without_it():
    """Its quotations are the code's own sentences."""
    table = re.search(r"## Before the first job\n(.*?)\n## ", TEXTS["AWS.md"], flags=re.S)[1]
    rows = dict(re.findall(r"^\| ([\w ]+) \| (.*) \|$", table, flags=re.M))
    needed = ["credentials", "a role that SageMaker may use", "a bucket", "a quota for GPUs"]
    assert [name for name in rows if name != "what"] == needed
    quoted = re.findall(r"`((?:no valid|SageMaker may|the job's)[^`]*)`", table)
    assert len(quoted) == 3
    for words in quoted:
        assert any(saying.startswith(words) for saying in sdk.SAYINGS), words
    assert "sagemaker rights" in rows["a role that SageMaker may use"]


def asked_for(libraries):
    """Their names, and those of what each of them needs by itself."""
    needed = [Requirement(line) for name in libraries for line in metadata.requires(name) or ()]
    plain = [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {name.lower().replace("_", "-") for name in (*libraries, *plain)}


def third_party_imports():
    """Library: a module of the package that imports it."""
    for path in (ROOT / "kdhelpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            yield from ((name.split(".")[0], path.name) for name in names)


def test_every_library_that_the_package_imports_is_asked_for():
    """In pyproject.toml; what only notebooks and AWS need, in requirements.txt; an extra brings its own."""
    installed = {name: [name] for name in extras()} | dict(metadata.packages_distributions())
    known = asked_for([requirement.name for requirement in wanted()]) | (asked_for(pins()) & ONLY_SOME_NEED)
    known |= extras()
    for name, where in dict(third_party_imports()).items():
        if name not in sys.stdlib_module_names | {"kdhelpers", "predict"}:  # predict.py travels without the package
            assert {one.lower().replace("_", "-") for one in installed[name]} & known, f"{where} imports {name}"


ROOMS = "data|models|evaluation|distillation|deployment|experiments|workshop"
IN_PROSE = re.compile(rf"`(?:kd\.)?({ROOMS})\.([A-Za-z_]+)")


def test_every_name_of_the_package_that_prose_mentions_exists():
    """As `models.set_labels` or `kd.models.set_labels`; what follows a room's name is offered by the room."""
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("notebooks/*.md"),
        *ROOT.glob("notebooks/*.ipynb"),
    ]
    found = {name for page in pages for name in IN_PROSE.findall(page.read_text(encoding="utf-8"))}
    assert found
    for room, name in found:
        assert hasattr(importlib.import_module(f"kdhelpers.{room}"), name), f"{room}.{name}"
