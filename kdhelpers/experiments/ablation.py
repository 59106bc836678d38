"""Many students over several seeds: which part of distillation helps, how small, with how much text.

Every run is one row of a CSV file, written as soon as it is done: an interrupted ablation goes on where it stopped.
"""

import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel

from kdhelpers import __version__, data, deployment, distillation, evaluation, models, storage
from kdhelpers.distillation import Prepared
from kdhelpers.errors import UserError
from kdhelpers.experiments.projection import train_with_projection
from kdhelpers.settings import RECIPES, STATIC, recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """One way of making a student. Variants differ from one another in as little as possible."""

    name: str
    start: str = "teacher"  # whose layers it is cut from: "teacher" or "backbone"
    labels: str = "2,000"  # whose labels it sees: "2,000" or "all" (the withheld ones too)
    soft: bool = True  # the teacher's logits
    hard: bool = False  # the teacher's likeliest class as every text's label, in place of its logits
    texts: int | None = None  # unlabelled texts beside the labelled rows; None: all
    layers: int | None = 3  # 0: a static student; None: TF-IDF and logistic regression
    hidden_states: str = "none"
    epochs: float = 3  # passes over the largest set of rows: every variant takes as many steps as that makes
    recipe: str = "movie-snippets"  # whose teacher
    embeddings: bool = False  # the word embeddings are trained, too
    prepared: dict = field(default_factory=dict)  # options of its rows and its teacher that differ from the recipe's
    settings: dict = field(default_factory=dict)  # options of its training that differ from the recipe's
    teacher: str = ""  # the row of its teacher, where that is not the recipe's: another one, or trained elsewhere
    assistant: str = ""  # the variant whose student answers in its teacher's place (Mirzadeh et al. 2020)
    projection: float = 0.0  # weight of the teacher's hidden state, learnt through a projection


SIZES = {"TF-IDF": None, "static": 0, "2 layers": 2, "3 layers": 3, "6 layers": 6}
SAME_AS = {"3 layers, labels": "labels only", "6 layers, labels": "teacher"}  # recorded under another name
MPNET = RECIPES["movie-snippets-base"] | {"student": None}  # cut from that teacher
AIMED: dict[str, Any] = {"start": "backbone", "recipe": "movie-snippets-base", "teacher": "MPNet teacher of aims"}
TAUGHT_BY = {"labels": "movie-snippets", "MiniLM": "movie-snippets", "MPNet": "movie-snippets-base"}

