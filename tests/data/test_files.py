"""A file's rows are read as a person would read them, or refused in one sentence with their line."""

import csv
import gzip
import io
import json
import os
import re

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kdhelpers import data
from kdhelpers.errors import UserError

FEW = settings(
    max_examples=int(os.environ.get("KD_EXAMPLES", "60")),
    deadline=None,
    derandomize="KD_EXAMPLES" not in os.environ,  # more of them, and others each time: KD_EXAMPLES=5000 pytest ...
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def read(tmp_path, name, content, label="label"):
    """Texts and labels of a file with this content."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return [(row["text"], row["label"]) for row in data.read_file(str(path), "text", label)]


def refused(tmp_path, name, content, *words):
    """Asserts a UserError of one line that names the file and holds the words; returns it."""
    with pytest.raises(UserError) as caught:
        read(tmp_path, name, content)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    for word in words:
        assert word in message
    return message


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("labels", [["bad", "good"], [0, 1], [1.0, None], [True, False], [10**17 + 1, 3]], ids=str)
def test_what_pandas_writes_is_read(tmp_path, kind, labels):
    frame = pd.DataFrame({"id": [7, 8], "text": ["a film", "another"], "label": labels})
    WRITERS[kind](frame, tmp_path / f"a.{kind}")
    rows = data.read_file(str(tmp_path / f"a.{kind}"), "text", "label")
    expected = [
        None if label is None else str(int(label)) if label.__class__ is float else str(label) for label in labels
    ]
    assert [row["text"] for row in rows] == ["a film", "another"]
    assert [data.normal_label(row["label"]) for row in rows] == [label and label.lower() for label in expected]


@pytest.mark.parametrize("index", [["text"], ["label"], ["id"], ["id", "text"], ["text", "label"]], ids=str)
def test_what_pandas_takes_for_an_index_is_a_column_of_the_file(tmp_path, index):
    frame = pd.DataFrame({"id": [7, 8], "text": ["a film", "another"], "label": [0, 1]})
    frame.set_index(index).to_parquet(tmp_path / "a.parquet")
    records = [record for _, record in data.read_records(str(tmp_path / "a.parquet"), ["text", "label", "id"])]
    assert records == frame.to_dict("records")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_lines_end_at_line_ends_and_nowhere_else(tmp_path, kind, ending):
    texts = ["one\u2028two", "three\u2029four", "five\x85six", "seven\x1ceight"]
    if kind == "jsonl":
        lines = [json.dumps({"text": text, "label": 1}, ensure_ascii=False).replace("\\u001c", "x") for text in texts]
        texts[-1] = "sevenxeight"
    else:
        mark = "," if kind == "csv" else "\t"
        texts.append("nine\x0cten\x0beleven")
        lines = [f"text{mark}label", *(f"{text}{mark}1" for text in texts)]
    assert read(tmp_path, f"a.{kind}", ending.join([*lines, ""])) == [(text, "1") for text in texts]


def test_a_text_a_line(tmp_path):
    content = "one\u2028two\r\n\r\nthree\x0cfour\nfive"
    texts = [text for text, _ in read(tmp_path, "a.txt", content, label=None)]
    assert texts == ["one\u2028two", "three\x0cfour", "five"]


def test_a_quotation_mark_in_tsv_is_a_character_like_any_other(tmp_path):
    content = 'text\tlabel\n"a good film\t1\nbad\t0\nthe "best" one\t1\n"worst"\t0\n'
    expected = [('"a good film', "1"), ("bad", "0"), ('the "best" one', "1"), ('"worst"', "0")]
    assert read(tmp_path, "a.tsv", content) == expected


def test_a_tsv_that_is_quoted_as_csv_is_refused_rather_than_read_with_doubled_marks(tmp_path):
    refused(tmp_path, "a.tsv", 'text\tlabel\nx\t1\n"so ""good"", really"\t1\n', "line 3", "quoted")


def test_quoted_line_breaks_and_commas_are_read(tmp_path):
    content = 'text,label\n"two\nlines, and more",a\n"one, line",b\n\n"a ""word""",b\n'
    expected = [("two\nlines, and more", "a"), ("one, line", "b"), ('a "word"', "b")]
    assert read(tmp_path, "a.csv", content) == expected
    rows = data.read_file(str(tmp_path / "a.csv"), "text", "label")
    assert [row["where"].split(", ")[1] for row in rows] == ["line 2", "line 4", "line 6"]


PLAIN = "text,label\na good film,1\n\u201cfine\u201d caf\u00e9,0\n"


def test_a_byte_order_mark_and_nul_characters_do_no_harm(tmp_path):
    expected = [("a good film", "1"), ("\u201cfine\u201d caf\u00e9", "0")]
    assert read(tmp_path, "a.csv", PLAIN.encode("utf-8-sig")) == expected
    assert read(tmp_path, "b.csv", PLAIN.replace("good", "go\0od"))[0] == ("a go\0od film", "1")


def test_a_long_text_is_a_text(tmp_path):
    assert read(tmp_path, "a.csv", f"text,label\n{'long ' * 40_000},1\n")[0][0].count("long") == 40_000


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_another_encoding_is_refused(tmp_path, encoding):
    refused(tmp_path, "a.csv", PLAIN.encode(encoding), "not UTF-8", "line")


BAD_FILES = {
    "empty": ("a.csv", "", "a.csv has no rows"),
    "blank": ("a.csv", "\n \n", "a.csv has no rows"),
    "header only": ("a.csv", "text,label\n", "has no rows"),
    "missing column": ("a.csv", "sentence,label\nx,1\n", "no column 'text'; it has: sentence, label"),
    "semicolons": ("a.csv", "text;label\nx;1\n", "no column 'text'; it has: text;label"),
    "tabs in a .csv": ("a.csv", "text\tlabel\nx\t1\n", "no column 'text'"),
    "a column twice": ("a.csv", "text,label,label\nx,1,0\n", "two columns 'label'"),
    "compressed": ("a.csv.gz", gzip.compress(PLAIN.encode()), "cannot read .gz"),
    "compressed unsaid": ("a.csv", gzip.compress(PLAIN.encode()), "not UTF-8"),
    "empty text": ("a.csv", "text,label\nx,1\n  ,0\n", "line 3 has no text"),
    "NaN text": ("a.csv", "text,label\nNaN,1\nx,0\n", "line 2 has no text"),
    "comma in a text": ("a.csv", "text,label\nwell, a good film,1\nbad,0\n", "line 2 has 3 field(s)"),
    "comma in a later text": ("a.csv", "text,label\nbad,0\nwell, a good film,1\n", "line 3 has 3 field(s)"),
    "tab in a text": ("a.tsv", "text\tlabel\nwell\ta good film\t1\n", "line 2 has 3 field(s)"),
    "surplus empty field": ("a.csv", "text,label\nx,1,\ny,0,\n", "line 2 has 3 field(s)"),
    "short row": ("a.csv", "text,label\nx,1\ny\n", "line 3 has 1 field(s)"),
    "short row of three": ("a.csv", "id,text,label\n1,x,1\n2,y\n", "line 3 has 2 field(s)"),
    "short row in TSV": ("a.tsv", "text\tlabel\nx\t1\ny\n", "line 3 has 1 field(s)"),
    "two rows on a line": ("a.csv", "text,label\nx,1y,0\n", "line 2 has 3 field(s)"),
    "open quotation mark": ("a.csv", 'text,label\nx,1\n"y,0\nz,1\n', "line 3"),
    "mark closed too early": ("a.csv", 'text,label\n"y" said he,0\n', "line 2"),
    "rows inside a text": ("a.csv", 'text,label\nx,1\n"y,0\nz",1\nw,0\n', "line 3 holds further rows"),
    "rows inside, label first": ("a.csv", 'label,text\n1,"x\n0,y"\n0,z\n', "line 2 holds further rows"),
    "header again": ("a.csv", "text,label\nx,1\ntext,label\ny,0\n", "line 3 is the header again"),
    "bad JSON": ("a.jsonl", '{"text": "x", "label": 1}\n\n{"text": \n', "line 3 is not JSON"),
    "two objects on a line": ("a.jsonl", '{"text": "x", "label": 1}{"text": "y", "label": 0}\n', "line 1 is not JSON"),
    "deep JSON": ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
    "endless number": ("a.jsonl", '{"text": "x", "label": ' + "9" * 5000 + "}\n", "line 1 is not JSON"),
    "JSON list": ("a.jsonl", '["text", "label"]\n', "line 1 is not a JSON object"),
    "JSON list of pairs": ("a.jsonl", '[["text", "x"], ["label", 1]]\n', "line 1 is not a JSON object"),
    "a key that one line lacks": ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y", "lable": 0}\n', "line 2"),
    "a key twice": ("a.jsonl", '{"text": "x", "label": 1, "label": 0}\n', "line 1 has two columns 'label'"),
    "list for a text": ("a.jsonl", '{"text": ["bad", "long"], "label": 1}\n', "line 1 has no text"),
    "object for a text": ("a.jsonl", '{"text": {"en": "bad"}, "label": 1}\n', "line 1 has no text"),
    "number for a text": ("a.jsonl", '{"text": 3, "label": 1}\n', "line 1 has no text"),
    "null for a text": ("a.jsonl", '{"text": null, "label": 1}\n', "line 1 has no text"),
    "list for a label": ("a.jsonl", '{"text": "x", "label": {"a": 1}}\n', "line 1: the label"),
    "half an emoji": ("a.jsonl", '{"text": "bad \\ud83d film", "label": 1}\n', "line 1 holds half a character"),
    "half an emoji as label": ("a.jsonl", '{"text": "x", "label": "\\ude00"}\n', "line 1 holds half a character"),
    "not Parquet": ("a.parquet", "hello", "not a Parquet file"),
    "other ending": ("a.xlsx", "hello", "cannot read .xlsx"),
    "labels in .txt": ("a.txt", "hello\n", "no column 'label'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_one_sentence(tmp_path, case):
    name, content, words = BAD_FILES[case]
    refused(tmp_path, name, content, words)


@pytest.mark.parametrize("texts", [[1, 2], [["a"], ["b"]], [b"a", b"b"]], ids=str)
def test_a_parquet_column_that_is_no_text_is_refused(tmp_path, texts):
    pd.DataFrame({"text": texts, "label": [0, 1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet, row 1 has no text"):
        data.read_file(str(tmp_path / "a.parquet"), "text", "label")


def test_a_missing_file():
    with pytest.raises(UserError, match="no file nowhere.csv"):
        data.read_file("nowhere.csv", "text", "label")


# --- damaged tables: whatever gets through is what was meant

LABELS = ["0", "1"]
TEXTS = st.text(alphabet="ab ,\"\t\n\r;{}[]\\'\u2028\x85\x0c\u00e9\U0001f600", min_size=1, max_size=12).filter(
    lambda text: text.strip() and text == text.strip() and text.lower() != "text"
)
TABLES = st.lists(st.tuples(TEXTS, st.sampled_from(LABELS)), min_size=1, max_size=5).map(
    lambda rows: [("plain", "0"), *rows, ("plain too", "1")]
)


STRUCTURE = {"csv": ',"\n\r\t ', "tsv": "\t\n\r", "jsonl": ',:"\n\r{}[]'}


def written(kind, rows):
    """A table written with care."""
    if kind == "jsonl":
        return "".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in rows)
    if kind == "tsv":
        return "".join("\t".join(row) + "\n" for row in [("text", "label"), *rows])
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("text", "label"), *rows])
    return buffer.getvalue()


def read_or_none(folder, kind, content):
    try:
        return read(folder, f"a.{kind}", content)
    except UserError:
        return None


def without(character, rows):
    """Rows less one character, and less the white space that this may leave at the ends."""
    return [tuple(value and value.replace(character, "").strip() for value in row) for row in rows]


@given(rows=TABLES, kind=st.sampled_from(["csv", "jsonl"]))
@FEW
def test_a_table_written_with_care_is_read_as_it_was_meant(tmp_path, rows, kind):
    found = read_or_none(tmp_path, kind, written(kind, rows))
    assert found == rows or (found is None and kind == "csv" and any("\n" in text for text, _ in rows))


@given(rows=TABLES)
@FEW
def test_a_tsv_written_naively_is_refused_or_read_as_it_was_meant(tmp_path, rows):
    assume(not any(re.search("\t.*[\r\n]", text, re.DOTALL) for text, _ in rows))  # reads as a row of its own
    found = read_or_none(tmp_path, "tsv", written("tsv", rows))
    assert found is None or found == rows
    if not any(set("\t\r\n") & set(text) or '""' in text for text, _ in rows):
        assert found == rows


@given(rows=TABLES)
@FEW
def test_a_csv_written_naively_is_refused_or_read_as_it_was_meant(tmp_path, rows):
    assume(not any(re.search(",.*[\r\n]", text, re.DOTALL) for text, _ in rows))  # reads as a row of its own
    content = "".join(f"{text},{label}\n" for text, label in [("text", "label"), *rows])
    found = read_or_none(tmp_path, "csv", content)
    assert found is None or without('"', found) == without('"', rows)


@given(rows=TABLES, kind=st.sampled_from(["csv", "tsv", "jsonl"]), choice=st.data())
@settings(FEW, max_examples=3 * FEW.max_examples)
def test_a_character_too_many_or_too_few_never_moves_a_row_or_a_label(tmp_path, rows, kind, choice):
    """An extra or missing mark within a text is a text with one mark more or less; all else is refused."""
    if kind != "csv":  # nothing that is written as an escape, which a character too many makes another one
        rows = [(" ".join(re.sub(r'["\\]', "'", text).split()), label) for text, label in rows]
    content = written(kind, rows)
    character = choice.draw(st.sampled_from(STRUCTURE[kind]), "character")
    places = [place for place, mark in enumerate(content) if mark == character]
    if places and choice.draw(st.booleans(), "take away"):
        place = choice.draw(st.sampled_from(places), "place")
        damaged = content[:place] + content[place + 1 :]
    else:
        place = choice.draw(st.integers(0, len(content)), "place")
        damaged = content[:place] + character + content[place:]
    found = read_or_none(tmp_path, kind, damaged)
    assert found is None or without(character, found) == without(character, rows)


@given(rows=TABLES, kind=st.sampled_from(["csv", "tsv", "jsonl"]), choice=st.data())
@FEW
def test_a_table_cut_short_is_refused_or_ends_early(tmp_path, rows, kind, choice):
    if kind == "tsv":
        rows = [(" ".join(text.split()), label) for text, label in rows]
    content = written(kind, rows)
    found = read_or_none(tmp_path, kind, content[: choice.draw(st.integers(0, len(content)), "length")])
    if found:
        *whole, (text, label) = found
        assert whole == rows[: len(whole)]
        assert text == rows[len(whole)][0]
        assert label in (rows[len(whole)][1], None)


@given(
    texts=st.lists(
        st.one_of(TEXTS, st.none(), st.integers(), st.floats(), st.booleans(), st.lists(TEXTS), st.just({})), min_size=1
    )
)
@FEW
def test_nothing_but_a_string_becomes_a_text(tmp_path, texts):
    content = "".join(json.dumps({"text": text, "label": 1}) + "\n" for text in texts)
    found = read_or_none(tmp_path, "jsonl", content)
    if all(isinstance(text, str) for text in texts):
        assert found == [(text, "1") for text in texts]
    else:
        assert found is None
