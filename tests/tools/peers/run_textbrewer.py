"""TextBrewer's way, after its SST-2 example: torch's AdamW, a linear schedule with warm-up, cross-entropy at T.

Two variants: "live", the GeneralDistiller that its documentation recommends, and "cached", the BasicDistiller with
`is_caching_logits`, the switch that it offers for speed.
"""

import time

import torch
from textbrewer import BasicDistiller, DistillationConfig, GeneralDistiller, TrainingConfig
from torch.utils.data import DataLoader, RandomSampler
from transformers import get_linear_schedule_with_warmup

from tests.tools.peers.task import read_task, report

PATCHES = [
    "torch's AdamW with weight decay 0 (its examples import AdamW from transformers, which has none any more)",
    "batches as plain dicts (it calls the model by position on anything else, transformers' BatchEncoding included)",
]


def logits_of(batch, outputs) -> dict:
    """The adaptor: what TextBrewer is to look at."""
    return {"logits": outputs.logits}


def main() -> None:
    """Distil with TextBrewer's own training loop."""
    task = read_task()
    teacher, student = task.models()
    rows, pad = task.inputs(), task.collator()
    cached = task.variant == "cached"
    distiller_class = BasicDistiller if cached else GeneralDistiller
    started = time.perf_counter()
    batches = DataLoader(
        rows, sampler=RandomSampler(rows), batch_size=task.batch_size, collate_fn=lambda rows: dict(pad(rows))
    )
    distiller = distiller_class(
        # its weights are saved once, at the end, not after every epoch
        TrainingConfig(device="cpu", output_dir=f"{task.output}/checkpoints", ckpt_epoch_frequency=task.epochs),
        DistillationConfig(temperature=task.temperature, kd_loss_type="ce", is_caching_logits=cached),
        teacher,
        student,
        logits_of,
        logits_of,
    )
    steps = task.steps(len(rows))
    with distiller:
        distiller.train(
            torch.optim.AdamW(student.parameters(), lr=task.learning_rate, weight_decay=0.0),
            batches,
            num_epochs=task.epochs,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": round(task.warmup * steps), "num_training_steps": steps},
        )
    report(task, student, started, PATCHES)


if __name__ == "__main__":
    main()
