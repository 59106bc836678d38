"""`python -m kdhelpers distill`: distil a teacher into a small student, beside a control, and judge both."""

import textwrap

from kdhelpers import evaluation, runtime
from kdhelpers.cli.parsing import read_options
from kdhelpers.settings import OPTIONS, RECIPES, dashed, settings_from

EPILOG = """Every other field of transformers.TrainingArguments can be given by its own name, e.g. --weight_decay 0.01;
it applies to student and control. An option left out is the recipe's, then the default shown here."""


def help_text() -> str:
    """What `distill --help` prints: every option with its help text and its default."""
    lines = ["usage: python -m kdhelpers distill [options]", "", *textwrap.wrap(str(__doc__), 98), ""]
    for name, field in OPTIONS.items():
        default = "" if field.default in (None, False) or name == "output" else f" (default: {field.default})"
        text = textwrap.wrap(field.metadata["help"] + default, 72)
        first = f"  {dashed(name)}"
        lines += [f"{first:26}{text[0]}"] if len(first) < 25 else [first, f"{'':26}{text[0]}"]
        lines += [f"{'':26}{line}" for line in text[1:]]
    lines += ["", *textwrap.wrap(EPILOG, 98)]
    for name, values in RECIPES.items():
        own = ", ".join(f"{option} {value}" for option, value in values.items())
        lines += textwrap.wrap(f"Recipe {name}: {own}.", 98)
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Run the command. Raises UserError."""
    if "-h" in argv or "--help" in argv:
        print(help_text())
        return
    settings = settings_from(read_options(argv))
    from kdhelpers.distillation import distill

    metrics = distill(settings)
    if metrics:
        lines = evaluation.result_lines if settings.seeds == 1 else evaluation.seeds_lines
        print(*lines(metrics, settings.output), sep="\n")
    runtime.end_processes()
