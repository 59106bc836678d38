"""The options of `distill`: one dataclass, parsed strictly."""

import argparse
import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

from transformers import HfArgumentParser
from transformers.hf_argparser import HfArg, string_to_bool

from kdhelpers import report, train
from kdhelpers.console import Parser, unknown_argument
from kdhelpers.errors import UserError
from kdhelpers.fitting import PRECISIONS, end_processes
from kdhelpers.recipes import RECIPES, Recipe
from kdhelpers.states import check_states
from kdhelpers.train import Files, RunSettings
from kdhelpers.trainer import DistillationTrainingArguments


@dataclass
class DistillArguments:
    """What `python -m kdhelpers distill` takes; an option left out means the recipe's value."""

    recipe: str = HfArg(default="movie-snippets", help=f"Named recipe: {', '.join(RECIPES)}.")
    train: str | None = HfArg(
        default=None, help="Your training rows: .csv, .tsv, .jsonl or .parquet. Empty label or -100: unlabelled."
    )
    validation: str | None = HfArg(
        default=None, help="Your validation rows; left out: a tenth of the labelled training rows."
    )
    test: str | None = HfArg(default=None, help="Your test rows; left out: a tenth of the labelled training rows.")
    unlabelled: str | None = HfArg(
        default=None, help="More text without labels: like --train, or .txt with a text a line."
    )
    text_column: str | None = HfArg(default=None, help="Name of the text column (default: text).")
    label_column: str | None = HfArg(default=None, help="Name of the label column (default: label).")
    dataset_id: str | None = HfArg(default=None, help="A data set on the Hugging Face Hub, e.g. nyu-mll/glue.")
    dataset_config: str | None = HfArg(default=None, help="Its configuration, e.g. sst2.")
    teacher: str | None = HfArg(
        default=None,
        aliases=["--teacher_id", "--teacher-id"],
        help="Hub id or folder; a bare encoder is fine-tuned first.",
    )
    student: str | None = HfArg(
        default=None, aliases=["--student_id", "--student-id"], help="Hub id or folder of the student."
    )
    student_layers: int | None = HfArg(default=None, help="Cut the student out of the teacher: keep this many layers.")
    epochs: float | None = HfArg(
        default=None, aliases=["--num_train_epochs"], help="Passes of the student over all rows."
    )
    batch_size: int | None = HfArg(
        default=None, aliases=["--per_device_train_batch_size"], help="Rows per process and step."
    )
    learning_rate: float | None = HfArg(default=None, help="Peak learning rate of student and control.")
    alpha: float | None = HfArg(default=None, help="Weight of the labels' loss, 0 to 1; the rest goes to the teacher.")
    temperature: float | None = HfArg(default=None, help="Softens the logits; greater than 0.")
    teacher_epochs: float | None = HfArg(
        default=None, help="Most passes of a bare teacher over the labelled rows (it stops early)."
    )
    teacher_learning_rate: float | None = HfArg(default=None, help="Peak learning rate of a bare teacher.")
    max_length: int | None = HfArg(default=None, help="Longest input in word pieces.")
    train_embeddings: bool | None = HfArg(default=None, help="Train the word embeddings too (default: frozen).")
    dropout: float | None = HfArg(
        default=None, help="Dropout in training, of control and student; a teacher keeps its own."
    )
    drop_leaks: bool | None = HfArg(default=None, help="Leave out training rows that stand in validation or test.")
    rows: int | None = HfArg(
        default=None, help="Train on this many rows only, and score on as small a share: to rehearse a run."
    )
    seed: int = HfArg(default=42, help="Seed of the first run.")
    seeds: int = HfArg(default=1, help="How many runs, with seeds seed, seed + 1, ...; prints mean and spread.")
    live_teacher: bool = HfArg(
        default=False, help="Run the teacher on every batch, as in the article, without a cache."
    )
    no_control: bool = HfArg(default=False, help="Leave out the control that learns without a teacher.")
    precision: str = HfArg(default="auto", help=f"One of {', '.join(PRECISIONS)}.")
    output: str | None = HfArg(default=None, help="Folder for the results (default: runs/<recipe>).")
    overwrite: bool = HfArg(
        default=False, help="Replace the run that the output folder holds, once the new one is done."
    )
    resume: bool = HfArg(default=False, help="Go on with an interrupted run: its command, plus this.")
    checkpoints: str | None = HfArg(default=None, help="Folder for checkpoints that outlive the run.")


