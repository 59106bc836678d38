"""The comparison with other packages: its table and its pins. The comparison itself is run by hand."""

import dataclasses
import json
import re

import numpy as np

from tests.tools.peers.compare import REQUIREMENTS, ROOT, kept, result_lines, verdict
from tests.tools.peers.task import Task


def way(name: str, accuracy: float, seconds: float, patches: list[str]) -> dict:
    return {
        "name": name,
        "ours": name.startswith("ours"),
        "test_accuracy": accuracy,
        "seconds": seconds,
        "patches": patches,
        "paired": f"ours is as good as {name}",
    }


def test_table_says_how_ours_does_and_what_was_patched():
    result = {
        "rows": 8070,
        "test_rows": 1000,
        "epochs": 2,
        "batch_size": 32,
        "threads": 2,
        "seeds": [42],
        "teacher_accuracy": 0.839,
        "untrained_accuracy": 0.609,
        "versions": ["textbrewer==0.2.1.post1"],
        "ways": [
            way("ours", 0.83, 50.0, []),
            way("ours, frozen", 0.82, 40.0, []),
            way("TextBrewer", 0.83, 200.0, ["a", "b"]),
            way("torchdistill", 0.84, 100.0, ["b", "c"]),
        ],
    }
    lines = "\n".join(result_lines(result))
    assert re.search(r"TextBrewer +83.0 % +200.0 +4.0x +1, 2", lines)
    assert re.search(r"torchdistill +84.0 % +100.0 +2.0x +2, 3", lines)
    assert "patch 3: c" in lines
    assert "faster than ours" not in lines
    assert "faster than TextBrewer: yes (+0.0 points, 4.0x)" in lines
    assert "faster than torchdistill: NO (-1.0 points, 2.0x)" in lines
    assert "of 1 seed." in lines
    assert "(+0.0 points, 4.0x)\n  ours is as good as TextBrewer" in lines


def test_ways_are_compared_over_seeds_and_rows():
    """Better by far with one seed of three: a test seed by seed would have found a difference."""
    labels = np.ones(1000, int)

    def runs(*accuracies):
        return [{"seed": seed, "answers": (np.arange(1000) < 10 * share).astype(int)} for seed, share in accuracies]

    ours = runs((42, 84.3), (43, 80.3), (44, 80))
    said = verdict({"ours": ours, "theirs": runs((42, 80), (43, 80), (44, 80))}, labels, "ours", "theirs")
    assert said.startswith("ours shows no evidence of a difference from theirs: +1.5 points over 3 seeds (+4.3, +0.3,")


def test_only_a_training_of_the_same_settings_is_kept(tmp_path):
    task = Task("kit", 8070, "abc", str(tmp_path), "all", 3, 32, 3e-4, 4.0, 0.1, seed=42)
    assert kept(task, threads=2) is None, "nothing there"
    (tmp_path / "task.json").write_text(json.dumps(dataclasses.asdict(task)))
    (tmp_path / "result.json").write_text(json.dumps({"seconds": 5.0, "threads": 2}))
    assert kept(task, threads=2) is None, "no student"
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model.safetensors").touch()
    assert kept(task, threads=2)["seconds"] == 5.0
    assert kept(task, threads=1) is None
    assert kept(dataclasses.replace(task, rows=3000), threads=2) is None


def test_both_environments_have_the_same_torch_and_transformers():
    pins = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    ours = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    shared = [pin for pin in pins if pin.split("==")[0] in ("torch", "transformers", "accelerate")]
    assert len(shared) == 3
    assert set(shared) <= set(ours)
