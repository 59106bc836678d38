"""Many students over several seeds: which part of distillation helps, how small, with how much text.

Every run is one row in a CSV file, written as soon as it is done: an interrupted ladder goes on where it stopped.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, set_seed

from kdhelpers import __version__, data, evaluation, export, fitting, models, report, train, workshop
from kdhelpers.console import Parser
from kdhelpers.errors import UserError
from kdhelpers.logits import predict_logits
from kdhelpers.losses import UNLABELLED
from kdhelpers.recipes import MOVIE_SNIPPETS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """One way of making a student. Rungs differ from one another in as little as possible."""

    name: str
    start: str = "teacher"  # whose layers it is cut from: "teacher" or "backbone"
    labels: str = "2,000"  # whose labels it sees: "2,000" or "all" (the withheld ones too)
    soft: bool = True  # the teacher's logits
    texts: int | None = None  # unlabelled texts beside the labelled rows; None: all
    layers: int = 3
    states: str = "none"
    epochs: float = MOVIE_SNIPPETS.epochs  # of the largest set of rows: every rung takes as many steps as that makes


WHAT_HELPS = (
    Rung("labels only", start="backbone", soft=False),
    Rung("+ teacher's layers", soft=False),
    Rung("+ logits on labelled rows", texts=0),
    Rung("+ logits on 2,000 texts", texts=2000),
    Rung("+ logits on all texts"),
    Rung("all 8,070 labels, no teacher", start="backbone", labels="all", soft=False),
    Rung("all 8,070 labels + logits", labels="all"),
)
SIZES = (Rung("1 layer", layers=1), Rung("2 layers", layers=2), Rung("4 layers", layers=4))
STATES = (
    Rung("+ PKD", states="pkd"),
    Rung("+ TinyBERT", states="tinybert"),
    Rung("+ MiniLM", states="minilm"),
)
LONG = tuple(Rung(f"{layers} layer{'s' * (layers > 1)}, 8 epochs", layers=layers, epochs=8) for layers in (3, 2, 1))
GROUPS = {"helps": WHAT_HELPS, "sizes": SIZES, "states": STATES, "long": LONG}
OF_THE_NOTEBOOKS = ("labels only", "+ logits on all texts", "2 layers")
SCORES = ("rung", "group", "seed", "layers", "parameters", "steps", "validation_accuracy", "test_accuracy",
          "int8_accuracy", "seconds")  # fmt: skip


def rung(name: str) -> Rung:
    """The rung of that name. Raises UserError where there is none."""
    known = {rung.name: rung for rungs in GROUPS.values() for rung in rungs}
    if name not in known:
        raise UserError(f"no rung {name!r}: there are {', '.join(known)}")
    return known[name]


def run_rung(rung: Rung, kit: workshop.Prepared, seed: int) -> tuple[dict, fitting.Fit]:
    """Train one student as the rung says, choosing the checkpoint on validation; score it on the test rows.

    Gives back the row for the CSV file (`SCORES` and `right`, the test rows it gets right, as hexadecimal bits) and
    the trained model.
    """
    recipe = dataclasses.replace(kit.recipe, student_layers=rung.layers, epochs=rung.epochs)
    settings = train.RunSettings(recipe, Path("unused"), seed=seed)
    rows = kit.splits["train"]
    steps = round(rung.epochs * fitting.steps_per_epoch(len(rows), recipe.batch_size))
    labelled = [index for index, label in enumerate(rows["labels"]) if label != UNLABELLED]
    if rung.labels == "all":
        rows = rows.remove_columns("labels").add_column("labels", all_labels(rows["id"]))
    elif not rung.soft or rung.texts is not None:
        others = sorted(set(range(len(rows))) - set(labelled))
        rows = rows.select(labelled + (others[: rung.texts] if rung.soft else []))
    if rung.start == "backbone":
        student = train.build_control(settings, kit.rows.label_names, teacher_was_bare=True)
    else:
        student = train.build_student(settings, kit.teacher, kit.rows.label_names)
    alpha = recipe.alpha if rung.soft else 1.0
    if rung.soft and rung.labels == "all":
        alpha = 0.5  # with every label known both voices are heard
    with tempfile.TemporaryDirectory() as folder:
        arguments = fitting.training_arguments(
            Path(folder),
            dataclasses.replace(recipe, alpha=alpha),
            steps=steps,
            evaluations=round(rung.epochs),
            seed=seed,
            precision=fitting.choose_precision("auto"),
            has_validation=True,
            options={"states": rung.states},
        )
        set_seed(seed)
        fit = fitting.fit(
            rung.name, student, rows, kit.splits["validation"], kit.tokenizer, arguments,
            teacher=kit.teacher if rung.states != "none" else None,
        )  # fmt: skip
    right = predict_logits(fit.model, kit.splits["test"], kit.tokenizer).argmax(-1) == kit.labels("test")
    row = {
        "rung": rung.name,
        "group": next((name for name, rungs in GROUPS.items() if rung in rungs), ""),
        "seed": seed,
        "layers": rung.layers,
        "parameters": models.count_parameters(fit.model),
        "steps": steps,
        "validation_accuracy": round(fit.validation_accuracy, 4),
        "test_accuracy": float(right.mean()),
        "int8_accuracy": int8_accuracy(fit.model, kit) if rung in LONG else np.nan,  # what one would deploy
        "seconds": round(fit.seconds, 1),
        "right": pack(right),
    }
    return row, fit


def int8_accuracy(model: PreTrainedModel, kit: workshop.Prepared) -> float:
    """Test accuracy of what `export --format onnx-int8` makes of a model, answered by ONNX Runtime."""
    with tempfile.TemporaryDirectory() as work:
        trained, exported = Path(work, "trained"), Path(work, "int8")
        export.export(str(kit.save(model, trained)), exported, "onnx-int8")
        logits = export.exported_logits(exported, list(kit.splits["test"]["text"]))
    return float((logits.argmax(-1) == kit.labels("test")).mean())


def student(kit: workshop.Prepared, rung: Rung, seed: int = 42):
    """The student of one rung, from the cache or trained (a minute or two on two cores)."""
    everything = [
        dataclasses.asdict(dataclasses.replace(rung, name="")),
        dataclasses.asdict(kit.recipe),
        seed,
        fitting.choose_precision("auto"),
        models.weights_fingerprint(kit.teacher),
        [__version__, version("torch"), version("transformers")],
    ]
    folder = data.cache_home() / "students" / hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:24]
    if (folder / "fit.json").is_file():
        with contextlib.suppress(UserError):  # a damaged one is made again
            return models.load_classifier(str(folder), None, "student").model.eval()
    _, fit = run_rung(rung, kit, seed)
    fitting.save_fit(folder, fit, kit.tokenizer)
    return fit.model


def all_labels(ids: list[str]) -> list[int]:
    """The labels that the default recipe withholds, by row id: only to ask what they would have been worth."""
    everything = data.movie_snippets(labelled=10**9).splits["train"]
    known = dict(zip(everything["id"], everything["label"], strict=True))
    return [known[row_id] for row_id in ids]


def pack(right: np.ndarray) -> str:
    """Booleans [rows] as hexadecimal text."""
    return np.packbits(right).tobytes().hex()


def unpack(text: str, rows: int = 1000) -> np.ndarray:
    """The inverse of `pack`: booleans [rows]."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:rows].astype(bool)


