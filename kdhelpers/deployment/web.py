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
from kdhelpers.data import Task
from kdhelpers.deployment.export import ACCEPTED_CHANGES, PROBE, export, student_folder
from kdhelpers.deployment.runners import run_metrics
from kdhelpers.errors import UserError
from kdhelpers.storage import cache_home, write_file, write_folder

SOURCES = ("npm", "cdn")  # where the page's JavaScript comes from
CDN = "https://cdn.jsdelivr.net"
EXAMPLES = 6
TEMPLATE = Path(__file__).with_name("web") / "index.html"
MODEL = "onnx/model_quantized.onnx"  # where transformers.js looks for 8 bits


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
    `@huggingface/transformers` loads it, and lib/. Some of `texts` become the page's examples. `libraries`: npm, or
    cdn for a page that loads its JavaScript from a public server, as it also does where npm gives none. Returns the
    int8 export's facts, `page_bytes` of the whole folder, `libraries` (npm or cdn) and `no_npm`, the reason or "".

    Raises UserError as `export` does, and for a library that is not the one with our checksum.
    """
    folder = student_folder(student)
    _require_page(folder, output, libraries)
    found, no_npm = _libraries() if libraries == "npm" else ([], "")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            int8 = Path(temporary) / "int8"
            facts = export(folder, int8, "onnx-int8", texts, vocabulary_of, accept_changes)
            if facts["pairs"] or facts["task"] != Task.ONE:
                raise UserError("a page answers with one label for one text: of this student take --format onnx-int8")

            def save(path: str) -> None:
                layers = _write_student(Path(path), int8, folder, facts)
                card = {"facts": _facts(folder, layers, facts), "examples": _examples(texts or PROBE)}
                _write_pages(Path(path), card, found)

            write_folder(output, save)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return facts | {"page_bytes": size, "libraries": "npm" if found else "cdn", "no_npm": no_npm}


def _require_page(student: str, output: Path, libraries: str) -> None:
    """Raise UserError for what is known to be wrong before npm is asked."""
    if libraries not in SOURCES:
        raise UserError(f"libraries must be one of {', '.join(SOURCES)}, not {libraries!r}")
    if output.is_dir() and any(output.iterdir()) and not (output / MODEL).is_file():
        raise UserError(f"{output} holds files that are no page of a student: choose another output folder")
    if models.load_config(student).model_type == models.StaticForSequenceClassification.kind:
        raise UserError("a page needs a transformer: of a static student take --format numpy or onnx-int8")


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


def _write_student(folder: Path, int8: Path, student: str, facts: dict) -> int:
    """The layout that transformers.js loads; the vocabulary may be a trimmed one. Returns the number of layers."""
    models.load_tokenizer(student).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("added_tokens_decoder", None)  # tokenizer.json has them, with the ids of today
    settings["model_max_length"] = facts["max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    shutil.copy(int8 / "tokenizer.json", folder)
    config = AutoConfig.from_pretrained(student)
    config.vocab_size, config.id2label = facts["vocabulary"], dict(enumerate(facts["labels"]))
    config.save_pretrained(folder)
    (folder / MODEL).parent.mkdir()
    shutil.copy(int8 / "model.onnx", folder / MODEL)
    return config.num_hidden_layers


def _write_pages(folder: Path, card: dict, libraries: list[Path]) -> None:
    """index.html, which reads the files beside it, and student.html, which has them inside."""
    for path in libraries:
        (folder / "lib").mkdir(exist_ok=True)
        shutil.copy(path, folder / "lib")
    card["libraries"] = {
        name: {"url": f"lib/{name}" if libraries else f"{CDN}/npm/{package}/{path}", "integrity": integrity}
        for (package, path, integrity), name in ((library, library.name) for library in LIBRARIES)
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    script, style = (_sri(re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)[0].encode()) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; script-src '{script}' 'wasm-unsafe-eval' blob:; style-src '{style}'; img-src data:; "
        f"connect-src 'self' blob:{'' if libraries else ' ' + CDN}; base-uri 'none'; form-action 'none'"
    )
    said = json.dumps(card, ensure_ascii=False).replace("<", "\\u003c")  # a text is no markup
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    held = "\n".join(
        f'<script type="text/plain" id="{path.relative_to(folder).as_posix()}">'
        f"{base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode()}</script>"
        for path in files
    )
    for name, inside in {"index.html": "", "student.html": held}.items():
        filled = page.replace("{{policy}}", policy).replace("{{held}}", inside).replace("{{card}}", said)
        write_file(folder / name, filled.encode())


def _examples(texts: list[str]) -> list[str]:
    """A few texts from all over, no longer than a phone's screen is wide a few times."""
    fitting = [text for text in texts if 20 <= len(text) <= 120] or texts
    return fitting[:: max(1, len(fitting) // EXAMPLES)][:EXAMPLES]


def _facts(student: str, layers: int, facts: dict) -> list[tuple[str, str]]:
    """What the page says of its student, name and value; more where it lies in the folder of a run."""
    changed, compared = facts["changed_predictions"], facts["compared_texts"]
    depth = f"{layers} layer{'s' * (layers > 1)}"
    said = [
        ("Classes", ", ".join(facts["labels"])),
        ("Student", f"{depth}, {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB in 8 bits"),
        ("Reads", f"up to {facts['max_length']} tokens of a text, with a vocabulary of {facts['vocabulary']:,}"),
        ("8 bits", f"changed {changed:,} of {compared:,} answers ({100 * changed / compared:.1f} %)"),
    ]
    run = run_metrics(Path(student).parent) if Path(student).is_dir() else {}
    if "test_accuracy" in run.get("student", {}):
        low, high = run["student"]["test_interval95"]
        accuracy = f"{100 * run['student']['test_accuracy']:.1f} % on {run['rows']['test']:,} test rows"
        said.append(("Accuracy", f"{accuracy} (95 % interval {100 * low:.1f} to {100 * high:.1f}), before 8 bits"))
    if "text" in (run.get("verdict") or {}):
        said.append(("Verdict", run["verdict"]["text"]))
    return said
