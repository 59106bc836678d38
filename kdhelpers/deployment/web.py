"""A student as a folder that any static server can show: a page that answers in the browser, and what it needs."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig

from kdhelpers import models
from kdhelpers.data import Task, listed
from kdhelpers.deployment import predict_static
from kdhelpers.deployment.export import ACCEPTED_CHANGES, PROBE, export, student_folder
from kdhelpers.deployment.runners import run_metrics
from kdhelpers.errors import UserError
from kdhelpers.storage import cache_home, write_file, write_folder

SOURCES = ("npm", "cdn")  # where the page's JavaScript comes from
CDN = "https://cdn.jsdelivr.net"
EXAMPLES = 6
PARTS = Path(__file__).with_name("web")  # the page, and what answers in it
MODEL = "onnx/model_quantized.onnx"  # where transformers.js looks for 8 bits
IN_PAGE = "onnx-int8-weights"  # a browser answers what Python answers, but for the last digits


class Library(NamedTuple):
    """A file of an npm package: the package with its version, the file's path there, its checksum."""

    package: str
    path: str
    integrity: str

    @property
    def name(self) -> str:
        """The file's name, in lib/ and in the page."""
        return self.path.rpartition("/")[2]


# The runtime is the version that this transformers.js names; its build for CPUs, half as large as the one for GPUs,
# which bring a small student nothing. It has ONNX's attention operator (opset 23): the graph is the same as elsewhere.
TRANSFORMERS, RUNTIME = "@huggingface/transformers@4.3.1", "onnxruntime-web@1.31.0-dev.20260914-8d85527a0"
PACKAGES = {  # npm's own checksums
    TRANSFORMERS: "sha512-5+voSeUCFK6PCKlY15dPhNOKq3/zOTxDN7oC+Wy9dFb1QZ0TSQomZRRy7URRK8YRuUoE9fGMQTTPC5d/pWBJhA==",
    RUNTIME: "sha512-Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
}
LIBRARIES = [
    Library(TRANSFORMERS, "dist/transformers.min.js", "sha256-jWcW2QhvV8MKS/Nn26YbiHWTVzx3DEVEZegBmycD50M="),
    Library(RUNTIME, "dist/ort-wasm-simd-threaded.mjs", "sha256-xXylYyiHc1OldeUbvKbxhFACfWyb8jB6LLLEE2O03p8="),
    Library(RUNTIME, "dist/ort-wasm-simd-threaded.wasm", "sha256-BroFd1PaOEfkwk8C2RqxM0VbCBfGmkSZOppTohRt+eM="),
]  # fmt: skip


def export_web(
    student: str,
    output: Path,
    texts: list[str] | None = None,
    vocabulary_of: list[str] | None = None,
    accept_changes: float = ACCEPTED_CHANGES,
    libraries: str = "npm",
) -> dict:
    """Write a page that answers in the browser to `output`, all or nothing; an earlier page goes.

    The folder holds index.html for a server, student.html for a double click (all in one file), the int8 student as
    `@huggingface/transformers` loads it, and lib/. Of a static student it holds index.html alone, for both, which needs
    no library. Some of `texts` become the page's examples. `libraries`: npm, or cdn for a page that loads its
    JavaScript from a public server, as it also does where npm gives none. Returns the export's facts, `page_bytes` of
    the whole folder, `javascript_bytes` of lib/, `single_file_bytes` of the page that is one file, `libraries` (npm,
    cdn or none) and `no_npm`, the reason or "".

    Raises UserError as `export` does, for a library that is not the one with our checksum, and for a static student
    whose tokenizer is not BERT's.
    """
    folder = student_folder(student)
    static = models.load_config(folder).model_type == models.StaticForSequenceClassification.kind
    _require_page(output, libraries)
    found, no_npm = _libraries() if libraries == "npm" and not static else ([], "")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            exported = Path(temporary) / "student"
            facts = export(folder, exported, "numpy" if static else IN_PAGE, texts, vocabulary_of, accept_changes)
            if facts["pairs"] or facts["task"] != Task.ONE:
                raise UserError("a page answers with one label for one text: of this student take another --format")
            card = {"facts": _facts(folder, facts), "examples": _examples(texts or PROBE)}
            write_folder(output, lambda path: _write(Path(path), exported, folder, facts, card, found))
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    source = "none" if static else "npm" if found else "cdn"
    return facts | _sizes(output) | {"libraries": source, "no_npm": no_npm}


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of a page: of the whole folder, of its JavaScript, and of the one file that needs no other."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return {
        "page_bytes": sum(sizes.values()),
        "javascript_bytes": sum(size for name, size in sizes.items() if name.startswith("lib/")),
        "single_file_bytes": sizes.get("student.html", sizes["index.html"]),
    }


