"""Two processes under torchrun, on a CPU: they wait, train as one, and one of them speaks. Started twice in all."""

import json
import subprocess
import sys

import pytest
from transformers import set_seed

from tests import two_processes
from tests.distillation.test_trainer import made_rows
from tests.runs import command, files, teacher  # noqa: F401  (fixtures)
from tests.tiny import save_model, tiny_bert, tiny_tokenizer

pytestmark = pytest.mark.slow


def torchrun(home, *argv):
    """A module run in two processes, whose cache is below `home`."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_HOME", str(home / "kd"))
        return subprocess.run([*launcher, *argv], capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and rows, and room for what the processes write."""
    folder = tmp_path_factory.mktemp("torchrun")
    set_seed(0)
    save_model(folder / "model", tiny_bert(), tiny_tokenizer())
    made_rows().save_to_disk(str(folder / "rows"))
    return folder


@pytest.fixture(scope="module")
def done(folder, files, teacher):  # noqa: F811
    """What two processes said and left: see `two_processes.main`."""
    line = command(files, teacher, folder / "run", batch_size=8)
    done = torchrun(folder, "tests.two_processes", str(folder), *line)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_processes_on_a_cpu_wait_for_the_first(done, folder):
    assert [(folder / f"waited-{rank}").read_text() for rank in (0, 1)] == ["True", "True"]


def test_they_wait_for_as_long_as_a_teacher_may_read(done, folder):
    """NCCL's own limit is ten minutes: a corpus that takes the first process longer would end the job."""
    assert [(folder / f"limit-{rank}").read_text() for rank in (0, 1)] == ["28", "28"]


def test_two_processes_are_one_with_the_same_global_batch(done, folder):
    together = json.loads((folder / "losses-0.json").read_text())
    assert len(together) == 4
    assert together == pytest.approx(two_processes.losses(folder, 8), rel=1e-3)


def test_of_two_processes_one_speaks_and_writes(done, folder):
    log = (folder / "run" / "run.log").read_text(encoding="utf-8")
    for line in ("student: training for 15 steps", "rows: 160 labelled", "is used as it is"):
        assert done.stdout.count(line) == log.count(line) == 1, line
    assert done.stdout.count("Verdict") == 1


def test_two_processes_meet_a_users_mistake_once_and_without_a_traceback(files, teacher, tmp_path):  # noqa: F811
    done = torchrun(tmp_path, "kdhelpers", *command(files, teacher, tmp_path / "run", train="nowhere.csv"))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert said.count("error: no file nowhere.csv") == 1
    assert "[rank" not in said  # what torch puts before every line of a process's traceback
