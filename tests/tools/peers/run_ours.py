"""Our way: cached logits, batches of like length, bf16 where it is fast, no dropout.

The settings are those of `kdhelpers distill` on the default recipe, without its checkpoints and scores in between. Two
variants: "all" trains all weights, as the peers do (`--train-embeddings`); "frozen" leaves out the word embeddings.
"""

import tempfile
import time
from pathlib import Path

from datasets import Dataset
from transformers import set_seed

from kdhelpers import models, quiet, runtime
from kdhelpers.distillation import Training, add_teacher_logits, fit, ready_to_train
from kdhelpers.settings import recipe
from tests.tools.peers.task import read_task, report


def main() -> None:
    """Make the teacher's logits, then train on them; both count."""
    quiet()
    task = read_task()
    tokenizer = models.load_tokenizer(f"{task.kit}/teacher")
    teacher = models.load_classifier(f"{task.kit}/teacher", None).model
    student = models.load_classifier(f"{task.kit}/student", None, "student").model
    settings = recipe(
        "movie-snippets",
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        warmup=task.warmup,
        temperature=task.temperature,
        train_embeddings=task.variant == "all",
        seed=task.seed,
    )
    rows, machine = Dataset.from_list(task.read_rows()), runtime.this_machine()
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        rows, logits_seconds = add_teacher_logits(rows, rows, teacher, tokenizer, machine, Path(cache))
        ready_to_train(student, settings)
        set_seed(task.seed)
        how = {"save_strategy": "no"}
        result = fit(
            student,
            Training("student", rows, tokenizer, settings, machine, steps=task.steps(len(rows)), options=how),
        )
    report(task, result.model, started, [], logits_seconds=logits_seconds, precision=machine.precision)


if __name__ == "__main__":
    main()
