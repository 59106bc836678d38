"""Every option of a run, once: default, help text and check; and the named recipes, which are options too.

The command line, `--help`, the SageMaker plan and the notebooks all read this file: `settings_from` turns named
values, text or not, into `RunSettings`, and refuses what cannot be meant.
"""

import contextlib
import dataclasses
import difflib
import enum
import functools
import json
import logging
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kdhelpers.errors import UserError

log = logging.getLogger(__name__)

HIDDEN_STATES = ("none", "pkd", "tinybert", "minilm")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
CONTROLS = ("none", "one", "two", "all")
TASKS = ("auto", "one-label", "several-labels", "number")
GLUE = {  # the columns of text in nyu-mll/glue, by configuration
    **dict.fromkeys(("sst2", "cola"), ("sentence", None)),
    **dict.fromkeys(("mrpc", "rte", "wnli", "stsb"), ("sentence1", "sentence2")),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
}
ROW_FILES = ("train", "validation", "test", "unlabelled")  # the options that name a file of rows
FILES = (*ROW_FILES, "teacher_answers")  # the options that name a file
# what a student without layers is trained with: all there is to learn is in its token vectors
STATIC: dict[str, typing.Any] = {"learning_rate": 1e-3, "train_embeddings": True}


# --- checks: each returns what a value must be, where it is not -------------------------------------------------


def _positive(value: float) -> str | None:
    return None if 0 < value < math.inf else "must be greater than 0 and finite"


def _not_negative(value: float) -> str | None:
    return None if 0 <= value < 4e9 else "must be 0 or more, and below 4,000,000,000"


def _share(value: float) -> str | None:
    return None if 0 <= value <= 1 else "must lie between 0 and 1"


def _below_one(value: float) -> str | None:
    return None if 0 <= value < 1 else "must be at least 0 and less than 1"


def _one_of(*names: str) -> Callable[[str], str | None]:
    return lambda value: None if value in names else f"must be one of {', '.join(names)}"


def _option(default: object, text: str, check: Callable | None = None, also: tuple[str, ...] = ()) -> typing.Any:
    """A field of RunSettings: its help text, its check, and other names by which it can be given."""
    return dataclasses.field(default=default, metadata={"help": text, "check": check, "also": also})