GROUPS = {
    "helps": (
        Variant("labels only", start="backbone", soft=False),
        Variant("+ teacher's layers", soft=False),
        Variant("+ logits on labelled rows", texts=0),
        Variant("+ logits on 2,000 texts", texts=2000),
        Variant("+ hard answers on all texts", hard=True, soft=False),
        Variant("+ logits on all texts"),
        Variant("all 8,070 labels, no teacher", start="backbone", labels="all", soft=False),
        Variant("all 8,070 labels + logits", labels="all"),
    ),
    "sizes": (Variant("1 layer", layers=1), Variant("2 layers", layers=2), Variant("4 layers", layers=4)),
    "hidden": tuple(Variant(f"+ {kind}", hidden_states=kind.lower()) for kind in ("PKD", "TinyBERT", "MiniLM")),
    "long": tuple(Variant(f"{n} layer{'s' * (n > 1)}, 8 epochs", layers=n, epochs=8) for n in (3, 2, 1)),
    # frozen word embeddings, the recipe's, beside trained ones; all of them on one machine
    "embeddings": tuple(
        Variant(f"{what}, embeddings {how}", start=start, soft=soft, embeddings=how == "trained")
        for what, start, soft in (("logits", "teacher", True), ("labels", "backbone", False))
        for how in ("frozen", "trained")
    ),
    # every student from MiniLM's backbone, whoever teaches it
    "small": tuple(
        Variant(f"{size}, {who}", start="backbone", soft=who != "labels", layers=layers, recipe=name)
        for who, name in TAUGHT_BY.items()
        for size, layers in SIZES.items()
        if f"{size}, {who}" not in SAME_AS
    ),
    # the large teacher's answers for altered copies, too; and for its own texts alone, for about as many steps
    "text": (
        *(
            Variant(f"{size}, MPNet, altered copies", start="backbone", layers=SIZES[size],
                    recipe="movie-snippets-base", prepared={"augment": 2})
            for size in ("TF-IDF", "3 layers", "6 layers")
        ),
        Variant("3 layers, MPNet, 8 epochs", start="backbone", epochs=8, recipe="movie-snippets-base"),
    ),
    # the recipe's temperature beside a lower one
    "temperature": tuple(
        Variant(f"logits, T {T}", settings={"temperature": T}, teacher="teacher of temperature") for T in (4, 2)
    ),
    # students of the large teacher's own width, cut from its layers, as DistilBERT's were
    "width": tuple(
        Variant(f"6 layers of MPNet, {who}", start=start, soft=who != "labels", layers=6, prepared=MPNET,
                settings={"learning_rate": 1e-4}, teacher="MPNet teacher of width")
        for who, start in (("labels", "backbone"), ("MPNet", "teacher"))
    ),
    # as many trials for the control as for the student: what each is best with on validation rows
    "settings": (
        *(
            Variant(f"logits, learning rate {rate:g}, T {T}", settings={"learning_rate": rate, "temperature": T},
                    teacher="teacher of settings")
            for rate in (3e-4, 1e-4) for T in (4, 2)
        ),
        *(
            Variant(f"labels, learning rate {rate:g}, dropout {dropout:g}", start="backbone", soft=False,
                    settings={"learning_rate": rate, "dropout": dropout}, teacher="teacher of settings")
            for rate in (3e-4, 1e-4) for dropout in (0, 0.1)
        ),
    ),
    # more teachers, or one that has seen more labels
    "teachers": (
        Variant("logits of 3 teachers", prepared={"teacher": ["minilm-l6-h384"] * 3}, teacher="3 teachers"),
        Variant("all 8,070 labels + logits of a teacher with all", prepared={"dataset_id": "movie-snippets-labelled"},
                settings={"alpha": 0.5}, teacher="teacher, all labels"),
    ),
    # what else might bring a small student nearer to the large teacher, beside the plain one, all on one machine
    "aims": (
        Variant("3 layers, MPNet once more", **AIMED),
        Variant("3 layers, MPNet, projection", projection=1.0, **AIMED),
        Variant("3 layers, assistant", assistant="6 layers, MPNet", **AIMED),
        *(
            Variant(f"{size}, MPNet, other snippets", layers=SIZES[size], prepared={"unlabelled": "other-snippets"},
                    **AIMED)
            for size in ("TF-IDF", "static", "3 layers")
        ),
    ),
}  # fmt: skip
ASKED_FOR = ("embeddings", "small", "text", "temperature", "width", "settings", "teachers", "aims")
TEACHERS = {"movie-snippets": ("teacher", "teacher"), "movie-snippets-base": ("MPNet teacher", "small")}  # row, group
MAIN_GROUPS = [name for name in GROUPS if name not in ASKED_FOR]
OF_THE_NOTEBOOKS = ("labels only", "+ logits on all texts", "2 layers", "1 layer", "static, MiniLM")
COLUMNS = ["variant", "group", "seed", "layers", "parameters", "steps", "validation_accuracy", "test_accuracy",
           "int8_accuracy", "seconds", "right"]  # fmt: skip


def variant(name: str) -> Variant:
    """The variant of that name. Raises UserError where there is none.

    >>> variant("2 layers").layers
    2
    """
    known = {one.name: one for group in GROUPS.values() for one in group}
    if name not in known:
        raise UserError(f"no variant {name!r}: there are {', '.join(known)}")
    return known[name]


def rows_for(variant: Variant, kit: Prepared) -> Dataset:
    """The training rows that a variant sees, with the labels that it sees. Raises UserError for labels we lack."""
    rows = kit.splits["train"]
    if variant.hard:
        return distillation.hard_answers(rows)
    if variant.labels == "all":
        if kit.settings.source != "movie-snippets":
            raise UserError(f"{variant.name!r} needs the label of every row: only those of movie-snippets are known")
        everything = data.movie_snippets(labelled=10**9).splits["train"]
        known = dict(zip(everything["id"], everything["label"], strict=True))
        return rows.remove_columns("labels").add_column("labels", [known[row_id] for row_id in rows["id"]])
    if variant.soft and variant.texts is None:
        return rows
    has_label = np.array(rows["labels"]) != data.UNLABELLED
    texts = np.flatnonzero(~has_label)[: variant.texts if variant.soft else 0]
    return rows.select([*np.flatnonzero(has_label), *texts])


