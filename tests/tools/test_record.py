import json

import pytest

from tests.tools import record, results


def test_a_record_keeps_the_last_table_and_says_on_what_it_was_made():
    said = "loading\n        kind  MB\nold  1\n\n        kind  MB\nnew  2   \n\n"
    kept = record.printed_by("small", said)
    assert kept["printed"] == ["        kind  MB", "new  2"]
    count = record.joblib.cpu_count()
    assert kept["machine"].startswith("1 core (" if count == 1 else f"{count} cores (")
    assert kept["command"].endswith("--threads 1")
    with pytest.raises(ValueError, match="printed no line like"):
        record.printed_by("small", "Traceback")


def test_the_page_shows_a_record_with_its_command_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RECORDS", tmp_path)
    page = "<!-- from the record: small -->\nas it was\n<!-- end -->\n"
    assert results.filled(page, None) == page, "what has no record yet stays as it is"
    made = {"command": "make it", "machine": "one core", "version": "1", "printed": ["a table"]}
    (tmp_path / "small.json").write_text(json.dumps(made), encoding="utf-8")
    assert "`make it` on one core, with version 1:\n\n```\na table\n```\n" in results.filled(page, None)


def test_every_record_belongs_to_a_measurement_and_stands_on_the_page():
    page = (results.ROOT / "notebooks" / "RESULTS.md").read_text(encoding="utf-8")
    for path in record.RECORDS.glob("*.json"):
        command, _ = record.MEASURED[path.stem]
        assert json.loads(path.read_text(encoding="utf-8"))["command"] == command
        assert f"<!-- from the record: {path.stem} -->" in page