@dataclass(frozen=True)
class RunSettings:
    """One run, in full. Made by `settings_from` or `recipe`; `dataclasses.replace` makes another. Raises UserError.

    The help texts of `python -m kdhelpers distill --help` are those of these fields.
    """

    recipe: str = _option(
        "movie-snippets",
        "Named recipe: movie-snippets, movie-snippets-base (a large teacher), movie-ratings (a number), "
        "or sst2 (the article's).",
    )
    # rows
    train: str | None = _option(None, "Your training rows: .csv, .tsv, .jsonl, .parquet. No label or -100: unlabelled.")
    validation: str | None = _option(None, "Your validation rows (default: a tenth of the labelled training rows).")
    test: str | None = _option(None, "Your test rows (default: a tenth of the labelled training rows).")
    unlabelled: str | None = _option(
        None,
        "More text without labels, beside whatever rows: like --train, or .txt with a text a line, or other-snippets, "
        "13,485 texts that no recipe needs labels of.",
    )
    augment: int = _option(
        0,
        "Also teach on so many altered copies of every training text, parts of it or with words left out (default 0).",
        _not_negative,
    )
    text_column: str = _option("text", "Name of the text column.")
    text_pair_column: str | None = _option(None, "Name of the column with the second text, where a row is a pair.")
    label_column: str = _option("label", "Name of the label column.")
    label_separator: str | None = _option(None, "Separates the labels of a row, e.g. '|'; '|' alone: none of them.")
    task: str = _option(
        "auto",
        f"One of {', '.join(TASKS)}. auto: labels that are lists, or a --label-separator: several-labels; numbers, one "
        "at least with a fraction: number; all else, whole numbers too: one-label.",
        _one_of(*TASKS),
    )
    dataset_id: str | None = _option(
        None,
        "A data set on the Hugging Face Hub, e.g. nyu-mll/glue, or one of the package's own: movie-snippets, "
        "movie-snippets-labelled, movie-ratings.",
    )
    dataset_config: str | None = _option(None, "Its configuration, e.g. sst2.")
    drop_leaks: bool = _option(False, "Leave out rows whose text is in validation or test too (test rows stay).")
    rows: int | None = _option(None, "Train on so many rows, and score on as small a share: a rehearsal.", _positive)
    max_length: int = _option(128, "Longest input in tokens, [CLS] and [SEP] included.", _positive)
    # models
    teacher: str = _option(
        "minilm-l6-h384",
        "Hub id, folder or mpnet-base; a bare encoder is fine-tuned first. Given again: the mean of all is taught.",
        also=("teacher_id",),
    )
    ensemble: list = dataclasses.field(default_factory=list)  # the teachers after the first
    teacher_answers: str | None = _option(
        None, "Instead of a teacher, its answers: .csv, .jsonl or .parquet, a column a class, joined by id or text."
    )
    student: str | None = _option(
        None,
        "Hub id or folder of the student (default: cut from the teacher); static is --student-layers 0.",
        also=("student_id",),
    )
    student_layers: int | None = _option(
        None, "Keep so many layers of the teacher, or of --student; 0: the mean of its token vectors.", _not_negative
    )
    accept_teacher: bool = _option(False, "Distil even a teacher that is not shown to be better than guessing.")
    live_teacher: bool = _option(False, "Run the teacher on every batch, as in the article, without a cache.")
    # a bare teacher's fine-tuning
    teacher_epochs: float = _option(3, "Most passes of a bare teacher over the labels (it stops early).", _positive)
    teacher_learning_rate: float = _option(5e-5, "Peak learning rate of a bare teacher.", _positive)
    # the students' training
    epochs: float = _option(3, "Passes of the student over all rows.", _positive, also=("num_train_epochs",))
    batch_size: int = _option(32, "Rows a process and step.", _positive, also=("per_device_train_batch_size",))
    learning_rate: float = _option(1e-4, "Peak learning rate of the student.", _positive)
    warmup: float = _option(0.1, "Share of all steps over which the learning rate rises.", _share)
    alpha: float = _option(0.0, "Weight of the labels' loss, 0 to 1; the rest goes to the teacher.", _share)
    temperature: float = _option(2.0, "Divides both models' logits in the teacher's part of the loss.", _positive)
    hidden_states: str = _option(
        "none",
        f"Also imitate the inside of the live teacher: {', '.join(HIDDEN_STATES)}.",
        _one_of(*HIDDEN_STATES),
        also=("states",),
    )
    hidden_states_weight: float = _option(1.0, "Weight of that further loss.", _positive, also=("states_weight",))
    train_embeddings: bool = _option(False, "Train the word embeddings too (default: frozen).")
    dropout: float | None = _option(None, "Dropout of the student in training (default: the model's own).", _below_one)
    # the controls' training, where it is not the student's
    control_learning_rate: float | None = _option(
        None, "Peak learning rate of the controls (default: the recipe's, or --learning-rate).", _positive
    )
    control_dropout: float | None = _option(
        None, "Dropout of the controls (default: the recipe's, or --dropout).", _below_one
    )
    # the run
    seed: int = _option(42, "Seed of the first run.", _not_negative)
    seeds: int = _option(1, "How many runs, with seeds seed, seed + 1, ...; prints mean and spread.", _positive)
    controls: str = _option(
        "two",
        "What stands beside the student: none; one, the control that learns without a teacher; two, also the same with "
        "another seed, which shows what luck does; or all, also the student on the teacher's hard answers.",
        _one_of(*CONTROLS),
    )
    precision: str = _option("auto", f"One of {', '.join(PRECISIONS)}.", _one_of(*PRECISIONS))
    output: Path = _option(Path(), "Folder for the results (default: runs/ and the recipe's name).")
    overwrite: bool = _option(False, "Replace the run that the output folder holds, once the new one is done.")
    resume: bool = _option(False, "Go on with an interrupted run: its command, plus this.")
    checkpoints: Path | None = _option(None, "Folder for checkpoints that outlive the run.")
    trainer_options: dict = dataclasses.field(default_factory=dict)  # other TrainingArguments fields, both students'

    def __post_init__(self) -> None:
        for name in OPTIONS:
            check_option(name, getattr(self, name))
        if self.hidden_states != "none" and self.dropout:
            raise UserError("--hidden-states trains without dropout, whose noise it would imitate: leave --dropout out")
        if self.hidden_states != "none" and self.student_layers == 0:
            raise UserError("a static student has no hidden states that could imitate a teacher's: leave one out")
        if self.needs_live_teacher and (self.ensemble or self.teacher_answers or self.controls == "all"):
            raise UserError(
                "--live-teacher and --hidden-states need one teacher that reads every batch: "
                "leave out further teachers, --teacher-answers and --controls all"
            )

    @property
    def source(self) -> str:
        """Where the rows come from: "files", "hub" or "movie-snippets"."""
        return "files" if self.train else "hub" if self.dataset_id else "movie-snippets"

    @property
    def separator(self) -> str | None:
        """What separates the labels of a row in a file; None where a row has one."""
        return self.label_separator or ("|" if self.task == "several-labels" else None)

    @property
    def teachers(self) -> dict[str, str]:
        """The models that teach, by name: teacher, teacher2, ...; none where a file has their answers."""
        if self.teacher_answers:
            return {}
        return {"teacher": self.teacher} | {f"teacher{number}": name for number, name in enumerate(self.ensemble, 2)}

    @property
    def needs_live_teacher(self) -> bool:
        """True where the teacher reads every batch beside the student, and so with the student's tokenizer."""
        return self.live_teacher or self.hidden_states != "none"

    @property
    def name(self) -> str:
        """What the run is called: the recipe, or the reader's own data."""
        own = RECIPES[self.recipe].get("dataset_id")
        if self.source == "hub" and self.dataset_id != own:
            return str(self.dataset_id).replace("/", "--")
        return "files" if self.source == "files" else self.recipe


