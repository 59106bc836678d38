"""What every way of training gets and returns. Runs in our environment and in the peers'."""

import importlib.util
import json
import math
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers


def mend_torchvision() -> list[str]:
    """Make torchvision importable: torchdistill and, where it is installed, transformers import it, unused here.

    A torchvision whose compiled part does not fit the installed torch fails when it describes two of its operators.
    Returns what was changed: nothing where torchvision works, or is not there.
    """
    if importlib.util.find_spec("torchvision") is None:
        return []
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        import torchvision  # noqa: F401

        return ["torchvision's operators nms and qnms declared by hand: its compiled part does not fit torch"]
    return []


TORCHVISION = mend_torchvision()
INPUTS = ("input_ids", "token_type_ids", "attention_mask")


@dataclass(frozen=True)
class Task:
    """One training: where teacher, student and rows lie, where the result goes, and the settings that all share."""

    kit: str
    rows: int  # how many of them
    teacher: str  # the fingerprint of its weights
    output: str
    variant: str
    epochs: int
    batch_size: int
    learning_rate: float
    temperature: float
    warmup: float
    seed: int

    def read_rows(self) -> list[dict]:
        """The training rows, tokenised, not padded; a row whose label is withheld has the label -100."""
        return json.loads(Path(self.kit, "train.json").read_text(encoding="utf-8"))

    def inputs(self) -> list[dict]:
        """The rows as a model reads them. No labels: with soft targets only nothing looks at them."""
        return [{name: row[name] for name in INPUTS} for row in self.read_rows()]

    def steps(self, rows: int) -> int:
        """Optimizer steps of the whole training; the last batch of an epoch may be short."""
        return self.epochs * math.ceil(rows / self.batch_size)

    def models(self):
        """Teacher and student in fp32, as transformers loads them."""
        load = transformers.AutoModelForSequenceClassification.from_pretrained
        return load(Path(self.kit, "teacher")), load(Path(self.kit, "student"))

    def collator(self):
        """transformers' own: pads each batch to its longest row."""
        return transformers.DataCollatorWithPadding(
            transformers.AutoTokenizer.from_pretrained(Path(self.kit, "teacher"))
        )


def read_task() -> Task:
    """The task in the JSON file that the command line names; Python, NumPy and torch are seeded with its seed."""
    task = Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    random.seed(task.seed)
    np.random.seed(task.seed)
    torch.manual_seed(task.seed)
    return task


def report(task: Task, student, started: float, patches: list[str], **more) -> None:
    """Write the student and the seconds since `started`; `patches`: what was changed to make the way run."""
    seconds = time.perf_counter() - started
    student.save_pretrained(Path(task.output, "student"))
    facts = {"seconds": seconds, "threads": torch.get_num_threads(), "patches": [*TORCHVISION, *patches], **more}
    Path(task.output, "result.json").write_text(json.dumps(facts), encoding="utf-8")