class _Parser(Parser, HfArgumentParser):
    """HfArgumentParser, as strict as every other parser here."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for action in self._actions:
            if action.type is string_to_bool:  # "--drop-leaks" alone means true, also where the default is the recipe's
                action.nargs, action.const = "?", True


def distill_parser() -> HfArgumentParser:
    """The parser behind `distill --help`."""
    return _Parser(
        DistillArguments,
        prog="python -m kdhelpers distill",
        description="Distil a teacher into a small student, beside a control that has no teacher, and judge both.",
        epilog="Every other field of transformers.TrainingArguments can be given by its own name, "
        "e.g. --weight_decay 0.01; it applies to student and control. The student alone takes --states pkd, tinybert "
        "or minilm (a loss on the live teacher's hidden states or relations too) and --states_weight.",
        formatter_class=argparse.HelpFormatter,
    )


def _trainer_options(remaining: list[str]) -> dict:
    """Parse what `distill` itself does not know as TrainingArguments fields. Raises UserError for the rest."""
    parser = _Parser(DistillationTrainingArguments, prog="python -m kdhelpers distill", add_help=False)
    for action in parser._actions:
        action.default, action.required = argparse.SUPPRESS, False
    options, unknown = parser.parse_known_args(remaining)
    if unknown:
        raise UserError(unknown_argument(unknown[0], distill_parser(), parser))
    check_states(getattr(options, "states", "none"))
    return vars(options)


def parse_distill(argv: list[str]) -> tuple[DistillArguments, dict]:
    """Command line to (DistillArguments, TrainingArguments fields). Raises UserError."""
    arguments, remaining = distill_parser().parse_args_into_dataclasses(argv, return_remaining_strings=True)
    return arguments, _trainer_options(remaining)


def choose_recipe(arguments: DistillArguments) -> Recipe:
    """The named recipe with the options that were given put into it. Raises UserError."""
    if arguments.recipe not in RECIPES:
        near = difflib.get_close_matches(arguments.recipe, RECIPES, n=1)
        raise UserError(
            f"no recipe {arguments.recipe!r}"
            + (f": did you mean {near[0]}?" if near else f"; there are: {', '.join(RECIPES)}")
        )
    recipe = RECIPES[arguments.recipe]
    changes = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(Recipe)
        if getattr(arguments, field.name, None) is not None and field.name != "name"
    }
    if arguments.train and arguments.dataset_id:
        raise UserError("give --train or --dataset-id, not both")
    if arguments.train:
        changes |= {"data": "files", "name": "files", "dataset_id": None, "dataset_config": None}
        changes.setdefault("text_column", "text")
        changes.setdefault("teacher_epochs", 8)  # of rows that we do not know; training stops early where that is much
    elif arguments.dataset_id:
        changes |= {"data": "hub"}
        if arguments.dataset_id != recipe.dataset_id:
            changes |= {"name": arguments.dataset_id.replace("/", "--"), "dataset_config": arguments.dataset_config}
    for option in ("validation", "test", "unlabelled"):
        if getattr(arguments, option) and not arguments.train:
            raise UserError(f"--{option} goes with --train: a recipe brings its own rows")
    if arguments.student and arguments.student_layers:
        raise UserError("give --student or --student-layers, not both")
    if arguments.student:
        changes["student_layers"] = None
    if arguments.student_layers:
        changes["student"] = None
    return dataclasses.replace(recipe, **changes)


def run_settings(argv: list[str]) -> tuple[RunSettings, int]:
    """Command line to settings and the number of seeds. Raises UserError for anything that cannot be meant."""
    arguments, options = parse_distill(argv)
    recipe = choose_recipe(arguments)
    if arguments.seeds < 1:
        raise UserError(f"seeds must be at least 1, not {arguments.seeds}")
    files = None
    if arguments.train:
        files = Files(arguments.train, arguments.validation, arguments.test, arguments.unlabelled)
    settings = RunSettings(
        recipe=recipe,
        output=Path(arguments.output or f"runs/{recipe.name}").expanduser(),
        files=files,
        rows=arguments.rows,
        seed=arguments.seed,
        live_teacher=arguments.live_teacher,
        control=not arguments.no_control,
        precision=arguments.precision,
        checkpoints=Path(arguments.checkpoints) if arguments.checkpoints else None,
        overwrite=arguments.overwrite,
        resume=arguments.resume,
        trainer_options=options,
    )
    return settings, arguments.seeds


def main(argv: list[str]) -> None:
    """`python -m kdhelpers distill`. Raises UserError."""
    settings, seeds = run_settings(argv)
    if seeds == 1:
        metrics = train.distill(settings)
        lines = report.result_lines(metrics, settings.output) if metrics else []
    else:
        summary = train.distill_seeds(settings, seeds)
        lines = report.seeds_lines(summary, settings.output) if summary else []
    if lines:  # under torchrun one process speaks
        print(*lines, sep="\n")
    end_processes()
