"""Write what the package's records say into README.md and the pages in notebooks/: python -m tests.tools.results.

Between `<!-- from the record: NAME -->` and `<!-- end -->` stands what the function NAME returns, or what a command
printed whose record (`tests.tools.record`) has that name; a block of which there is no record yet stays as it is. With
--check nothing is written; what differs is named, and the exit code is 1.
"""

import json
import re
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from textwrap import fill

import nbformat
import pandas as pd

from kdhelpers import evaluation, experiments, sagemaker
from kdhelpers.settings import recipe
from tests.tools.record import RECORDS
from tests.tools.record_calls import CALLS_FILE

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
PAGES = (ROOT / "README.md", *(NOTEBOOKS / f"{name}.md" for name in ("RESULTS", "AWS", "INSTRUCTOR")))
BLOCK = re.compile(r"(<!-- from the record: (\w+) -->\n).*?(<!-- end -->)", flags=re.S)
LARGE = Path(experiments.__file__).with_name("movie-snippets-base.json")  # metrics.json of a run of that recipe
STUDENT, CONTROL, TEACHER = "+ logits on all texts", "labels only", "teacher"
RECIPE = recipe("movie-snippets")
OF_THE_RECIPE = (
    f"logits, learning rate {RECIPE.learning_rate:g}, T {RECIPE.temperature:g}",
    f"labels, learning rate {RECIPE.control_learning_rate:g}, dropout {RECIPE.control_dropout:g}",
    "teacher of settings",
)  # variants of the record
PAIRS = (
    (STUDENT, CONTROL),
    ("+ teacher's layers", CONTROL),
    ("+ logits on labelled rows", "+ teacher's layers"),
    (STUDENT, "+ logits on labelled rows"),
    (STUDENT, "+ hard answers on all texts"),
    ("+ hard answers on all texts", CONTROL),
    ("all 8,070 labels, no teacher", STUDENT),
    ("all 8,070 labels + logits", "all 8,070 labels, no teacher"),
    ("logits, embeddings trained", "logits, embeddings frozen"),
    ("labels, embeddings trained", "labels, embeddings frozen"),
    ("logits, T 4", "logits, T 2"),
    ("logits of 3 teachers", "logits, learning rate 0.0003, T 4"),
    ("3 teachers", "teacher of settings"),
    ("all 8,070 labels + logits of a teacher with all", "all 8,070 labels, no teacher"),
    ("all 8,070 labels + logits of a teacher with all", "all 8,070 labels + logits"),
)
SMALL_PAIRS = (
    ("TF-IDF, MPNet", "TF-IDF, labels"),
    ("static, MPNet", "static, labels"),
    ("2 layers, MPNet", "2 layers, MiniLM"),
    ("3 layers, MPNet", "3 layers, MiniLM"),
    ("3 layers, MPNet", "TF-IDF, MPNet"),
    ("6 layers, MPNet", "3 layers, MPNet"),
    ("6 layers, MPNet", "6 layers, MiniLM"),
    ("TF-IDF, MPNet, altered copies", "TF-IDF, MPNet"),
    ("3 layers, MPNet, altered copies", "3 layers, MPNet"),
    ("3 layers, MPNet, altered copies", "3 layers, MPNet, 8 epochs"),
    ("3 layers, MPNet, altered copies", "TF-IDF, MPNet, altered copies"),
    ("6 layers, MPNet, altered copies", "6 layers, MPNet"),
    ("6 layers of MPNet, MPNet", "6 layers, MPNet"),
    ("6 layers of MPNet, MPNet", "6 layers of MPNet, labels"),
)


AIMS_PAIRS = (
    ("3 layers, MPNet, projection", "3 layers, MPNet once more"),
    ("3 layers, assistant", "3 layers, MPNet once more"),
    ("3 layers, MPNet, other snippets", "3 layers, MPNet once more"),
    ("3 layers, MPNet, other snippets", "3 layers, MPNet, 8 epochs"),
    ("static, MPNet, other snippets", "static, MPNet"),
    ("TF-IDF, MPNet, other snippets", "TF-IDF, MPNet"),
)


def fenced(*lines: str) -> str:
    """Lines as a block of code."""
    return "\n".join(("```", *lines, "```", ""))


def folded(texts: list[str]) -> list[str]:
    """Sentences as lines, each sentence's further ones indented."""
    return [line for text in texts for line in fill(text, 118, subsequent_indent="  ").splitlines()]


def headline(runs: pd.DataFrame) -> str:
    """One sentence: student, control and teacher over the seeds, as the recipe has them."""
    mean = 100 * experiments.summary(runs)["mean"]
    student, control, teacher = OF_THE_RECIPE
    paired = experiments.paired_over_seeds(runs, student, control)
    low, high = (100 * end for end in paired.interval95)
    sentence = (
        f"Over {len(paired.by_seed)} seeds the distilled 3-layer student is right on {mean[student]:.1f} % of 1,000 "
        f"test rows, the control on {mean[control]:.1f} %, the 6-layer teachers on {mean[teacher]:.1f} %: "
        f"{100 * paired.difference:+.1f} points for the teacher's help, 95 % interval over "
        f"seeds and rows {low:+.1f} to {high:+.1f}."
    )
    return fill(sentence, 120) + "\n"


