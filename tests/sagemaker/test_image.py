"""What a rehearsal takes from its reader, and the environments with the images' library versions."""

import re
import sys
from types import SimpleNamespace

import pytest

from kdhelpers.errors import UserError
from kdhelpers.sagemaker import IMAGE_VERSIONS, image_python, sdk
from tests.sagemaker.conftest import rehearse

KEPT = {
    "HF_ENDPOINT": "https://mirror.example", "HF_TOKEN": "token", "HF_HOME": "/data/hub",
    "HTTPS_PROXY": "http://proxy:1", "https_proxy": "http://proxy:1", "HTTP_PROXY": "http://proxy:2",
    "http_proxy": "http://proxy:2", "NO_PROXY": "localhost", "no_proxy": "localhost",
    "SSL_CERT_FILE": "/etc/corp.pem", "SSL_CERT_DIR": "/etc/corp", "REQUESTS_CA_BUNDLE": "/etc/corp.pem",
    "CURL_CA_BUNDLE": "/etc/corp.pem",
}  # fmt: skip


def test_a_rehearsal_reaches_the_hub_as_its_reader_does_and_takes_nothing_else(tmp_path, monkeypatch):
    """Behind a mirror, a proxy or a company's certificates, too."""
    for name, value in (KEPT | {"AWS_PROFILE": "mine", "KD_HOME": "/data/kd"}).items():
        monkeypatch.setenv(name, value)
    found = rehearse.container_environment({"TrainingJobName": "j"}, tmp_path, sys.executable)
    assert {name: found.get(name) for name in KEPT} == KEPT
    assert not {"AWS_PROFILE", "KD_HOME"} & set(found)


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """What pip is asked to install; `answer` is its exit code."""
    asked = SimpleNamespace(versions=[], answer=0)

    def run(command, **how):
        if "venv" in command:
            (command[-1] / "lib" / "python3" / "site-packages").mkdir(parents=True, exist_ok=True)
        else:
            asked.versions.append(list(command[command.index("install") + 1 :]))
        return SimpleNamespace(returncode=asked.answer)

    monkeypatch.setenv("KD_HOME", str(tmp_path))
    monkeypatch.setattr(rehearse.subprocess, "run", run)
    return asked


@pytest.mark.parametrize("image", IMAGE_VERSIONS)
def test_each_image_has_an_environment_of_its_own_made_once(image, pip, tmp_path):
    python = image_python(image)
    assert image_python(image) == python
    assert len(pip.versions) == 1
    assert len({image_python(each) for each in IMAGE_VERSIONS}) == 2
    wanted = {"current": re.search(r"transformers([\d.]+)-", sdk.TRAINING_TAG)[1], "next": sdk.NEXT_TRAINING[0]}
    assert f"transformers=={wanted[image]}" in pip.versions[0]


def test_the_current_images_old_numpy_has_a_pyarrow_that_goes_with_it(pip):
    """pyarrow 26 refuses numpy 1 when it is imported."""
    image_python()
    assert {"numpy<2", "pyarrow<26"} <= set(pip.versions[0])


def test_an_environment_that_pip_cannot_make_is_one_sentence_and_is_made_again(pip):
    pip.answer = 1
    for _ in range(2):
        with pytest.raises(UserError, match="cannot install the training image's versions"):
            image_python("next")
    assert len(pip.versions) == 2