def estimate_minutes(rungs: list[Rung]) -> float:
    """A rough estimate from timing the backbone on 256 rows; a training step costs some 4 forward passes a layer."""
    tokenizer = models.load_tokenizer(MOVIE_SNIPPETS.teacher)
    rows = data.movie_snippets().splits["train"]
    few = data.tokenise(rows.select(range(256)), tokenizer, MOVIE_SNIPPETS.max_length)
    backbone = models.load_classifier(MOVIE_SNIPPETS.teacher, ["negative", "positive"]).model
    seconds = []
    for _ in range(3):  # the first time is slow: memory is fetched, kernels are chosen
        started = time.perf_counter()
        predict_logits(backbone, few, tokenizer, bf16=fitting.choose_precision("auto") == "bf16")
        seconds.append(time.perf_counter() - started)
    a_layer = min(seconds) / len(few) / models.num_layers(backbone)
    work = sum(rung.epochs * (rung.layers + (1.5 if rung.states != "none" else 0)) for rung in rungs)
    return 4 * a_layer * work * len(rows) / 60


def climb(groups: list[str], seeds: int, path: Path, first_seed: int = 42) -> pd.DataFrame:
    """Run every rung of the groups for every seed that `path` does not hold yet; gives back the whole file."""
    done = read(path) if path.is_file() else pd.DataFrame(columns=[*SCORES, "right"])
    kept = {(row.rung, row.seed) for row in done.itertuples()}
    rungs = [rung for group in groups for rung in GROUPS[group]]
    everything = {
        seed: [r for r in rungs if (r.name, seed) not in kept] for seed in range(first_seed, first_seed + seeds)
    }
    missing = [rung for rungs in everything.values() for rung in rungs]
    if missing:
        minutes = estimate_minutes(missing)
        log.info("%d students to train: roughly %.0f minutes on this machine", len(missing), minutes)
    for seed, rungs in everything.items():
        if not rungs:
            continue
        kit = workshop.prepare(seed)
        if ("teacher", seed) not in kept:
            done = add(done, teacher_row(kit, seed), path)
        for rung in rungs:
            row, _ = run_rung(rung, kit, seed)
            log.info("seed %d, %s: test accuracy %.1f %%", seed, rung.name, 100 * row["test_accuracy"])
            done = add(done, row, path)
    return done


def teacher_row(kit: workshop.Prepared, seed: int) -> dict:
    """The teacher's own row, for comparison."""
    right = {name: kit.logits(kit.teacher, name).argmax(-1) == kit.labels(name) for name in ("validation", "test")}
    return {
        "rung": "teacher",
        "group": "teacher",
        "seed": seed,
        "layers": models.num_layers(kit.teacher),
        "parameters": models.count_parameters(kit.teacher),
        "validation_accuracy": float(right["validation"].mean()),
        "test_accuracy": float(right["test"].mean()),
        "right": pack(right["test"]),
    }


