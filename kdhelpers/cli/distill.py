"""`python -m kdhelpers distill`: distil a teacher into a small student, beside a control, and judge both."""

import textwrap

from kdhelpers import evaluation, runtime
from kdhelpers.cli.parsing import read_options
from kdhelpers.settings import OPTIONS, RECIPES, dashed, settings_from

EPILOG = """Every other field of transformers.TrainingArguments can be given by its own name, e.g. --weight_decay 0.01;
it applies to student and control."""


def help_text() -> str:
    """What `distill --help` prints: every option with its help text and its default."""
    lines = ["usage: python -m kdhelpers distill [options]", "", str(__doc__), ""]
    for name, field in OPTIONS.items():
        default = "" if field.default in (None, False) or name == "output" else f" (default: {field.default})"
        text = textwrap.wrap(field.metadata["help"] + default, 76)
        first = f"  {dashed(name)}"
        lines += [f"{first:26}{text[0]}"] if len(first) < 25 else [first, f"{'':26}{text[0]}"]
        lines += [f"{'':26}{line}" for line in text[1:]]
    recipes = ", ".join(f"{name}: {values}" for name, values in RECIPES.items())
    lines += ["", *textwrap.wrap(EPILOG, 100), "", "An option left out is the recipe's, then the default shown here."]
    return "\n".join([*lines, *textwrap.wrap(f"Recipes: {recipes}", 100)])


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
