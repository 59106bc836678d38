"""A student as a page: what the folder holds, what it may load, and that it is the int8 student and no other.

Whether a browser answers with it is tested by hand: tests/tools/browser/.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import softmax
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from kdhelpers import models
from kdhelpers.deployment import export, export_web, exported_logits, graph, predict_static
from kdhelpers.errors import UserError
from tests.tiny import (
    family_tokenizer,
    save_model,
    teachable_rows,
    tiny_model,
    tiny_tokenizer,
    trained_tiny_teacher,
)

NAMES = ["negative", "positive"]
TEXTS = ["</script><b> is a film of no taste", *(row["text"] for row in teachable_rows(20))]
web, export_module = (sys.modules[function.__module__] for function in (export_web, export))
RUN = {
    "rows": {"test": 1000}, "student": {"test_accuracy": 0.823, "test_interval95": [0.798, 0.845]},
    "verdict": {"text": "no evidence of a difference"},
}  # fmt: skip


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    (run / "metrics.json").write_text(json.dumps(RUN))
    return save_model(run / "student", models.set_labels(trained_tiny_teacher(), NAMES), tiny_tokenizer())


@pytest.fixture(scope="module")
def graph_file(student, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    graph.to_onnx(models.load_classifier(str(student), None).model, path)
    return path


@pytest.fixture(autouse=True)
def export_costs_nothing(graph_file, monkeypatch, tmp_path):
    monkeypatch.setattr(export_module, "to_onnx", lambda model, path, *_: shutil.copy(graph_file, path))
    monkeypatch.setenv("KD_HOME", str(tmp_path / "cache"))


@pytest.fixture
def registry(monkeypatch):
    """An npm that gives packages of our own making: file by file what `web.LIBRARIES` names, with their checksums."""
    libraries = [library._replace(integrity=web._sri(library.path.encode())) for library in web.LIBRARIES]
    packages, asked = {}, []
    for package in web.PACKAGES:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as files:
            for library in libraries:
                if library.package == package:
                    member = tarfile.TarInfo(f"package/{library.path}")
                    member.size = len(library.path)
                    files.addfile(member, io.BytesIO(library.path.encode()))
        packages[package] = packed.getvalue()

    def pack(package, archive):
        asked.append(package)
        archive.write_bytes(packages[package])
        return ""

    monkeypatch.setattr(web, "LIBRARIES", libraries)
    monkeypatch.setattr(web, "PACKAGES", {name: web._sri(content, "sha512") for name, content in packages.items()})
    monkeypatch.setattr(web, "_pack", pack)
    return asked


def card_of(page):
    return json.loads(re.search(r'id="card">(.*?)</script>', page.read_text(encoding="utf-8"))[1])


def policy_of(page):
    return re.search(r'Content-Security-Policy" content="([^"]*)"', page.read_text(encoding="utf-8"))[1]


def test_the_folder_is_the_student_in_8_bits_in_the_layout_of_transformers_js(student, tmp_path):
    folder = tmp_path / "web"
    export_web(str(student), folder, TEXTS, libraries="cdn")
    export(str(student), tmp_path / "file", "onnx-int8-weights", TEXTS)
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == dict(enumerate(NAMES))
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 64
    session = onnxruntime.InferenceSession(folder / "onnx" / "model_quantized.onnx")
    assert {entry.name for entry in session.get_inputs()} == {"input_ids", "attention_mask"}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text).ids])
        logits = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        assert np.abs(logits - exported_logits(tmp_path / "file", [text])).max() < 1e-4
    for path in folder.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), f"{path} names a place of this machine"


def test_a_trimmed_vocabulary_is_the_pages_too(student, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "to_onnx", graph.to_onnx)
    facts = export_web(str(student), tmp_path / "web", TEXTS, TEXTS, 1.0, "cdn")
    config = json.loads((tmp_path / "web" / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(tmp_path / "web" / "tokenizer.json"))
    assert config["vocab_size"] == facts["vocabulary"] == tokenizer.get_vocab_size() < tiny_tokenizer().vocab_size
    settings = json.loads((tmp_path / "web" / "tokenizer_config.json").read_text())
    assert "added_tokens_decoder" not in settings
    assert settings["truncation_side"] == "right", "which its script asks for"


@pytest.mark.skipif(shutil.which("node") is None, reason="node must be installed to run a page's script")
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_transformers_page_cuts_a_long_text_as_python_does(side):
    """Of transformers.js a stub: its own tokenizer cuts on the right alone, and the last special token with it."""
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side, text = side, "bad" + " good film" * 50
    script = f"""
        {(web.PARTS / "transformer.js").read_text("utf-8")}
        const whole = {tokenizer(text, verbose=False)["input_ids"]}, none = {tokenizer("")["input_ids"]};
        const encode = (text) => ({{ input_ids: text ? whole : none }});
        const tokenizer = {{ _encode_plus: encode, model_max_length: 64, config: {{ truncation_side: "{side}" }} }};
        cutAsPythonDoes(tokenizer);
        console.log(JSON.stringify(tokenizer._encode_plus("a text").input_ids));
    """
    said = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == tokenizer(text, truncation=True)["input_ids"]


def test_with_npm_everything_is_in_the_folder_and_nothing_else_may_be_asked(student, registry, tmp_path):
    facts = export_web(str(student), tmp_path / "web", TEXTS)
    assert facts["libraries"] == "npm"
    assert registry == list(web.PACKAGES)
    for name, entry in card_of(tmp_path / "web" / "index.html")["libraries"].items():
        assert entry["url"] == f"lib/{name}"
        assert web._sri((tmp_path / "web" / entry["url"]).read_bytes()) == entry["integrity"]
    for page in ("index.html", "student.html"):
        policy = policy_of(tmp_path / "web" / page)
        assert "default-src 'none'" in policy
        assert "connect-src 'self' blob:;" in policy
        assert not re.search("http|unsafe-inline|'unsafe-eval'", policy)
    export_web(str(student), tmp_path / "again", TEXTS)
    assert len(registry) == 2, "the cache has them now"


def test_without_npm_the_page_names_the_public_server_and_our_checksums(student, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = export_web(str(student), tmp_path / "web", TEXTS)
    assert facts["libraries"] == "cdn"
    assert facts["no_npm"] == "npm is not installed"
    libraries = card_of(tmp_path / "web" / "index.html")["libraries"]
    assert [entry["integrity"] for entry in libraries.values()] == [library.integrity for library in web.LIBRARIES]
    for entry in libraries.values():
        assert re.match(r"https://cdn\.jsdelivr\.net/npm/\S+@\d\S+/dist/\S+$", entry["url"]), "a version is named"
    assert "connect-src 'self' blob: https://cdn.jsdelivr.net;" in policy_of(tmp_path / "web" / "index.html")
    assert not (tmp_path / "web" / "lib").exists()


def test_an_npm_that_fetches_nothing_is_said(student, tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "cannot fetch" in export_web(str(student), tmp_path / "web", TEXTS)["no_npm"]


@pytest.mark.parametrize("damage", ["package", "file"])
def test_a_library_with_another_checksum_is_refused(damage, student, registry, tmp_path, monkeypatch):
    if damage == "package":
        monkeypatch.setattr(web, "PACKAGES", dict.fromkeys(web.PACKAGES, web._sri(b"another", "sha512")))
    else:
        others = [library._replace(integrity=web._sri(b"another")) for library in web.LIBRARIES]
        monkeypatch.setattr(web, "LIBRARIES", others)
    with pytest.raises(UserError, match="checksum") as error:
        export_web(str(student), tmp_path / "web", TEXTS)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "web").exists()


def test_the_page_runs_its_own_script_and_no_other(student, tmp_path):
    """The policy names the checksums of the two blocks; what a text says is no markup."""
    export_web(str(student), tmp_path / "web", TEXTS, libraries="cdn")
    page = (tmp_path / "web" / "index.html").read_text(encoding="utf-8")
    for tag in ("script", "style"):
        (block,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        found = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{found}'" in policy_of(tmp_path / "web" / "index.html")
    assert card_of(tmp_path / "web" / "index.html")["examples"][0] == TEXTS[0]
    assert "<b>" not in page
    assert "{{" not in page


def test_the_single_file_holds_all_others(student, registry, tmp_path):
    folder = tmp_path / "web"
    export_web(str(student), folder, TEXTS)
    page = (folder / "student.html").read_text(encoding="utf-8")
    held = dict(re.findall(r'<script type="text/plain" id="([^"]+)">([^<]*)</script>', page))
    others = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(held) == set(others) - {"index.html", "student.html"}
    for name, content in held.items():
        assert gzip.decompress(base64.b64decode(content)) == others[name].read_bytes()


def test_the_page_says_whose_student_it_is(student, tmp_path):
    export_web(str(student), tmp_path / "web", TEXTS, libraries="cdn")
    facts = dict(card_of(tmp_path / "web" / "index.html")["facts"])
    assert facts["Classes"] == "negative, positive"
    assert facts["Accuracy"].startswith("82.3 % on 1,000 test rows (95 % interval 79.8 to 84.5)")
    assert facts["Verdict"] == RUN["verdict"]["text"]
    assert "64 tokens" in facts["Reads"]
    alone = shutil.copytree(student, tmp_path / "alone" / "student")
    export_web(str(alone), tmp_path / "web", libraries="cdn")
    card = card_of(tmp_path / "web" / "index.html")
    assert "Accuracy" not in dict(card["facts"])
    assert len(set(card["examples"])) == web.EXAMPLES


def test_a_folder_that_holds_anything_else_is_not_replaced(student, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="no page"):
        export_web(str(student), tmp_path, TEXTS, libraries="cdn")
    with pytest.raises(UserError, match="npm, cdn"):
        export_web(str(student), tmp_path / "web", TEXTS, libraries="elsewhere")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["thesis.txt"]


# --- a static student's page


@pytest.fixture
def static(student, tmp_path):
    """A static student whose classes differ a lot, and some words of Unicode in its vocabulary."""
    torch.manual_seed(0)
    model = models.static_student(models.load_classifier(str(student), None).model)
    torch.nn.init.normal_(model.embeddings.weight)
    torch.nn.init.normal_(model.classifier.weight)
    torch.nn.init.normal_(model.classifier.bias)
    return save_model(tmp_path / "static", model, tiny_tokenizer())


@pytest.mark.skipif(shutil.which("node") is None, reason="node must be installed to run a page's script")
@pytest.mark.parametrize("how", ["right", "left", "without special tokens"])
def test_a_static_students_page_reads_and_answers_as_python_does(how, static, tmp_path):
    """Its script without the page around it; whether a browser runs it is tested by hand."""
    tokenizer = tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if how in ("right", "left"):
        tokenizer.truncation_side = how
    else:
        state["post_processor"] = None
    models.rebuilt_tokenizer(tokenizer, state).save_pretrained(static)
    export_web(str(static), tmp_path / "page")
    export(str(static), tmp_path / "numpy", "numpy")
    weights, tokenizer, labels = predict_static.load(tmp_path / "numpy")
    words = sorted(tokenizer.get_vocab())[:400:7]
    texts = [*TEXTS, *STRANGE, " ".join(words), "".join(words), "bad" + " good" * 99, "x" * 101]
    page = tmp_path / "page" / "index.html"
    held = dict(re.findall(r'<script type="text/plain" id="([^"]+)">([^<]*)</script>', page.read_text("utf-8")))
    script = f"""
        const card = {json.dumps(card_of(page))}, files = {json.dumps(held)}, texts = {json.dumps(texts)};
        const held = (name) => new Response(require("zlib").gunzipSync(Buffer.from(files[name], "base64")));
        let classify;
        {(web.PARTS / "static.js").read_text("utf-8")}
        load().then(() => console.log(JSON.stringify(texts.map((text) => [tokens(text), classified(text)]))));
    """
    (tmp_path / "page.js").write_text(script, encoding="utf-8")
    done = subprocess.run(["node", tmp_path / "page.js"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    for text, (ids, classes) in zip(texts, json.loads(done.stdout), strict=True):
        assert ids == tokenizer.encode(text).ids, text
        expected = softmax(predict_static.logits([text], weights, tokenizer)[0])
        said = {entry["label"]: entry["score"] for entry in classes}
        assert [said[label] for label in labels] == pytest.approx(expected, abs=1e-5), text
        assert classes[0]["score"] == max(said.values())


STRANGE = [
    "", " \t\n", "GOOD, good; g\u00f6\u00f6d! Go\u0308od\u00a0film", "a\u200bb\ufeffc\u0000d\ufffde", "x\u0301\u0302y",
    "\u03a3\u03a3 \u0130", "\u597d\u7684film", "[CLS] good [SEP] [MASK]bad", "$5+5=10 ^_^ `~|<>",
    "\u00abnaive\u00bb\u2014caf\u00e9\u2026", "\U0001f600 good\U0001f600", "good\u0378 \ue000bad",
]  # fmt: skip


def test_a_static_students_page_is_one_small_file_that_may_load_nothing(static, tmp_path):
    facts = export_web(str(static), tmp_path / "page", TEXTS)
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]
    assert facts["libraries"] == "none"
    assert facts["page_bytes"] < 3e6
    page = tmp_path / "page" / "index.html"
    policy = policy_of(page)
    assert "connect-src 'none'" in policy
    assert "wasm" not in policy
    (script,) = re.findall("<script>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "transformers.js" not in page.read_text(encoding="utf-8").split("<footer>")[1].split("</footer>")[0]
    assert "no layers" in dict(card_of(page)["facts"])["Student"]
    export_web(str(static), tmp_path / "page", TEXTS)  # an earlier page goes


def test_a_static_student_with_another_kind_of_tokenizer_is_refused_and_nothing_written(tmp_path):
    parent = tiny_model("roberta")
    static = save_model(tmp_path / "static", models.static_student(parent), family_tokenizer("roberta"))
    with pytest.raises(UserError, match="not by BPE: take --format numpy"):
        export_web(str(static), tmp_path / "page", accept_changes=1.0)
    assert not (tmp_path / "page").exists()