def add(done: pd.DataFrame, row: dict, path: Path) -> pd.DataFrame:
    """Append a row and write the file anew, all or nothing."""
    frame = pd.DataFrame([row], columns=[*SCORES, "right"])
    done = frame if done.empty else pd.concat([done, frame], ignore_index=True)
    data.write_atomically(path, done.to_csv(index=False).encode())
    return done


def recorded() -> pd.DataFrame:
    """The ladder that came with the package: `climb` wrote it, two seeds side by side, each on a core of its own.

    Seconds are one core's (Intel Xeon with AMX); with both cores a rung takes about two thirds of them.
    """
    return read(Path(__file__).with_name("ladder.csv"))


def read(path: Path) -> pd.DataFrame:
    """The runs so far. Raises UserError where the file is not a ladder's."""
    try:
        runs = pd.read_csv(path, dtype={"right": str})
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    missing = [name for name in (*SCORES, "right") if name not in runs.columns]
    if missing:
        raise UserError(f"{path} is not a ladder's file: it has no column {', '.join(missing)}")
    return runs


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of test accuracy over seeds, a row a rung, in the order in which they were run."""
    grouped = runs.groupby("rung", sort=False)
    table = grouped["test_accuracy"].agg(["mean", "std", "count"])
    table["validation"] = grouped["validation_accuracy"].mean()
    table["int8"] = grouped["int8_accuracy"].mean()
    table["layers"] = grouped["layers"].first()
    return table


def paired_over_seeds(runs: pd.DataFrame, a: str, b: str) -> evaluation.Comparison:
    """Compare two rungs row by row over all seeds that both have.

    A row's value is its mean over seeds, so that rows, not runs, are what is drawn again in the bootstrap: three
    seeds on the same 1,000 rows are no 3,000 rows. McNemar's test needs single runs; its p is the median over seeds.
    """
    both = [runs[runs.rung == name].set_index("seed")["right"] for name in (a, b)]
    seeds = sorted(set(both[0].index) & set(both[1].index))
    if not seeds:
        raise UserError(f"no seed has both {a!r} and {b!r}: the ladder has {', '.join(runs.rung.unique())}")
    first, second = (np.array([unpack(column[seed]) for seed in seeds]) for column in both)
    per_row = first.mean(0) - second.mean(0)
    low, high = evaluation.bootstrap_interval(per_row)
    p = float(np.median([evaluation.mcnemar_p(x, y) for x, y in zip(first, second, strict=True)]))
    gained, lost = int((per_row > 0).sum()), int((per_row < 0).sum())
    verdict = "is better than" if low > 0 else "is worse than" if high < 0 else "shows no evidence of a difference from"
    text = (
        f"'{a}' {verdict} '{b}': {100 * per_row.mean():+.1f} points over {len(seeds)} seeds, "
        f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}, median McNemar p = {p:.2g}"
    )
    return evaluation.Comparison(len(per_row), float(per_row.mean()), (low, high), p, gained, lost, text)


def lines(runs: pd.DataFrame) -> list[str]:
    """The ladder as a table."""
    table = summary(runs)
    teacher = table["mean"].get("teacher", np.nan)
    body = [
        [
            name,
            f"{row.layers:.0f}",
            f"{100 * row['mean']:.1f}",
            f"{100 * row['std']:.1f}",
            f"{100 * row['mean'] / teacher:.1f}",
            "" if np.isnan(row.int8) else f"{100 * row.int8:.1f}",
            "" if np.isnan(row.int8) else f"{100 * row.int8 / teacher:.1f}",
            f"{row['count']:.0f}",
        ]
        for name, row in table.iterrows()
    ]
    header = ["", "layers", "mean", "std", "of teacher", "int8", "of teacher", "seeds"]
    title = "Test accuracy in %: mean and deviation over seeds, as a share of the teacher's, and of the int8 export."
    return ["", title, *report.text_table(header, body)]


def main(argv: list[str]) -> None:
    """`python -m kdhelpers ladder`. Raises UserError for options that make no sense."""
    parser = Parser(prog="python -m kdhelpers ladder", description=__doc__)
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), help=f"which rungs: {', '.join(GROUPS)}")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 42 on (default 3)")
    parser.add_argument("--output", default="runs/ladder.csv", help="the file that holds a row a run")
    parser.add_argument("--figure", help="also draw the ladder into this PNG file")
    options = parser.parse_args(argv)
    unknown = [group for group in options.groups if group not in GROUPS]
    if unknown or options.seeds < 1:
        raise UserError(f"--groups are {', '.join(GROUPS)} and --seeds at least 1, not {unknown or options.seeds}")
    runs = climb(options.groups, options.seeds, Path(options.output))
    print(*lines(runs), sep="\n")
    if options.figure:
        from kdhelpers import plots

        plots.save(plots.ladder(summary(runs), runs), Path(options.figure))