def ablation(runs: pd.DataFrame) -> str:
    """The table that `make ablation` prints."""
    return fenced(*experiments.main_table(runs).splitlines())


def seeds(runs: pd.DataFrame) -> str:
    """Teacher, control and student, seed by seed."""
    names = dict(zip(OF_THE_RECIPE, ("distilled student", "control, no teacher", "teacher"), strict=True))
    table = 100 * runs[runs["variant"].isin(names)].pivot(index="seed", columns="variant", values="test_accuracy")
    table = table[list(names)].rename(columns=names).rename_axis(None, axis=1)
    shown = table.round(1).to_string(index_names=False)
    return fenced("Test accuracy in % on 1,000 rows, by seed.", *shown.splitlines())


def settings(runs: pd.DataFrame) -> str:
    """As many trials for the control as for the student; the best of each on validation rows, compared on test."""
    names = [variant.name for variant in experiments.GROUPS["settings"]]
    table = experiments.summary(runs).loc[names, ["validation", "mean"]]
    chosen = [table["validation"].filter(regex=f"^{kind}").idxmax() for kind in ("logits", "labels")]
    shown = (100 * table).round(1).set_axis(["validation", "test"], axis=1).rename_axis(None)
    title = f"Mean accuracy in % over {runs['seed'].nunique()} seeds; * the best of its four on validation rows."
    marked = shown.assign(**{"": ["*" if name in chosen else "" for name in names]}).to_string()
    compared = {pair: experiments.paired_over_seeds(runs, *pair) for pair in product(names[:4], names[4:])}
    texts = [compared[pair].text for pair in (tuple(chosen), OF_THE_RECIPE[:2])]
    texts.append(f"Least of all sixteen pairs: {min(compared.values(), key=lambda one: one.interval95[0]).text}")
    return fenced(*map(str.rstrip, (title, *marked.splitlines(), *folded(texts))))


def sizes(runs: pd.DataFrame) -> str:
    """How small, and taught by whom: means, spread and the teachers."""
    table, mean = 100 * experiments.sizes(runs), 100 * experiments.summary(runs)["mean"]
    teachers = f"Teachers: MiniLM (6 layers) {mean[TEACHER]:.1f} %, MPNet (12 layers) {mean['MPNet teacher']:.1f} %."
    title = "Mean test accuracy in % over 3 seeds; every student from MiniLM's untouched backbone, taught by"
    own = "6 layers of MPNet, "
    wide = f"6 layers of MPNet's own: {mean[own + 'labels']:.1f} % on labels, {mean[own + 'MPNet']:.1f} % on MPNet's "
    wide += f"logits (teachers trained anew: {mean['MPNet teacher of width']:.1f} %)."
    return fenced(title, *table.round(1).to_string(na_rep="").splitlines(), teachers, wide)


def small_pairs(runs: pd.DataFrame) -> str:
    """The sizes two by two."""
    return fenced(*folded([experiments.paired_over_seeds(runs, *pair).text for pair in SMALL_PAIRS]))


def aims(runs: pd.DataFrame) -> str:
    """What else was tried for a better small student, on validation and test rows, and two by two."""
    names = ["MPNet teacher of aims", *(variant.name for variant in experiments.GROUPS["aims"])]
    table = 100 * experiments.summary(runs).loc[names, ["validation", "mean"]]
    shown = table.round(1).set_axis(["validation", "test"], axis=1).rename_axis(None).to_string()
    texts = [experiments.paired_over_seeds(runs, *pair).text for pair in AIMS_PAIRS]
    return fenced("Mean accuracy in % over 3 seeds.", *map(str.rstrip, shown.splitlines()), *folded(texts))


def pairs(runs: pd.DataFrame) -> str:
    """Variants two by two."""
    return fenced(*folded([experiments.paired_over_seeds(runs, *pair).text for pair in PAIRS]))


def large_teacher(runs: pd.DataFrame) -> str:
    """What `distill` printed at the end of the recorded run of the large teacher's recipe."""
    if not LARGE.is_file():
        return ""
    metrics = json.loads(LARGE.read_text(encoding="utf-8"))
    printed = "\n".join(evaluation.result_lines(metrics, Path("runs", metrics["recipe"]))).strip().splitlines()
    controls = " --controls all" * ("hard_answers" in metrics)
    command = f"`python -m kdhelpers distill --recipe {metrics['recipe']}{controls}` (seed {metrics['seed']})"
    return f"{command} printed at its end:\n\n{fenced(*map(str.rstrip, printed))}"


