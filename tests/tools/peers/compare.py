"""Our training beside TextBrewer's and torchdistill's: same teacher, initial student, rows, epochs and batch size.

python -m tests.tools.peers.compare
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kdhelpers import evaluation, models, quiet, runtime, storage
from kdhelpers.distillation import Prepared, prepare
from kdhelpers.errors import UserError
from tests.tools.peers.task import INPUTS, Task

ROOT = Path(__file__).parents[3]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


@dataclass(frozen=True)
class Way:
    """A way of training: the module that does it, which of its variants, and in whose environment it runs."""

    name: str
    module: str
    variant: str = ""
    ours: bool = False

    @property
    def folder(self) -> str:
        """Where its results go, under the folder of the comparison."""
        return "-".join(filter(None, (self.module.removeprefix("run_"), self.variant)))


WAYS = (
    Way("ours", "run_ours", "all", ours=True),
    Way("ours, word embeddings frozen", "run_ours", "frozen", ours=True),
    Way("TextBrewer", "run_textbrewer", "live"),
    Way("TextBrewer, logits cached", "run_textbrewer", "cached"),
    Way("torchdistill", "run_torchdistill", "fp32"),
    Way("torchdistill, bf16", "run_torchdistill", "bf16"),
)


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def peers_python(venv: Path) -> Path:
    """The interpreter of the peers' environment, which is made if it is missing or was made from other pins."""
    pins, mark = REQUIREMENTS.read_text(encoding="utf-8"), venv / "made-from.txt"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if mark.is_file() and mark.read_text(encoding="utf-8") == pins:
        return python
    say(f"setting up the peers' environment in {venv}: a few minutes, once")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(venv)], [*pip, "--requirement", str(REQUIREMENTS)]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"cannot set up the peers' environment in {venv}: {last}; connect, then start again")
    mark.write_text(pins, encoding="utf-8")
    return python


def write_kit(kit: Prepared, rows: int | None, folder: Path) -> int:
    """Teacher, initial student and tokenised training rows as files that every way can read; returns how many."""
    student = models.cut_layers(kit.teacher, kit.settings.student_layers)
    kit.save(kit.teacher, folder / "teacher")
    kit.save(student, folder / "student")
    train_rows = kit.splits["train"].select_columns([*INPUTS, "labels", "length"])
    if rows is not None and rows < len(train_rows):  # at even distances: the labelled rows stand at the front
        train_rows = train_rows.select(np.linspace(0, len(train_rows) - 1, rows).astype(int))
    (folder / "train.json").write_text(json.dumps(train_rows.to_list()), encoding="utf-8")
    return len(train_rows)


