"""`python -m kdhelpers ablation`: students over seeds, sizes, amounts of text and losses: what helps, and what not."""

from pathlib import Path

from kdhelpers.cli.parsing import Parser
from kdhelpers.errors import UserError


def main(argv: list[str]) -> None:
    """Run what the file does not hold yet, and print all of it. Raises UserError for options that make no sense."""
    from kdhelpers import experiments

    groups = experiments.GROUPS
    parser = Parser(prog="python -m kdhelpers ablation", description=__doc__)
    asked = [name for name in groups if name not in experiments.MAIN_GROUPS]
    which = f"which variants: {', '.join(groups)}; {', '.join(asked)} have to be asked for"
    parser.add_argument("--groups", nargs="+", default=experiments.MAIN_GROUPS, help=which)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 42 on (default 3)")
    parser.add_argument("--output", default="runs/ablation.csv", help="the file that holds a row a run")
    parser.add_argument("--figure", help="also draw the ablation into this PNG file")
    options = parser.parse_args(argv)
    unknown = [group for group in options.groups if group not in groups]
    if unknown:
        raise UserError(f"no group {unknown[0]!r}: --groups are {', '.join(groups)}")
    if options.seeds < 1:
        raise UserError(f"--seeds is at least 1, not {options.seeds}")
    runs = experiments.run_ablation(options.groups, options.seeds, Path(options.output))
    if len(experiments.of_main_groups(runs)):
        print("", experiments.main_table(runs), sep="\n")
    if (runs["group"] == "small").any():
        print("\nHow small, and taught by whom (mean test accuracy in %, every student from MiniLM's backbone).")
        print((100 * experiments.sizes(runs)).round(1).to_string(na_rep=""))
        large = 100 * runs[runs["variant"] == "MPNet teacher"]["test_accuracy"].mean()
        print(f"MPNet itself: {large:.1f}; MiniLM's teacher is the table's 6 layers on labels.")
    for name in [name for name in options.groups if name in asked and name != "small"]:
        found = runs[runs["group"] == name].groupby("variant", sort=False)
        print(f"\n{name}: mean accuracy in % on validation and test rows, seconds of training, seeds")
        shown = found[["validation_accuracy", "test_accuracy", "seconds"]].mean().mul([100, 100, 1]).round(1)
        shown.columns = ["validation", "test", "seconds"]
        print(shown.assign(seeds=found.size()).rename_axis(None).to_string(na_rep=""))
    if options.figure:
        from kdhelpers.workshop import figures

        figures.save(
            figures.ablation(experiments.summary(experiments.of_main_groups(runs)), runs), Path(options.figure)
        )