def begin(variant: Variant, kit: Prepared) -> tuple[Prepared, PreTrainedModel, dict]:
    """What `train_student` takes: the kit with the variant's settings, the untrained student, rows and the rest."""
    kit = with_assistant(kit, variant)
    alpha = kit.settings.alpha if variant.soft else 1.0
    if variant.soft and variant.labels == "all":
        alpha = 0.5  # with every label known both voices are heard
    own: dict[str, Any] = {"alpha": alpha, "student_layers": variant.layers, "epochs": variant.epochs}
    own |= {"hidden_states": variant.hidden_states, "train_embeddings": variant.embeddings}
    own |= (STATIC if variant.layers == 0 else {}) | variant.settings
    settings = dataclasses.replace(kit.settings, **own)
    run = dataclasses.replace(kit, settings=settings)
    model = distillation.build_control(run) if variant.start == "backbone" else distillation.build_student(run)
    steps = distillation.steps_for(run.settings, run.machine, len(run.splits["train"]))
    live = run.teacher if variant.hidden_states != "none" else None
    return run, model, {"rows": rows_for(variant, kit), "name": variant.name, "steps": steps, "teacher": live}


def student(kit: Prepared, variant: Variant, seed: int | None = None) -> PreTrainedModel:
    """The student of one variant, from the cache or trained (a minute or two on two cores); `seed`: the kit's.

    Either way the settings of its training are printed.

    The cache's key is all that the training is given: the untrained weights, the teacher's, every row with its label
    and logits, the settings, the machine's precision and processes, the versions.

    >>> student(kd.prepare(), variant("2 layers"))  # doctest: +SKIP
    """
    if seed is not None:
        kit = dataclasses.replace(kit, settings=dataclasses.replace(kit.settings, seed=seed))
    run, model, how = begin(variant, kit)
    distillation.print_settings(variant.name, run.settings, how["steps"], len(how["rows"]))
    tables = [table for table in (how["rows"], kit.splits.get("validation")) if table is not None]
    columns = ("input_ids", "labels", data.TEACHER_LOGITS)
    # what else a run would train makes no other student
    alone = dataclasses.replace(run.settings, controls="one", control_learning_rate=None, control_dropout=None)
    key = storage.fingerprint(
        [models.weights_fingerprint(weights) for weights in (model, kit.teacher)],
        [[list(table[name]) for name in columns if name in table.column_names] for table in tables],
        [storage.computed_by(dataclasses.asdict(alone)), how["steps"], kit.machine.precision],
        [kit.machine.processes, __version__, version("torch"), version("transformers")],
        *([variant.projection] if variant.projection else []),
    )
    folder = storage.cache_home() / "students" / key
    fit = distillation.load_fit(folder)
    if fit is None:
        fit = train(variant, run, model, how)
        distillation.save_fit(folder, fit, kit.tokenizer)
    return fit.model


def train(variant: Variant, run: Prepared, model: PreTrainedModel, how: dict) -> distillation.Fit:
    """Train what `begin` returns."""
    if variant.projection:
        return train_with_projection(run, model, variant.projection, **how)
    return distillation.train_student(run, model, **how)


def with_assistant(kit: Prepared, taught: Variant) -> Prepared:
    """The kit with the answers of the variant's assistant as its column; as it is where the variant has none."""
    if not taught.assistant:
        return kit
    one = variant(taught.assistant)
    own = distillation.prepare(recipe(one.recipe, seed=kit.settings.seed, **one.prepared))
    answers = models.predict_logits(student(own, one), own.splits["train"], own.tokenizer, own.machine)
    column = distillation.with_column(kit.splits["train"], answers)
    return dataclasses.replace(kit, splits=DatasetDict(kit.splits | {"train": column}))