def kept(task: Task, threads: int) -> dict | None:
    """What an earlier training of the very same task reported, if its student is still there."""
    output = Path(task.output)
    try:
        same = json.loads((output / "task.json").read_text(encoding="utf-8")) == dataclasses.asdict(task)
        facts = json.loads((output / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    there = (output / "student" / "model.safetensors").is_file()
    return facts if same and there and facts["threads"] == threads else None


def run(way: Way, task: Task, python: Path, threads: int) -> dict:
    """Train in a process of its own, on the CPU; returns what the way reports. Raises UserError if it fails."""
    output = Path(task.output)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / "task.json").write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
    where = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [
        sys.executable if way.ours else str(python),
        "-m",
        f"tests.tools.peers.{way.module}",
        str(output / "task.json"),
    ]
    with open(output / "log.txt", "w", encoding="utf-8") as file:
        done = subprocess.run(command, cwd=ROOT, env=where, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        raise UserError(
            f"{way.name} stopped with exit code {done.returncode}: its messages are in {output / 'log.txt'}"
        )
    return json.loads((output / "result.json").read_text(encoding="utf-8"))


def answers(folder: Path | str, kit: Prepared) -> np.ndarray:
    """A saved model's class ids on the test rows: every model is scored the same way, in fp32 by our code."""
    return kit.logits(models.load_classifier(str(folder), None).model, "test").argmax(-1)


def result_lines(result: dict) -> list[str]:
    """The table, what had to be patched, and how ours does against each peer."""
    ours = result["ways"][0]
    peers = [way for way in result["ways"] if not way["ours"]]
    notes = list(dict.fromkeys(patch for way in peers for patch in way["patches"]))
    body = [
        [
            way["name"],
            f"{100 * way['test_accuracy']:.1f} %",
            f"{way['seconds']:.1f}",
            f"{way['seconds'] / ours['seconds']:.1f}x",
            ", ".join(str(notes.index(patch) + 1) for patch in way["patches"]) or "none",
        ]
        for way in result["ways"]
    ]
    columns = ["accuracy", "training s", "against ours", "patches"]
    seeds = len(result["seeds"])
    lines = [
        "",
        f"Against {', '.join(pin.replace('==', ' ') for pin in result['versions'])}.",
        f"{result['rows']:,} rows, {result['epochs']} epochs, batch {result['batch_size']}, "
        f"{result['threads']} threads; mean accuracy on {result['test_rows']:,} rows and seconds of the fastest "
        f"of {seeds} seed{'s' if seeds > 1 else ''}.",
        f"Teacher {100 * result['teacher_accuracy']:.1f} %, student before training "
        f"{100 * result['untrained_accuracy']:.1f} %.",
        pd.DataFrame([row[1:] for row in body], [row[0] for row in body], columns).to_string(),
        *(f"  patch {number}: {patch}" for number, patch in enumerate(notes, 1)),
    ]
    for way in peers:
        faster, points = way["seconds"] / ours["seconds"], 100 * (ours["test_accuracy"] - way["test_accuracy"])
        held = "yes" if faster >= 3 and points >= 0 else "NO"
        lines.append(
            f"No less accurate and 3 times faster than {way['name']}: {held} ({points:+.1f} points, {faster:.1f}x)"
        )
        lines.append(f"  {way['paired']}")
    return lines


def train_all(ways, seeds: list[int], kit: Prepared, rows: int, folder: Path, python: Path, options) -> dict:
    """Train every way with every seed, one after the other; what each reports, with its answers on the test rows."""
    runs = {way.name: [] for way in ways}
    for seed in seeds:
        for way in ways:
            task = Task(
                kit=str(folder / "kit"),
                rows=rows,
                teacher=models.weights_fingerprint(kit.teacher),
                output=str(folder / f"{way.folder}-{seed}"),
                variant=way.variant,
                epochs=options.epochs,
                batch_size=kit.settings.batch_size,
                learning_rate=kit.settings.learning_rate,
                temperature=kit.settings.temperature,
                warmup=kit.settings.warmup,
                seed=seed,
            )
            facts = kept(task, options.threads) if options.keep else None
            say(f"seed {seed}, {way.name}: {'training' if facts is None else 'kept'}")
            facts = facts or run(way, task, python, options.threads)
            facts["answers"] = answers(f"{task.output}/student", kit)
            accuracy = float(np.mean(facts["answers"] == kit.labels("test")))
            runs[way.name].append(facts | {"seed": seed, "test_accuracy": accuracy})
            say(f"seed {seed}, {way.name}: {facts['seconds']:.1f} s, accuracy {100 * accuracy:.1f} %")
    return runs


def verdict(runs: dict[str, list[dict]], labels: np.ndarray, a: str, b: str) -> str:
    """Is the way `a` better than `b`? Over seeds and rows, as everywhere; answers are class ids [rows]."""
    right = [{facts["seed"]: facts["answers"] == labels for facts in runs[name]} for name in (a, b)]
    return evaluation.paired_over_seeds(*right, a, b).text


def compare(options: argparse.Namespace) -> dict:
    """Everything, from the peers' environment to what peers.json holds. Raises UserError."""
    for name in ("rows", "epochs", "seeds", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(options, name)}")
    folder = Path(options.folder).resolve()
    python = peers_python(Path(options.venv).resolve() if options.venv else folder / "venv")
    say("preparing rows and teacher")
    kit = prepare()
    rows = write_kit(kit, options.rows, folder / "kit")
    bf16 = runtime.this_machine().precision == "bf16"
    ways = [way for way in WAYS if way.variant != "bf16" or bf16]
    seeds = list(range(42, 42 + options.seeds))
    runs = train_all(ways, seeds, kit, rows, folder, python, options)
    labels = kit.labels("test")
    table = [
        {
            "name": way.name,
            "ours": way.ours,
            "test_accuracy": float(np.mean([facts["test_accuracy"] for facts in runs[way.name]])),
            "seconds": min(facts["seconds"] for facts in runs[way.name]),
            "patches": runs[way.name][0]["patches"],
            "paired": verdict(runs, labels, ways[0].name, way.name),
            "runs": [{key: fact for key, fact in facts.items() if key != "answers"} for facts in runs[way.name]],
        }
        for way in ways
    ]
    return {
        "rows": rows,
        "test_rows": len(labels),
        "epochs": options.epochs,
        "batch_size": kit.settings.batch_size,
        "threads": options.threads,
        "seeds": seeds,
        "teacher_accuracy": float(np.mean(answers(folder / "kit" / "teacher", kit) == labels)),
        "untrained_accuracy": float(np.mean(answers(folder / "kit" / "student", kit) == labels)),
        "versions": [
            line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
        ],
        "ways": table,
    }


def main() -> int:
    """Compare, print the table and write peers.json; the exit code is 2 where the reader has something to mend."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.peers.compare", description=__doc__)
    parser.add_argument("--rows", type=int, help="train on so many rows only, to try the script (default: all)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over them (default 3)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 42 on (default 1)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads for every way")
    parser.add_argument("--folder", default="runs/peers", help="where everything is written (default runs/peers)")
    parser.add_argument(
        "--keep", action="store_true", help="do not repeat trainings of the same settings that the folder holds"
    )
    parser.add_argument("--venv", help="the peers' environment (default: venv in that folder)")
    options = parser.parse_args()
    quiet()
    try:
        result = compare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*result_lines(result), sep="\n")
    output = Path(options.folder) / "peers.json"
    storage.write_file(output, (json.dumps(result, indent=1) + "\n").encode())
    say(f"Written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