_MINILM = {
    "teacher": "minilm-l6-h384",
    "student_layers": 3,
    "teacher_epochs": 4,
    "teacher_learning_rate": 1e-4,
    "epochs": 3,
    "learning_rate": 3e-4,
    "dropout": 0.0,
}
# a learning rate and dropout of the controls' own, the best of four on validation rows: `ablation --groups settings`
_CONTROLS = {"control_learning_rate": 1e-4, "control_dropout": 0.1}
# what they were chosen for; where a run has another, its controls are trained as its student
_CHOSEN_FOR = {"train", "dataset_id", "teacher", "student", "student_layers", "epochs", "learning_rate", "dropout"}
RECIPES: dict[str, dict] = {
    "movie-snippets": _MINILM | _CONTROLS | {"temperature": 4.0},
    # a teacher of the article's size, which fine-tunes at a lower learning rate; its student has another vocabulary
    "movie-snippets-base": _MINILM
    | _CONTROLS
    | {
        "teacher": "mpnet-base",
        "student": "minilm-l6-h384",
        "teacher_epochs": 3,
        "teacher_learning_rate": 3e-5,
        "temperature": 2.0,
    },
    # the same rows and models, neutral rows included, with the raters' mean as the label
    "movie-ratings": _MINILM | {"dataset_id": "movie-ratings", "task": "number"},
    # the article's run, number by number: its teacher, student, data, epochs, batch size, learning rate, alpha and T
    "sst2": {
        "dataset_id": "nyu-mll/glue",
        "dataset_config": "sst2",
        "text_column": "sentence",
        "teacher": "textattack/bert-base-uncased-SST-2",
        "student": "distilbert/distilbert-base-uncased",
        "epochs": 3,
        "batch_size": 64,
        "learning_rate": 5e-5,
        "warmup": 0.0,
        "alpha": 0.5,
        "temperature": 3.0,
        "train_embeddings": True,
        "drop_leaks": True,
    },
}

OPTIONS = {field.name: field for field in dataclasses.fields(RunSettings) if "help" in field.metadata}
OTHER_NAMES = {other: name for name, field in OPTIONS.items() for other in field.metadata["also"]}
_KINDS = typing.get_type_hints(RunSettings) | {"no_control": bool}  # the name of --controls none up to 0.3
del _KINDS["trainer_options"]