def run_ablation(groups: list[str], seeds: int, path: Path, first_seed: int = 42) -> pd.DataFrame:
    """Run every variant of the groups for every seed that the file does not hold yet; returns the whole file."""
    runs = read_runs(path) if path.is_file() else pd.DataFrame(columns=COLUMNS)
    kept = set(zip(runs["variant"], runs["seed"], strict=True))
    wanted = [(seed, one) for seed in range(first_seed, first_seed + seeds) for name in groups for one in GROUPS[name]]
    missing = [(seed, one) for seed, one in wanted if (one.name, seed) not in kept]
    log.info("%d of %d students are to be trained", len(missing), len(wanted))
    kit, of = None, None
    for done, (seed, one) in enumerate(missing):
        if kit is None or of != (seed, one.recipe, one.prepared):
            of = seed, one.recipe, one.prepared
            kit = distillation.prepare(recipe(one.recipe, seed=seed, **one.prepared))
            teacher, group = teacher_row(one)
            if (teacher, seed) not in kept:
                runs = add_row(runs, scored_teacher(teacher, group, kit), path)
                kept.add((teacher, seed))
        started = time.perf_counter()
        row = run_variant(one, kit)
        runs = add_row(runs, row, path)
        log.info("seed %d, %s: test accuracy %.1f %%", seed, one.name, 100 * row["test_accuracy"])
        if done == 0 and len(missing) > 1:
            seconds = time.perf_counter() - started
            rest = seconds * sum(work(other) for _, other in missing[1:]) / work(one)
            log.info("that took %.0f s: about %.0f minutes for the other %d", seconds, rest / 60, len(missing) - 1)
    return runs


def teacher_row(variant: Variant) -> tuple[str, str]:
    """Name and group of the row of a variant's teacher.

    >>> teacher_row(variant("logits, T 2"))
    ('teacher of temperature', 'temperature')
    """
    return (variant.teacher, group_of(variant)) if variant.teacher else TEACHERS[variant.recipe]


def scored_teacher(name: str, group: str, kit: Prepared) -> dict:
    """The row of a kit's teacher, or of several together."""
    answers = kit.answers
    if answers is None:
        return row_for(name, group, kit, kit.teacher)
    return scored({"variant": name, "group": group}, kit, answers.__getitem__)


def work(variant: Variant) -> float:
    """What a variant's training takes, in passes through a layer: to guess at its time."""
    return variant.epochs * (variant.layers or 0.5)


def run_variant(variant: Variant, kit: Prepared) -> dict:
    """Train one student as the variant says; returns its row for the CSV file."""
    if variant.layers is None:
        return baseline_row(variant, kit)
    run, model, how = begin(variant, kit)
    fit = train(variant, run, model, how)
    group = group_of(variant)
    took = {"steps": how["steps"], "seconds": round(fit.seconds, 1)}
    if group in ("long", "small", "text"):  # what one would deploy
        took["int8_accuracy"] = int8_accuracy(fit.model, kit)
    return row_for(variant.name, group, kit, fit.model) | took


def group_of(variant: Variant) -> str:
    """The group that a variant belongs to; empty for one of the reader's own."""
    return next((name for name, group in GROUPS.items() if variant in group), "")


def row_for(name: str, group: str, kit: Prepared, model: PreTrainedModel) -> dict:
    """A model's row: `right` are the test rows that it gets right, as hexadecimal bits."""
    size = {"layers": models.num_layers(model), "parameters": models.count_parameters(model)}
    return scored({"variant": name, "group": group} | size, kit, lambda split: kit.logits(model, split))


def baseline_row(variant: Variant, kit: Prepared) -> dict:
    """The row of TF-IDF and logistic regression, on the variant's rows and labels or on the teacher's answers."""
    model = distillation.baseline_on(kit, rows_for(variant, kit), variant.soft)
    if model is None:
        raise UserError("no training row holds a word: there is nothing to count")
    row = {"variant": variant.name, "group": group_of(variant), "parameters": models.baseline_parameters(model)}
    return scored(row, kit, lambda split: models.baseline_logits(model, data.texts_of(kit.splits[split])))


def scored(row: dict, kit: Prepared, logits: Callable[[str], np.ndarray]) -> dict:
    """A row with what a model's logits on validation and test are worth."""
    right = {split: logits(split).argmax(-1) == kit.labels(split) for split in ("validation", "test")}
    return row | {
        "seed": kit.settings.seed,
        "validation_accuracy": float(right["validation"].mean()),
        "test_accuracy": float(right["test"].mean()),
        "right": np.packbits(right["test"]).tobytes().hex(),
    }


