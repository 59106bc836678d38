"""The page of `export --format web` in headless Chromium: run by hand, `python -m pytest -s PATH_OF_THIS_FILE`.

Needs a run (KD_RUN, default runs/movie-snippets), chromium, node and npm, which fetches playwright-core and axe-core.
With a static student's run, too (KD_STATIC, default runs/static, of `distill --student-layers 0 --output runs/static`),
its page is looked at, too. With KD_SHOTS=FOLDER screenshots stay there. Prints milliseconds beside those in Python.
"""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from kdhelpers import deployment
from kdhelpers.deployment import predict, predict_static

HERE = Path(__file__).parent
RUN = Path(os.environ.get("KD_RUN", "runs/movie-snippets"))
STATIC = Path(os.environ.get("KD_STATIC", "runs/static"))
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
missing = [
    name
    for name, found in {"chromium": CHROME, "node": shutil.which("node"), "npm": shutil.which("npm")}.items()
    if not found
]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} must be installed to look at a page")


class Server(http.server.SimpleHTTPRequestHandler):
    """Any static server; below /sandboxed/ with the header that Jupyter gives to files."""

    def end_headers(self):
        if self.path.startswith("/sandboxed/"):
            self.send_header("Content-Security-Policy", "sandbox allow-scripts")
        super().end_headers()

    def translate_path(self, path):
        return super().translate_path(path.replace("/sandboxed/", "/", 1))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder on loopback: its path and address."""
    folder = tmp_path_factory.mktemp("served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "answers.js"):
        shutil.copy(HERE / name, folder)
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("npm cannot fetch playwright-core and axe-core here")

    def ask(pages, texts=(), shots=None, cdn=None):
        settings = {
            "chrome": CHROME,
            "pages": pages,
            "texts": texts,
            "shots": shots and str(shots),
            "cdn": cdn and str(cdn),
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        done = subprocess.run(["node", "answers.js", "settings.json"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


@pytest.fixture(scope="module")
def looked_at(served, node, tmp_path_factory):
    """One visit of the page, of the single file on a server, in a sandbox and as a file, by keyboard and mouse."""
    if not (RUN / "predictions.csv").is_file():
        pytest.skip(f"there is no run in {RUN}: make distill, or KD_RUN")
    folder, address = served
    rows = pd.read_csv(RUN / "predictions.csv", keep_default_na=False)
    texts = list(rows["text"])
    page, file = folder / "any where" / "web", folder / "file"
    facts = deployment.export_web(str(RUN), page, texts)
    if facts["libraries"] != "npm":
        pytest.skip(facts["no_npm"])
    deployment.export(str(RUN), file, "onnx-int8-weights", texts)
    place = f"{address}/any%20where/web"
    pages = [f"{place}/", f"{place}/student.html", f"{address}/sandboxed/any%20where/web/student.html"]
    shots = Path(os.environ.get("KD_SHOTS") or tmp_path_factory.mktemp("shots")).absolute()
    shots.mkdir(exist_ok=True)
    said = node([*pages, (page / "student.html").as_uri()], texts, shots)
    return SimpleNamespace(said=said, texts=texts, page=page, file=file, address=address, labels=facts["labels"])


def test_the_page_answers_every_test_row_as_predict_py_does(looked_at):
    session, tokenizer, labels = predict.load(looked_at.file, threads=1)
    assert (looked_at.page / "onnx/model_quantized.onnx").read_bytes() == (looked_at.file / "model.onnx").read_bytes()
    print("\nA transformer's page: ", end="")
    apart, other = compared(looked_at, labels, lambda text: predict.logits([text], session, tokenizer)[0])
    assert len(apart) == 1000
    assert not other
    assert apart.max() < 1e-3


def compared(looked_at, labels, logits_of):
    """How far each row's probabilities in the page are from Python's, and the rows with another label; printed."""
    logits, took = [], []
    for text in looked_at.texts:
        began = time.perf_counter()
        logits.append(logits_of(text))
        took.append(1000 * (time.perf_counter() - began))
    theirs = softmax(np.stack(logits), -1)
    answers = looked_at.said["answers"]
    ours = np.array([[{c["label"]: c["score"] for c in row["classes"]}[name] for name in labels] for row in answers])
    apart = np.abs(ours - theirs).max(-1)
    other = [i for i in range(len(answers)) if labels[theirs[i].argmax()] != answers[i]["classes"][0]["label"]]
    browser = [row["milliseconds"] for row in answers]
    print(
        f"{len(answers)} rows: {len(other)} other labels, probabilities at most {apart.max():.2g} apart, "
        f"{(apart > 1e-3).sum()} by more than 0.001"
    )
    print(
        f"browser: p50 {np.median(browser):.2f} ms, p95 {np.quantile(browser, 0.95):.2f}; "
        f"Python, one thread: p50 {np.median(took):.2f} ms, p95 {np.quantile(took, 0.95):.2f}"
    )
    return apart, other


def test_nothing_is_asked_of_another_machine(looked_at):
    for page, visit in looked_at.said["opened"].items():
        elsewhere = [
            url for url in visit["asked"] if not url.startswith((looked_at.address, "blob:", "file:", "data:"))
        ]
        assert elsewhere == [], page
    assert not [u for u in looked_at.said["asked"] if not u.startswith((looked_at.address, "blob:"))], (
        "typing asks nobody"
    )


def test_every_way_to_open_it_gives_the_same_answer_without_a_complaint(looked_at):
    visits = list(looked_at.said["opened"].values())
    assert len(visits) == 4
    for visit in visits:
        assert visit["complaints"] == []
        assert visit["one"] == visits[0]["one"]


def test_a_person_with_a_keyboard_gets_an_answer_a_table_and_a_csv(looked_at):
    person = looked_at.said["person"]
    assert person["focus"] == "sentence"
    assert person["sentence"].startswith("positive")
    assert person["example"] in looked_at.texts
    assert [row.split("\t")[0] for row in person["table"]] == ["A wonderful film.", 'Dull, "very" dull', "=1+1"]
    head, first, second, *_ = person["csv"].removeprefix("\ufeff").split("\r\n")
    assert head == "text,answer,probability"
    assert first.startswith('"A wonderful film.","positive",0.9')
    assert second.startswith('"Dull, ""very"" dull","negative",')


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_and_axe_finds_nothing_serious(width, scheme, looked_at):
    found = looked_at.said[f"{width}-{scheme}"]
    assert found["wide"] <= width
    print(f"\naxe-core at {width}, {scheme}: {found['faults'] or 'nothing'}")
    assert [fault for fault in found["faults"] if fault["impact"] in ("serious", "critical")] == []


def test_with_libraries_from_the_public_server_only_those_are_asked_for(looked_at, served, node):
    """The server is played by the files that npm gave; the browser looks at their checksums."""
    folder, address = served
    facts = deployment.export_web(str(RUN), folder / "cdn", looked_at.texts, libraries="cdn")
    assert facts["libraries"] == "cdn"
    said = node([f"{address}/cdn/"], cdn=looked_at.page / "lib")
    asked = [url for url in said["opened"][f"{address}/cdn/"]["asked"] if not url.startswith((address, "blob:"))]
    assert len(asked) == 3
    assert all(url.startswith("https://cdn.jsdelivr.net/npm/") for url in asked)


# --- a static student's page


@pytest.fixture(scope="module")
def static_page(served, node, tmp_path_factory):
    """One visit of the page on a server and one as a file."""
    if not (STATIC / "predictions.csv").is_file():
        pytest.skip(f"there is no run in {STATIC}: distill --student-layers 0 --output {STATIC}, or KD_STATIC")
    folder, address = served
    texts = list(pd.read_csv(STATIC / "predictions.csv", keep_default_na=False)["text"])
    facts = deployment.export_web(str(STATIC), folder / "static", texts)
    deployment.export(str(STATIC), folder / "numpy", "numpy", texts)
    shots = Path(os.environ.get("KD_SHOTS") or tmp_path_factory.mktemp("shots"), "static").absolute()
    shots.mkdir(exist_ok=True, parents=True)
    said = node([f"{address}/static/", (folder / "static" / "index.html").as_uri()], texts, shots)
    return SimpleNamespace(said=said, texts=texts, numpy=folder / "numpy", address=address, facts=facts)


def test_a_static_students_page_answers_every_test_row_as_predict_py_does(static_page):
    weights, tokenizer, labels = predict_static.load(static_page.numpy)
    print(f"\nA static student's page, {static_page.facts['page_bytes'] / 1e6:.1f} MB: ", end="")
    apart, other = compared(static_page, labels, lambda text: predict_static.logits([text], weights, tokenizer)[0])
    assert not other
    assert apart.max() < 1e-3
    assert static_page.facts["page_bytes"] < 3e6


def test_a_static_students_page_asks_for_nothing_and_complains_of_nothing(static_page):
    for page, visit in static_page.said["opened"].items():
        assert visit["asked"] in ([page], [page, "data:,"]), "itself alone"
        assert visit["complaints"] == []
    assert static_page.said["person"]["sentence"].startswith("positive")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_static_students_page_fits_the_screen_and_axe_finds_nothing_serious(width, scheme, static_page):
    found = static_page.said[f"{width}-{scheme}"]
    assert found["wide"] <= width
    assert [fault for fault in found["faults"] if fault["impact"] in ("serious", "critical")] == []
