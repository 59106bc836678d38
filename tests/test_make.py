"""Set-up and the order of things in the Makefile, tried with a Python that only says what it was asked for."""

import os
import pty
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdhelpers.cli import benchmark, export
from kdhelpers.cli.parsing import read_options
from kdhelpers.settings import settings_from

ROOT = Path(__file__).parent.parent
# `python -m venv DIR` makes a DIR with the same script in it; all that is not about the version is echoed
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *) echo "asked: $*" ;;
esac
"""

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.fixture
def make(tmp_path):
    """A clone's Makefile in a folder of its own, with the pretended Python."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python-that-echoes"
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    python.chmod(0o755)
    (tmp_path / "runs" / "movie-snippets").mkdir(parents=True)
    (tmp_path / "runs" / "movie-snippets" / "result.png").touch()
    return ["make", "-C", str(tmp_path), f"PYTHON={python}"]


def asked(output):
    return [line.split("asked: ")[1] for line in output.splitlines() if "asked: " in line]


def on_a_terminal(command):
    """What a command prints where its standard output is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.STDOUT)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    return said.decode()


def test_set_up_shows_pips_progress_on_a_terminal(make):
    setting_up = [line for line in asked(on_a_terminal([*make, "lint"])) if "pip" in line]
    assert len(setting_up) == 2
    assert not [line for line in setting_up if "--quiet" in line]


def test_set_up_fills_no_log(make):
    done = subprocess.run([*make, "lint"], capture_output=True, text=True, check=True)
    assert ["--quiet" in line for line in asked(done.stdout) if "pip" in line] == [True, True]


def test_set_up_happens_once_until_the_requirements_change(make):
    for _ in range(2):
        done = subprocess.run([*make, "test-fast"], capture_output=True, text=True, check=True)
    assert not [line for line in asked(done.stdout) if "pip" in line]


def test_a_failing_set_up_is_not_taken_for_done(make):
    python = Path(make[-1].removeprefix("PYTHON="))
    python.write_text(FAKE_PYTHON.replace("*) echo", "*requirements.txt*) exit 1 ;;\n    *) echo"), encoding="utf-8")
    assert subprocess.run([*make, "lint"], capture_output=True).returncode != 0
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    done = subprocess.run([*make, "lint"], capture_output=True, text=True, check=True)
    assert [line for line in asked(done.stdout) if "requirements.txt" in line]


def test_caches_are_filled_before_a_notebook_is_compared(make):
    done = subprocess.run([*make, "test"], capture_output=True, text=True, check=True)
    order = [line for line in asked(done.stdout) if "pip" not in line]
    assert ["--nbval " in line for line in order].count(True) == 1
    assert "--nbval " in order[-1]
    assert "kdhelpers doctor --prepare" in " ".join(order[:-1])


def test_lint_looks_at_style_types_and_how_the_package_is_built(make):
    done = subprocess.run([*make, "lint"], capture_output=True, text=True, check=True)
    tools = [line.split()[1] for line in asked(done.stdout) if "pip" not in line]
    assert tools == ["ruff", "ruff", "mypy", "pytest"]
    assert "tests/test_package.py" in done.stdout


def test_a_former_target_still_works_and_says_its_new_name(make):
    done = subprocess.run([*make, "ladder"], capture_output=True, text=True, check=True)
    assert [line for line in asked(done.stdout) if "kdhelpers ablation" in line]
    assert "make ablation" in done.stdout


@pytest.mark.parametrize("target", ["small", "large"])
def test_what_is_exported_and_measured_was_trained_before(make, target):
    """Every option is one that the command knows, and every folder one that a line above has written."""
    done = subprocess.run([*make, target], capture_output=True, text=True, check=True)
    commands = [line.split()[2:] for line in asked(done.stdout) if line.startswith("-m kdhelpers ")]
    written = set()
    for name, *options in commands:
        if name == "distill":
            settings = settings_from(read_options(options))
            written.add(str(settings.output))
            assert settings.overwrite
        elif name == "export":
            given = export.parser().parse_args(options)
            assert given.student in written
            assert given.overwrite
            assert Path(given.output).parent == Path(given.student), "where benchmark finds it"
        else:
            assert set(benchmark.parser().parse_args(options).models) <= written
    assert {name for name, *_ in commands} == {"distill", "export", "benchmark"}
    assert commands[-1][0] == "benchmark"


def test_the_large_teacher_is_measured_on_one_thread_beside_all_of_its_students(make):
    done = subprocess.run([*make, "large"], capture_output=True, text=True, check=True)
    lines = [line.removeprefix("-m kdhelpers ") for line in asked(done.stdout) if line.startswith("-m kdhelpers ")]
    runs = [settings_from(read_options(line.split()[1:])) for line in lines if line.startswith("distill")]
    assert [(run.name, run.student_layers, run.augment) for run in runs] == [
        ("movie-snippets-base", layers, 2) for layers in (2, 3, 0)
    ]
    formats = [export.parser().parse_args(line.split()[1:]).format for line in lines if line.startswith("export")]
    assert formats == ["onnx-int8"] * 3 + ["numpy"]
    measured = benchmark.parser().parse_args(lines[-1].split()[1:])
    assert (measured.threads, measured.baseline) == (1, "movie-snippets")
    assert measured.models == [str(run.output) for run in runs]


def test_studio_gets_a_kernel_of_its_own_without_cuda_and_without_a_cache(make, tmp_path):
    home = [f"STUDIO={tmp_path / 'distilling'}", f"HOME={tmp_path}"]
    done = subprocess.run([*make, *home, "studio"], capture_output=True, text=True, check=True)
    _, torch, rest, package, kernel, doctor = asked(done.stdout)
    assert "--index-url https://download.pytorch.org/whl/cpu torch==" in torch
    assert all("--no-cache-dir" in line for line in (torch, rest, package))
    assert "--requirement requirements.txt" in rest
    assert "--editable" in package
    assert "ipykernel install --user --name distilling" in kernel
    assert doctor == "-m kdhelpers doctor"
    assert done.stdout.index("asked: -c import shutil") < done.stdout.index("asked: -m pip"), "room is looked at first"
    assert "choose the kernel" in done.stdout
    again = subprocess.run(
        [*make, *home, "TORCH_INDEX=elsewhere", "studio"], capture_output=True, text=True, check=True
    )
    assert "--index-url elsewhere" in again.stdout


def test_a_home_without_room_for_a_studio_set_up_is_told_so_and_no_other(make, tmp_path, monkeypatch):
    done = subprocess.run([*make, f"HOME={tmp_path}", "studio"], capture_output=True, text=True, check=True)
    (look,) = [line.removeprefix("-c ") for line in asked(done.stdout) if line.startswith("-c import shutil")]
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=3.4 * 2**30))
    with pytest.raises(SystemExit, match="3.4 GB free, and 3.5 are needed"):
        exec(look)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=3.6 * 2**30))
    exec(look)


def test_a_studio_set_up_that_was_interrupted_is_not_refused_for_the_room_it_has_taken(make, tmp_path):
    started = tmp_path / "distilling" / "pyvenv.cfg"
    for there in (False, True):
        if there:
            started.touch()
        done = subprocess.run(
            [*make, f"STUDIO={started.parent}", f"HOME={tmp_path}", "studio"],
            capture_output=True,
            text=True,
            check=True,
        )
        (look,) = [line for line in asked(done.stdout) if line.startswith("-c import shutil")]
        assert (f'not "{started}"' in look) == there