def aws_calls(runs: pd.DataFrame | None = None) -> str:
    """What the commands ask of AWS, as recorded; rights and costs are the package's. No run is looked at."""
    recorded = json.loads(CALLS_FILE.read_text(encoding="utf-8"))
    rows = [
        f"| {call.operation} | {call.right} | {in_short(recorded[call.operation])} | {call.cost or 'nothing'} |"
        for call in sagemaker.CALLS
    ]
    return "\n".join(["| call | right | commands | what it can cost |", "| --- | --- | --- | --- |", *rows, ""])


def in_short(commands: list[str]) -> str:
    """Commands, those with one condition together, without those that only add options to another."""
    words = {command: set(command.split()) for command in commands}
    plain = [one for one in commands if not any(words[other] < words[one] for other in commands)]
    order = ("launch", "label", "status", "endpoint", "clean", "a")
    groups: dict[str, list[str]] = {}
    for command in sorted(plain, key=lambda one: order.index(one.split()[0])):
        name, *condition = re.split(" (?=with|when)", command, maxsplit=1)
        groups.setdefault("".join(condition), []).append(name)
    return "; ".join(f"{', '.join(names)} {condition}".strip() for condition, names in groups.items())


def large_corpus(runs: pd.DataFrame) -> str:
    """Hours and dollars for the answers of a large corpus: arithmetic, with the price of the plan's machine."""
    rows, classes, tokens, speed = 100_000_000, 2, 25, 6e12  # operations a second
    machine = sagemaker.JobPlan().instance
    read = 2 * 85e6 * tokens * rows / speed / 3600  # hours; 2 operations a parameter and token
    train = 6 * 42.5e6 * tokens * rows / speed / 3600  # forward and backward
    table = [
        ("the teacher reads all rows", "2 operations x 85 million x tokens x rows", 1, read),
        ("the same on eight machines", "an eighth of the time on each", 8, read / 8),
        ("one epoch of the student", "6 operations x 42.5 million x tokens x rows", 1, train),
        ("a live teacher's reading, in 5 runs of 3 epochs", "15 times the first line", 1, 15 * read),
    ]
    lines = [f"| what | how it is reckoned | on {machine} |", "| --- | --- | --- |"]
    for what, how, machines, hours in table:
        dollars = machines * hours * sagemaker.PRICES[machine]
        lines.append(f"| {what} | {how} | {hours:.1f} hours, {dollars:.0f} USD |")
    disk = rows * classes * 4 / 1e9
    lines.append(f"| the answers on disk | {classes} numbers of 4 bytes a row | {disk:.1f} GB |")
    return "\n".join(lines) + "\n"


def words_of(markdown: str) -> int:
    """How many words a reader has before them: without fenced code, the rows of tables, and what is folded away."""
    for block in (r"^```.*?^```", r"<details>.*?</details>", r"^\|.*?$"):
        markdown = re.sub(block, "", markdown, flags=re.S | re.M)
    return len(markdown.split())


def notebooks(runs: pd.DataFrame | None = None) -> str:
    """Words, time and memory of each notebook, as `make notebooks` measured them. No run is looked at."""
    lines = ["| notebook | words to read | runs by itself | memory |", "| --- | --- | --- | --- |"]
    for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        took, texts = notebook.metadata["measured"], [c.source for c in notebook.cells if c.cell_type == "markdown"]
        minutes, seconds = divmod(took["seconds"], 60)
        words, time = words_of("\n".join(texts)), f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        lines.append(f"| [{path.stem}]({path.name}) | {words:,} | {time} | {took['gib']} GiB |")
    return "\n".join(lines) + "\n"


MADE: dict[str, Callable[[pd.DataFrame], str]] = {
    "headline": headline, "ablation": ablation, "seeds": seeds, "pairs": pairs, "sizes": sizes,
    "settings": settings, "aims": aims, "small_pairs": small_pairs, "large_teacher": large_teacher,
    "aws_calls": aws_calls, "large_corpus": large_corpus, "notebooks": notebooks,
}  # fmt: skip


def recorded(name: str) -> str:
    """What a command printed, with the machine and the version; empty where it has not been recorded."""
    path = RECORDS / f"{name}.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text(encoding="utf-8"))
    head = f"`{record['command']}` on {record['machine']}, with version {record['version']}:"
    return f"{head}\n\n{fenced(*record['printed'])}"


def filled(text: str, runs: pd.DataFrame) -> str:
    """A page with every block as the record has it."""

    def made(block: re.Match) -> str:
        found = MADE[block[2]](runs) if block[2] in MADE else recorded(block[2])
        return block[1] + found + block[3] if found else block[0]

    return BLOCK.sub(made, text)


def main(arguments: list[str]) -> int:
    """Write, or with --check compare; returns the exit code."""
    runs, stale = experiments.recorded(), []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text, runs) != text:
            stale.append(page.name)
            if "--check" not in arguments:
                page.write_text(filled(text, runs), encoding="utf-8")
    said = "differs from the record" if "--check" in arguments else "written"
    print("\n".join(f"{name}: {said}" for name in stale) or "all is as the record has it")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