def _require_page(output: Path, libraries: str) -> None:
    """Raise UserError for what is known to be wrong before npm is asked."""
    if libraries not in SOURCES:
        raise UserError(f"libraries must be one of {', '.join(SOURCES)}, not {libraries!r}")
    held = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if held - {"index.html"} and not (output / MODEL).is_file():
        raise UserError(f"{output} holds files that are no page of a student: choose another output folder")


# --- libraries ------------------------------------------------------------------------------------------------------


def _libraries() -> tuple[list[Path], str]:
    """The files of `LIBRARIES`, fetched into the cache where they are missing; or none, and why npm gives none.

    Raises UserError for a package or a file with another checksum.
    """
    home = cache_home() / "javascript"
    for package, integrity in PACKAGES.items():
        files = {home / library.name: library for library in LIBRARIES if library.package == package}
        if all(_is(path, library.integrity) for path, library in files.items()):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary) / "package.tgz"
            if why := _pack(package, archive):
                return [], why
            known = _is(archive, integrity)
            if known:
                with tarfile.open(archive) as members:
                    for path, library in files.items():
                        content = members.extractfile(f"package/{library.path}")
                        write_file(path, content.read() if content else b"")
        if not known or not all(_is(path, library.integrity) for path, library in files.items()):
            raise UserError(f"what npm gives as {package} has another checksum than ours: choose --libraries cdn")
    return [home / library.name for library in LIBRARIES], ""


