"""Our way: cached logits, batches of like length, bf16 where it is fast, no dropout.

The settings are those of `kdhelpers distill` on the default recipe, without its checkpoints and scores in between. Two
variants: "all" trains all weights, as the peers do (`--train-embeddings`); "frozen" leaves out the word embeddings.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

from datasets import Dataset
from kdhelpers.logits import add_teacher_logits
from kdhelpers.recipes import MOVIE_SNIPPETS
from transformers import set_seed

from kdhelpers import fitting, models, quiet
from tests.peers.task import read_task, report


def main() -> None:
    """Make the teacher's logits, then train on them; both count."""
    quiet()
    task = read_task()
    tokenizer = models.load_tokenizer(f"{task.kit}/teacher")
    teacher = models.load_classifier(f"{task.kit}/teacher", None).model
    student = models.load_classifier(f"{task.kit}/student", None, "student").model
    recipe = dataclasses.replace(
        MOVIE_SNIPPETS,
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        warmup=task.warmup,
        alpha=0.0,
        temperature=task.temperature,
        train_embeddings=task.variant == "all",
    )
    rows, precision = Dataset.from_list(task.read_rows()), fitting.choose_precision("auto")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rows, logits_seconds = add_teacher_logits(
            rows, teacher, tokenizer, bf16=precision == "bf16", cache=Path(folder, "logits")
        )
        arguments = fitting.training_arguments(
            Path(folder),
            recipe,
            steps=task.steps(len(rows)),
            evaluations=1,
            seed=task.seed,
            precision=precision,
            has_validation=False,
            options={"save_strategy": "no", "use_cpu": True},
        )
        fitting.ready_to_train(student, recipe)
        set_seed(task.seed)
        result = fitting.fit("student", student, rows, None, tokenizer, arguments)
    report(task, result.model, started, [], logits_seconds=logits_seconds, precision=precision)


if __name__ == "__main__":
    main()