# TrainingArguments fields that `distill` sets itself, or that break its stages, and the option to give instead
SET_BY_DISTILL = {
    "output_dir": "--output", "max_steps": "--epochs", "bf16": "--precision", "fp16": "--precision",
    "resume_from_checkpoint": "--resume", "warmup_steps": "--warmup", "warmup_ratio": "--warmup",
} | dict.fromkeys((
    "auto_find_batch_size", "bf16_full_eval", "disable_tqdm", "do_eval", "do_predict", "do_train", "eval_steps",
    "eval_strategy", "fp16_full_eval", "greater_is_better", "ignore_data_skip", "label_names",
    "load_best_model_at_end", "metric_for_best_model", "push_to_hub", "remove_unused_columns",
    "restore_callback_states_from_checkpoint", "save_only_model", "save_steps", "save_strategy", "save_total_limit",
    "torch_compile", "torch_compile_backend", "torch_compile_mode", "use_cpu",
))  # fmt: skip


def check_option(name: str, value: typing.Any) -> None:
    """Raise UserError unless `value` is one that the option `name` can have."""
    check = OPTIONS[name].metadata["check"]
    wrong = check(value) if check and value is not None else None
    if wrong:
        raise UserError(f"{name.replace('_', ' ')} {wrong}, not {value}")


def nearest(name: str, known: typing.Iterable[str]) -> str | None:
    """The known name that a misspelt one is closest to; None where none is close."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return found[0] if found else None


def dashed(name: str) -> str:
    """An option's name as the command line writes it: batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


# --- text to values -----------------------------------------------------------------------------------------------


def _number(value: object) -> float:
    number = float(str(value))  # of True it is a ValueError
    if math.isnan(number):
        raise ValueError
    return number


def _whole(value: object) -> int:
    if _number(value) != int(_number(value)):
        raise ValueError
    return int(_number(value))


def _yes_or_no(value: object) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words[str(value).lower()]


def _json(value: object) -> object:
    if isinstance(value, str) and not value.lstrip().startswith(("{", "[")):
        raise ValueError
    return json.loads(value) if isinstance(value, str) else value


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        raise ValueError
    return str(value)


# in the order in which they are tried, where a field may be of several types
_READERS: dict[type, tuple[Callable[[object], object], str]] = {
    bool: (_yes_or_no, "true or false"),
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    Path: (lambda value: Path(str(value)).expanduser(), "a folder"),
    dict: (_json, 'JSON like {"name": 1}'),
    list: (_json, 'JSON like ["name"]'),
    str: (_text, "text"),
}


def read_value(name: str, value: object, kind: object) -> object:
    """Turn text into a value of a field's type; other values must be of that type. Raises UserError.

    >>> read_value("epochs", "3", float | None)
    3.0
    """
    parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    types_of = [typing.get_origin(part) or part for part in parts if part is not types.NoneType]
    for part in types_of:
        if isinstance(part, type) and issubclass(part, enum.Enum) and value not in [each.value for each in part]:
            raise UserError(f"{dashed(name)} must be one of {', '.join(each.value for each in part)}, not {value!r}")
    kinds = [part for part in _READERS if part in types_of] or [str]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        kinds = [part for part in kinds if part in (dict, list)] or kinds
    for part in kinds:
        with contextlib.suppress(ValueError, OverflowError, KeyError):
            return _READERS[part][0](value)
    raise UserError(f"{dashed(name)} must be {' or '.join(_READERS[part][1] for part in kinds)}, not {value!r}")


@functools.cache
def trainer_kinds() -> dict[str, object]:
    """The fields of transformers' TrainingArguments that a reader may give, with their types."""
    from transformers import TrainingArguments

    hints = typing.get_type_hints(TrainingArguments)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(TrainingArguments)
        if field.init and field.name not in OPTIONS
    }


def recipe(name: str = "movie-snippets", **changes: object) -> RunSettings:
    """A named recipe with `changes` to its options; for notebooks. Raises UserError.

    >>> recipe("movie-snippets", temperature=2).temperature
    2.0
    """
    return settings_from({"recipe": name, **changes})


