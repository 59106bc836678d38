"""What is kept on disk is whole or not there; a run's folder has one owner at a time."""

import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kdhelpers import storage
from kdhelpers.errors import UserError

SETTINGS = {"alpha": 0.5, "output": "x", "resume": False, "trainer_options": {"hub_token": "hf_secretsecret"}}


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.txt"
    storage.write_file(path, b"first")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        storage.write_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    def save(folder, content="first", fail=False):
        with open(os.path.join(folder, "a.txt"), "w") as file:
            file.write(content)
        if fail:
            raise RuntimeError("half-way")

    storage.write_folder(tmp_path / "kept", save)
    with pytest.raises(RuntimeError):
        storage.write_folder(tmp_path / "kept", lambda folder: save(folder, "second", fail=True))
    assert (tmp_path / "kept" / "a.txt").read_text() == "first"
    storage.write_folder(tmp_path / "kept", lambda folder: save(folder, "third"))
    assert (tmp_path / "kept" / "a.txt").read_text() == "third"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_other_users_of_the_machine_may_read_what_is_written(tmp_path):
    old = os.umask(0o022)
    try:
        storage.write_file(tmp_path / "a.txt", b"x")
        storage.write_folder(tmp_path / "folder", lambda folder: None)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_a_whole_number_is_the_same_setting_however_it_is_written():
    assert storage.fingerprint(3, {"T": 2.0, "rate": 1e-4}) == storage.fingerprint(3.0, {"T": 2, "rate": 1e-4})
    assert len({storage.fingerprint(value) for value in (3, 3.5, "3", True, float("inf"))}) == 5


def test_a_run_is_resumed_with_its_own_settings_only(tmp_path):
    output = tmp_path / "run"
    work = storage.start_run(output, SETTINGS, overwrite=False, resume=False)
    (work / "half.txt").write_text("done so far")
    assert storage.start_run(output, SETTINGS | {"resume": True}, False, resume=True) == work
    assert (work / "half.txt").is_file()
    with pytest.raises(UserError, match="other settings"):
        storage.start_run(output, SETTINGS | {"alpha": 0.4}, False, resume=True)
    storage.start_run(output, SETTINGS | {"alpha": 0.4}, False, resume=False)
    assert not (work / "half.txt").exists()


def test_resuming_nothing_is_said(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        storage.start_run(tmp_path / "run", SETTINGS, False, resume=True)


def test_no_secret_is_written_down(tmp_path):
    work = storage.start_run(tmp_path / "run", SETTINGS, overwrite=False, resume=False)
    text = (work / "settings.json").read_text(encoding="utf-8")
    assert "secretsecret" not in text
    assert json.loads(text)["alpha"] == 0.5


def test_two_tokens_are_two_runs_though_neither_is_written_down(tmp_path):
    storage.start_run(tmp_path / "run", SETTINGS, overwrite=False, resume=False)
    other = SETTINGS | {"trainer_options": {"hub_token": "hf_another"}}
    with pytest.raises(UserError, match="other settings"):
        storage.start_run(tmp_path / "run", other, overwrite=False, resume=True)


def test_what_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="not a run"):
            storage.start_run(tmp_path / "thesis", SETTINGS, overwrite, resume=False)
    assert (tmp_path / "thesis" / "chapter1.tex").is_file()


def test_an_earlier_run_stays_until_the_new_one_is_done(tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / "metrics.json").write_text("1")
    (output / "seed-43").mkdir()
    with pytest.raises(UserError, match="already holds a run"):
        storage.start_run(output, SETTINGS, overwrite=False, resume=False)
    work = storage.start_run(output, SETTINGS, overwrite=True, resume=False)
    assert (output / "metrics.json").read_text() == "1"
    (work / "metrics.json").write_text("2")
    storage.finish_run(work, output)
    assert (output / "metrics.json").read_text() == "2"
    assert not (output / "seed-43").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run"]


def test_two_commands_cannot_write_to_one_folder(tmp_path):
    hold = (
        "import sys\nfrom pathlib import Path\nfrom kdhelpers import storage\n"
        "with storage.locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run is writing"), storage.locked(tmp_path / "run"):
            pass
        with storage.locked(tmp_path / "another"):
            pass
    finally:
        other.communicate()
    with storage.locked(tmp_path / "run"):
        pass


def test_the_log_file_has_what_was_said_meanwhile_and_no_more(tmp_path):
    log = logging.getLogger("kdhelpers.somewhere")
    logging.getLogger("kdhelpers").setLevel(logging.INFO)
    with storage.log_file(tmp_path / "run.log"):
        log.info("inside")
    log.info("outside")
    text = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "inside" in text
    assert "outside" not in text


@pytest.mark.parametrize("output", [".", "./", "..", "/"])
def test_an_output_without_a_name_of_its_own_is_refused(output):
    with pytest.raises(UserError, match="give it a name"):
        storage.incomplete(Path(output))


def test_a_scratch_folder_is_there_or_it_is_said_why(tmp_path, monkeypatch):
    storage.scratch.cache_clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a::b"))
    (tmp_path / "a::b").mkdir()
    with pytest.raises(UserError, match="without ::"):
        storage.scratch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="TMPDIR"):
        storage.scratch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Path(storage.scratch().name).parent == tmp_path
    storage.scratch.cache_clear()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_what_a_process_keeps_aside_is_gone_after_sigterm(tmp_path):
    code = (
        "import os, signal\n"
        "from kdhelpers import __main__ as command, storage\n"
        "def main():\n"
        "    print(storage.scratch().name, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    signal.pause()\n"
        "command.main = main\n"
        "command.console_script()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 143, done.stderr
    assert not Path(done.stdout.strip()).exists()
