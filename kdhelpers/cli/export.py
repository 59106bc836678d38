"""`python -m kdhelpers export`: write a student as one ONNX file, in fp32 or int8, and check that it answers alike."""

from pathlib import Path

from kdhelpers import data, deployment
from kdhelpers.cli.parsing import Parser
from kdhelpers.errors import UserError


def parser() -> Parser:
    """The command's options."""
    options = Parser(prog="python -m kdhelpers export", description=__doc__)
    add = options.add_argument
    add("student", metavar="RUN", help="folder of a run or of a trained student, or a hub id")
    add("--format", default="onnx", help="onnx (fp32, default) or onnx-int8")
    add("--output", help="folder to write (default: beside the student, named after the format)")
    add("--rows", help="texts to compare on: .csv, .tsv, .jsonl, .parquet, .txt (default: the run's test rows)")
    add("--text-column", default="text", help="name of their text column (default: text)")
    add("--text-pair-column", help="name of their second text column, where the student reads pairs")
    add("--vocabulary-of", metavar="TEXTS", help="keep only the tokens of these texts: a file, or movie-snippets")
    accept = "share of predictions that may change (default: 0.05; without a number: any)"
    add("--accept-changes", nargs="?", type=float, const=1.0, default=deployment.ACCEPTED_CHANGES, help=accept)
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
    with predictions.open(encoding="utf-8") as file:
        return "text_pair" if "text_pair" in file.readline().split(",") else None


def main(argv: list[str]) -> None:
    """Run the command. Raises UserError."""
    options = parser().parse_args(argv)
    if not 0 <= options.accept_changes <= 1:
        raise UserError(f"--accept-changes must lie between 0 and 1, not {options.accept_changes:g}")
    student = Path(deployment.student_folder(options.student)).expanduser()
    beside = student.parent if student.is_dir() else Path()
    output = Path(options.output or beside / f"student-{options.format}").expanduser()
    if output.exists() and not options.overwrite:
        raise UserError(f"{output} exists already: choose another --output, or replace it with --overwrite")
    texts = vocabulary = None
    predictions = student.parent / "predictions.csv"  # where the student lies in a run's folder
    if options.rows:
        texts = texts_of(options.rows, options.text_column, options.text_pair_column)
    elif student.is_dir() and predictions.is_file():
        texts = texts_of(str(predictions), "text", pair_column_of(predictions))
    if options.vocabulary_of:
        columns = [column for column in (options.text_column, options.text_pair_column) if column]
        vocabulary = [text for column in columns for text in texts_of(options.vocabulary_of, column)]
    facts = deployment.export(str(student), output, options.format, texts, vocabulary, options.accept_changes)
    changed, compared = facts["changed_predictions"], facts["compared_texts"]
    print(f"{output}/model.onnx: {facts['bytes'] / 1e6:.1f} MB, a vocabulary of {facts['vocabulary']:,} tokens,")
    print(f"  labels {', '.join(facts['labels'])}, texts of up to {facts['max_length']} tokens")
    print(
        f"against PyTorch on {compared:,} texts: largest difference in logits {facts['largest_logit_difference']:.2g},"
    )
    print(f"  {changed:,} predictions changed ({100 * changed / compared:.1f} %)")
    second = ' "I liked it."' * facts.get("pairs", False)
    print(f'try it: python {output}/predict.py "A wonderful film."{second}')
