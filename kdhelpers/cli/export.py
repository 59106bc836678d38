"""`python -m kdhelpers export`: write a student as one file, for ONNX or numpy, and check that it answers alike.

With `--format web`: as a folder with a page in which the student, in 8 bits, answers in anybody's browser; of a static
student one small file. With `--format folder`: as it was trained, a model and its tokenizer; with `--teacher` that is
how a fine-tuned teacher travels.
"""

import csv
from pathlib import Path

from kdhelpers import data, deployment
from kdhelpers.cli.parsing import Parser
from kdhelpers.errors import UserError

FORMATS = (
    "onnx (fp32, default), onnx-int8 (small and fast), onnx-int8-weights (as small, computes in fp32: answers that "
    "other processors change in the last digits only), numpy (of a static student), web: a page with the student, or "
    "folder: as PyTorch has it, for --teacher on another machine"
)
ROWS = (
    "texts to compare on: .csv, .tsv, .jsonl, .parquet, .txt (default: the run's test rows); "
    "some of them are the web page's examples"
)


def parser() -> Parser:
    """The command's options."""
    options = Parser(prog="python -m kdhelpers export", description=__doc__)
    add = options.add_argument
    add("student", metavar="RUN", help="folder of a run or of a trained student, or a hub id")
    add("--teacher", action="store_true", help="export the run's teacher instead: what an answer of it costs so")
    add("--format", default="onnx", help=FORMATS)
    add("--output", help="folder to write (default: beside the student, named after the format)")
    add("--rows", help=ROWS)
    add("--text-column", default="text", help="name of their text column (default: text)")
    add("--text-pair-column", help="name of their second text column, where the student reads pairs")
    add("--vocabulary-of", metavar="TEXTS", help="keep only the tokens of these texts: a file, or movie-snippets")
    accept = "share of predictions that may change (default: 0.05; without a number: any)"
    add("--accept-changes", nargs="?", type=float, const=1.0, default=deployment.ACCEPTED_CHANGES, help=accept)
    libraries = "of the web page: npm (default; the page then needs no network), or cdn (a public server)"
    add("--libraries", default="npm", help=libraries)
    add("--overwrite", action="store_true", help="replace an earlier export, once the new one is done")
    return options


def texts_of(path: str, column: str, pair_column: str | None = None) -> list:
    """The texts of a file, or of the default recipe's training rows; with a second column tuples of two."""
    if path == "movie-snippets":
        return list(data.movie_snippets().splits["train"]["text"])
    rows = data.read_file(path, column, None, pair_column)
    return [(row["text"], row["text_pair"]) if pair_column else row["text"] for row in rows]


def pair_column_of(predictions: Path) -> str | None:
    """The column of second texts in a run's predictions.csv, where its rows are pairs."""
    with predictions.open(encoding="utf-8", newline="") as file:
        return "text_pair" if "text_pair" in next(csv.reader(file)) else None


def main(argv: list[str]) -> None:
    """Run the command. Raises UserError."""
    options = parser().parse_args(argv)
    if not 0 <= options.accept_changes <= 1:
        raise UserError(f"--accept-changes must lie between 0 and 1, not {options.accept_changes:g}")
    if options.format not in (known := (*deployment.FORMATS, "web", "folder")):
        raise UserError(f"--format must be one of {', '.join(known)}, not {options.format!r}")
    find = deployment.teacher_folder if options.teacher else deployment.student_folder
    model = Path(find(options.student)).expanduser()
    run = Path(options.student).expanduser() if options.teacher else model.parent if model.is_dir() else Path()
    named = f"{'teacher' if options.teacher else 'student'}-{options.format}"
    output = Path(options.output or run / named).expanduser()
    if output.exists() and not options.overwrite:
        raise UserError(f"{output} exists already: choose another --output, or replace it with --overwrite")
    if options.format == "folder":
        report_folder(output, deployment.export_folder(str(model), output))
        return
    texts = vocabulary = None
    predictions = run / "predictions.csv"
    if options.rows:
        texts = texts_of(options.rows, options.text_column, options.text_pair_column)
    elif (options.teacher or model.is_dir()) and predictions.is_file():
        texts = texts_of(str(predictions), "text", pair_column_of(predictions))
    if options.vocabulary_of:
        columns = [column for column in (options.text_column, options.text_pair_column) if column]
        vocabulary = [text for column in columns for text in texts_of(options.vocabulary_of, column)]
    if options.format == "web":
        asked = (texts, vocabulary, options.accept_changes, options.libraries)
        report_page(output, deployment.export_web(str(model), output, *asked))
        return
    facts = deployment.export(str(model), output, options.format, texts, vocabulary, options.accept_changes)
    print(f"{output}: {facts['bytes'] / 1e6:.1f} MB, a vocabulary of {facts['vocabulary']:,} tokens,")
    report(facts)
    second = ' "I liked it."' * facts["pairs"]
    print(f'try it: python {output}/predict.py "A wonderful film."{second}')


def report(facts: dict) -> None:
    """Print what an export reads and how it answers beside PyTorch."""
    changed, compared = facts["changed_predictions"], facts["compared_texts"]
    print(f"  labels {data.listed(facts['labels'])}, texts of up to {facts['max_length']} tokens")
    print(
        f"against PyTorch on {compared:,} texts: largest difference in logits {facts['largest_logit_difference']:.2g},"
    )
    print(f"  {changed:,} prediction{'s' * (changed != 1)} changed ({100 * changed / compared:.1f} %)")


def report_folder(output: Path, facts: dict) -> None:
    """Print what a model's folder holds, and where it can go."""
    print(f"{output}: {facts['bytes'] / 1e6:.1f} MB, a model and its tokenizer as PyTorch has them,")
    print(f"  labels {data.listed(facts['labels'])}, texts of up to {facts['max_length']} tokens")
    print(f"a run that is given it does not fine-tune it again: --teacher {output}")


def report_page(output: Path, facts: dict) -> None:
    """Print where the page is, what it needs, and what of the rows it shows."""
    if facts["libraries"] == "none":
        print(f"{output}/index.html: {facts['page_bytes'] / 1e6:.1f} MB, all in one file")
        report(facts)
        print("the page shows some of the compared texts as examples: choose others with --rows before you send it")
        print("open it by a double click, mail it, or put it on any server: it needs no library and no network")
        return
    javascript, single = facts["javascript_bytes"], facts["single_file_bytes"]
    print(f"{output}: {facts['page_bytes'] / 1e6:.1f} MB, of which the student {facts['bytes'] / 1e6:.1f},")
    print(f"  JavaScript {javascript / 1e6:.1f}, and student.html, all of that in one file, {single / 1e6:.1f}")
    report(facts)
    if facts["libraries"] == "npm":
        print("its JavaScript is in the folder: the page needs no network")
    else:
        why = f" ({facts['no_npm']})" if facts["no_npm"] else ""
        print(f"its JavaScript comes from a public server, cdn.jsdelivr.net, whenever it is opened{why}")
    print("the page shows some of the compared texts as examples: choose others with --rows before you publish it")
    print(f"open {output}/student.html by a double click, or serve the folder:")
    print(f"  python -m http.server --bind 127.0.0.1 --directory {output}    and open http://127.0.0.1:8000")