def settings_from(options: Mapping[str, object]) -> RunSettings:
    """Options by name (as the command line or a job's hyperparameters give them) to settings. Raises UserError.

    Names may be written with - or _; values may be text. An unknown name is answered with the nearest known one.
    Options left out are the recipe's, then the defaults of `RunSettings`.
    """
    given: dict[str, typing.Any] = {}
    for spelt, value in options.items():
        name = spelt.replace("-", "_")
        name = OTHER_NAMES.get(name, name)
        if name in given:
            raise UserError(f"{dashed(name)} is given twice")
        if name in SET_BY_DISTILL and name not in OPTIONS:
            instead = SET_BY_DISTILL[name]
            raise UserError(f"{name} is set by distill itself: " + (f"give {instead}" if instead else "leave it out"))
        if name not in _KINDS and name not in trainer_kinds():
            near = nearest(name, OPTIONS) or nearest(name, OTHER_NAMES) or nearest(name, trainer_kinds())
            hint = f"did you mean {dashed(near)}?" if near else "see python -m kdhelpers distill --help"
            raise UserError(f"unknown argument {dashed(name)}: {hint}")
        if name == "teacher":
            value, *given["ensemble"] = _several(value)
        given[name] = None if value is None else read_value(name, value, (_KINDS | trainer_kinds())[name])
    if given.pop("no_control", None):
        log.info("note: --no-control is now --controls none")
        given["controls"] = "none"
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("gradient_accumulation_steps", 1) < 1:
        raise UserError("--gradient-accumulation-steps must be 1 or more")
    if given.get("student") == "static":
        if given.pop("student_layers", 0):
            raise UserError("--student static has no layers: leave --student-layers out")
        del given["student"]
        given["student_layers"] = 0
    trainer = {name: value for name, value in given.items() if name not in _KINDS}
    own = {name: value for name, value in given.items() if name in _KINDS}
    settings = RunSettings(**_defaults_for(own) | own, trainer_options=trainer)
    return settings if "output" in own else dataclasses.replace(settings, output=Path("runs") / settings.name)


def _several(value: object) -> list:
    """One teacher or several: a list, or its JSON, as the command line makes of an option that is given again."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = read_value("teacher", value, list)
    return list(value) if isinstance(value, list | tuple) and value else [value]


def _defaults_for(given: Mapping[str, object]) -> dict[str, typing.Any]:
    """The recipe's options, less what the given ones replace together. Raises UserError for clashes."""
    name = str(given.get("recipe", "movie-snippets"))
    if name not in RECIPES:
        near = nearest(name, RECIPES)
        raise UserError(f"no recipe {name!r}: " + (f"did you mean {near}?" if near else f"one of {', '.join(RECIPES)}"))
    values = dict(RECIPES[name])
    if "teacher" in given and "teacher_answers" in given:
        raise UserError("give --teacher or --teacher-answers, not both")
    if "train" in given and "dataset_id" in given:
        raise UserError("give --train or --dataset-id, not both")
    for option in ("validation", "test"):
        if option in given and "train" not in given:
            raise UserError(f"{dashed(option)} goes with --train: a recipe brings its own rows")
    if "train" in given:
        values = {key: value for key, value in values.items() if not key.startswith("dataset_")}
        # training stops early where 8 epochs are many, for rows that we do not know
        values |= {"text_column": "text", "label_column": "label", "task": "auto", "teacher_epochs": 8}
    if "dataset_id" in given and given["dataset_id"] != values.get("dataset_id"):
        values.pop("dataset_config", None)
        values.pop("task", None)
    if "dataset_config" in given and "dataset_id" not in {**values, **given}:
        raise UserError("--dataset-config goes with --dataset-id")
    wanted = values | dict(given)
    if (
        wanted.get("dataset_id") == "nyu-mll/glue"
        and wanted.get("dataset_config") in GLUE
        and "text_column" not in given
    ):
        values["text_column"], values["text_pair_column"] = GLUE[wanted["dataset_config"]]
    if "student_layers" in given and "student_layers" not in values:  # of the teacher, unless the recipe says whose
        values.pop("student", None)
    if "student" in given:
        values.pop("student_layers", None)
    if given.get("student_layers") == 0:
        values |= STATIC
    if _is_another_control(name, given):
        values = {key: value for key, value in values.items() if key not in _CONTROLS}
    return values | {"recipe": name}


def _is_another_control(name: str, given: Mapping[str, object]) -> bool:
    """Whether the options make another control than the one that the recipe has settings for."""
    named = {"teacher"} if "student" in RECIPES[name] else set()  # the network is the student's, whoever teaches it
    return any(given[option] != RECIPES[name].get(option) for option in _CHOSEN_FOR & set(given) - named)
