"""`python -m kdhelpers doctor`: the report, its exit code, and the caches."""

import pytest

from kdhelpers import workshop
from kdhelpers.__main__ import main
from kdhelpers.workshop import Finding, Report


@pytest.fixture
def asked(monkeypatch):
    calls = []
    monkeypatch.setattr(workshop, "fill_caches", lambda: calls.append("fill_caches"))
    monkeypatch.setattr(workshop, "doctor", lambda: calls.append("doctor") or Report([Finding("ok", "Python", "3.11")]))
    return calls


def test_the_report_is_printed_and_what_comes_next(asked, capsys):
    assert main(["doctor"]) == 0
    assert asked == ["doctor"]
    assert capsys.readouterr().out.splitlines() == ["ok      Python    3.11", "Ready: python -m kdhelpers distill"]


def test_prepare_fills_the_caches_before_it_looks(asked):
    assert main(["doctor", "--prepare"]) == 0
    assert asked == ["fill_caches", "doctor"]


def test_what_has_to_be_mended_is_an_error(monkeypatch, capsys):
    findings = Report([Finding("note", "Hub", "not reached"), Finding("missing", "packages", "torch is not installed")])
    monkeypatch.setattr(workshop, "doctor", lambda: findings)
    assert main(["doctor"]) == 2
    captured = capsys.readouterr()
    assert "torch is not installed" in captured.out
    assert captured.err == "error: mend first: packages\n"