def int8_accuracy(model: PreTrainedModel, kit: Prepared) -> float:
    """Test accuracy of what `export --format onnx-int8` makes of a model, answered by ONNX Runtime."""
    with tempfile.TemporaryDirectory() as work:
        exported = Path(work, "int8")
        deployment.export(str(kit.save(model, Path(work, "trained"))), exported, "onnx-int8", accept_changes=1.0)
        logits = deployment.exported_logits(exported, list(kit.splits["test"]["text"]))
    return float((logits.argmax(-1) == kit.labels("test")).mean())


def add_row(runs: pd.DataFrame, row: dict, path: Path) -> pd.DataFrame:
    """Append a row and write the file anew, all or nothing."""
    frame = pd.DataFrame([row], columns=COLUMNS)
    runs = frame if runs.empty else pd.concat([runs, frame], ignore_index=True)
    storage.write_file(path, runs.to_csv(index=False).encode())
    return runs


def recorded() -> pd.DataFrame:
    """The ablation that came with the package: a row a run, three seeds; seconds are those of one core."""
    return read_runs(Path(__file__).with_name("ablation.csv"))


def read_runs(path: Path) -> pd.DataFrame:
    """The runs that a file holds. Raises UserError where it is not an ablation's."""
    try:
        runs = pd.read_csv(path, dtype={"right": str}).rename(columns={"rung": "variant"})  # its name up to 0.3
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    missing = [name for name in COLUMNS if name not in runs.columns]
    if missing:
        raise UserError(f"{path} is not an ablation's file: it has no column {', '.join(missing)}")
    return runs


def right_rows(runs: pd.DataFrame, name: str, rows: int = 1000) -> dict[int, np.ndarray]:
    """Which test rows a variant gets right: booleans [rows] by seed."""
    mine = runs[runs["variant"] == name]
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:rows] for text in mine["right"]]
    return {int(seed): right.astype(bool) for seed, right in zip(mine["seed"], bits, strict=True)}


def paired_over_seeds(runs: pd.DataFrame, a: str, b: str) -> evaluation.SeedsComparison:
    """Compare two variants row by row over the seeds that both have (see `evaluation.paired_over_seeds`).

    >>> round(paired_over_seeds(recorded(), "+ logits on all texts", "labels only").difference, 4)
    0.0403
    """
    return evaluation.paired_over_seeds(right_rows(runs, a), right_rows(runs, b), f"'{a}'", f"'{b}'")


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy over seeds, in fractions: a row a variant, in the order in which they were run."""
    groups = runs.groupby("variant", sort=False)
    means = groups[["validation_accuracy", "int8_accuracy"]].mean().set_axis(["validation", "int8"], axis=1)
    layers = groups["layers"].first().astype("Int64")  # a bag of words has none
    return groups["test_accuracy"].agg(["mean", "std", "count"]).join(means).join(layers)


def of_main_groups(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the groups that the ablation's table and figure show, and their teachers'."""
    return runs[runs["group"].isin(["teacher", *MAIN_GROUPS])]


def main_table(runs: pd.DataFrame) -> str:
    """The main groups' variants as text, in percent: mean and spread over seeds, share of the teacher, layers."""
    table = summary(of_main_groups(runs))
    percent = 100 * table[["mean", "std", "int8"]]
    percent["of teacher"] = 100 * table["mean"] / table["mean"].get("teacher", np.nan)
    shown = percent.round(1).join(table[["layers", "count"]]).rename_axis(None).to_string(na_rep="")
    return f"Test accuracy in %, over seeds; int8: of the exported student.\n{shown}"


def sizes(runs: pd.DataFrame) -> pd.DataFrame:
    """How small, and by whom taught: test accuracy over seeds, in fractions; a row a size, who taught it across."""
    means = summary(runs)["mean"]
    names = {who: {size: f"{size}, {who}" for size in SIZES} for who in (*TAUGHT_BY, "MPNet, altered copies")}
    rows = {who: {size: means.get(SAME_AS.get(name, name)) for size, name in row.items()} for who, row in names.items()}
    return pd.DataFrame(rows, index=list(SIZES), dtype=float).dropna(axis=1, how="all")