def _pack(package: str, archive: Path) -> str:
    """Let npm write a package to a file, from the registry that it is set up for. Returns why it could not, or ""."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    command = [npm, "pack", package, "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    try:
        done = subprocess.run(command, cwd=archive.parent, capture_output=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return "npm did not answer"
    if done.returncode != 0:
        return f"npm cannot fetch {package}"
    next(archive.parent.glob("*.tgz")).rename(archive)
    return ""


def _sri(content: bytes, algorithm: str = "sha256") -> str:
    """A checksum as npm and browsers write it."""
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


def _is(path: Path, integrity: str) -> bool:
    """Whether a file is there and has this checksum."""
    return path.is_file() and _sri(path.read_bytes(), integrity.partition("-")[0]) == integrity


# --- the folder -----------------------------------------------------------------------------------------------------


def _write(path: Path, exported: Path, student: str, facts: dict, card: dict, libraries: list[Path]) -> None:
    """Everything that the folder holds."""
    if facts["format"] == "numpy":
        _write_static_page(path, exported, card, facts)
        return
    _write_student(path, exported, student, facts)
    _write_pages(path, card, libraries)


def _write_student(folder: Path, int8: Path, student: str, facts: dict) -> None:
    """The layout that transformers.js loads; the vocabulary may be a trimmed one."""
    models.load_tokenizer(student).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("added_tokens_decoder", None)  # tokenizer.json has them, with the ids of today
    settings |= {"model_max_length": facts["max_length"], "truncation_side": facts["truncation_side"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    shutil.copy(int8 / "tokenizer.json", folder)
    config = AutoConfig.from_pretrained(student)
    config.vocab_size, config.id2label = facts["vocabulary"], dict(enumerate(facts["labels"]))
    config.save_pretrained(folder)
    (folder / MODEL).parent.mkdir()
    shutil.copy(int8 / "model.onnx", folder / MODEL)


def _write_pages(folder: Path, card: dict, libraries: list[Path]) -> None:
    """index.html, which reads the files beside it, and student.html, which has them inside."""
    for path in libraries:
        (folder / "lib").mkdir(exist_ok=True)
        shutil.copy(path, folder / "lib")
    card["libraries"] = {
        name: {"url": f"lib/{name}" if libraries else f"{CDN}/npm/{package}/{path}", "integrity": integrity}
        for (package, path, integrity), name in ((library, library.name) for library in LIBRARIES)
    }
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    code = f"'wasm-unsafe-eval' blob:; connect-src 'self' blob:{'' if libraries else ' ' + CDN}"
    for name, inside in {"index.html": {}, "student.html": files}.items():
        _write_page(folder / name, "transformer.js", inside, card, code)


def _write_static_page(folder: Path, exported: Path, card: dict, facts: dict) -> None:
    """index.html alone, with what each token adds to each class's logit: the head is linear, and what it reads a mean.

    `exported` is the folder of `export --format numpy`. Raises UserError for a tokenizer that static.js does not read.
    """
    weights, tokenizer, labels = predict_static.load(exported)
    state = json.loads(tokenizer.to_str())
    kinds = [(state[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
        raise UserError(f"a static student's page reads text as BERT does, and not by {kinds[2]}: take --format numpy")
    normal, model = state["normalizer"], state["model"]
    scores = weights["embeddings.weight"] @ weights["classifier.weight"].T
    known = tokenizer.get_vocab()
    word = next(token for token in known if token.isalpha())
    around = tokenizer.encode(word).ids
    begin, end = around[: around.index(known[word])], around[around.index(known[word]) + 1 :]
    card["reader"] = {
        "clean": normal["clean_text"], "ideographs": normal["handle_chinese_chars"], "lower": normal["lowercase"],
        "strip": normal["lowercase"] if normal["strip_accents"] is None else normal["strip_accents"],
        "inside": model["continuing_subword_prefix"], "longest": model["max_input_chars_per_word"],
        "unknown": model["unk_token"], "special": "|".join(re.escape(one["content"]) for one in state["added_tokens"]),
        "begin": begin, "end": end, "room": facts["max_length"] - len(begin + end), "side": facts["truncation_side"],
        "bias": weights["classifier.bias"].tolist(), "labels": labels,
    }  # fmt: skip
    names = {index: token for token, index in known.items()}
    vocabulary = "\n".join(names.get(index, "") for index in range(len(scores)))
    files = {"vocabulary.txt": vocabulary.encode(), "scores.bin": scores.astype("<f4").tobytes()}
    _write_page(folder / "index.html", "static.js", files, card, "; connect-src 'none'")


def _write_page(path: Path, answering: str, files: dict[str, bytes], card: dict, code: str) -> None:
    """The page with what answers in it, what it holds, and what it may run and load beside its own script."""
    page = (PARTS / "index.html").read_text(encoding="utf-8")
    libraries = ", with transformers.js (Apache-2.0) and ONNX Runtime (MIT)" if "libraries" in card else ""
    page = page.replace("{{load}}", (PARTS / answering).read_text(encoding="utf-8")).replace("{{libraries}}", libraries)
    script, style = (_sri(re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)[0].encode()) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src '{script}' {code}; style-src '{style}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    said = json.dumps(card, ensure_ascii=False).replace("<", "\\u003c")  # a text is no markup
    held = "\n".join(
        f'<script type="text/plain" id="{name}">{base64.b64encode(gzip.compress(content, mtime=0)).decode()}</script>'
        for name, content in files.items()
    )
    filled = page.replace("{{policy}}", policy).replace("{{held}}", held).replace("{{card}}", said)
    write_file(path, filled.encode())


def _examples(texts: list[str]) -> list[str]:
    """A few texts from all over, no longer than a phone's screen is wide a few times."""
    fitting = [text for text in texts if 20 <= len(text) <= 120] or texts
    return fitting[:: max(1, len(fitting) // EXAMPLES)][:EXAMPLES]


def _facts(student: str, facts: dict) -> list[tuple[str, str]]:
    """What the page says of its student, name and value; more where it lies in the folder of a run."""
    changed, compared = facts["changed_predictions"], facts["compared_texts"]
    layers = models.load_config(student).num_hidden_layers
    depth = f"{layers} layer{'s' * (layers > 1)}" if layers else "no layers, the mean of its token vectors"
    size = f", {facts['bytes'] / 1e6:.1f} MB in 8 bits" if layers else ""
    said = [
        ("Classes", listed(facts["labels"])),
        ("Student", f"{depth}, {facts['parameters']:,} parameters{size}"),
        ("Reads", f"up to {facts['max_length']} tokens of a text, with a vocabulary of {facts['vocabulary']:,}"),
    ]
    if layers:
        said.append(("8 bits", f"changed {changed:,} of {compared:,} answers ({100 * changed / compared:.1f} %)"))
    run = run_metrics(Path(student).parent) if Path(student).is_dir() else {}
    if "test_accuracy" in run.get("student", {}):
        low, high = run["student"]["test_interval95"]
        accuracy = f"{100 * run['student']['test_accuracy']:.1f} % on {run['rows']['test']:,} test rows"
        before = ", before 8 bits" * (layers > 0)
        said.append(("Accuracy", f"{accuracy} (95 % interval {100 * low:.1f} to {100 * high:.1f}){before}"))
    if "text" in (run.get("verdict") or {}):
        said.append(("Verdict", run["verdict"]["text"]))
    return said
