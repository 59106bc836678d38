"""What each of torchrun's two processes does for test_torchrun.py: all in one start, since importing takes seconds.

torchrun --nproc-per-node=2 -m tests.two_processes FOLDER COMMAND...
"""

import gc
import json
import os
import sys
import time
from pathlib import Path

import torch
from datasets import load_from_disk
from transformers import AutoTokenizer, DataCollatorWithPadding, set_seed

from kdhelpers import __main__, models, runtime
from kdhelpers.distillation import DistillationTrainer, DistillationTrainingArguments


def wait(folder: Path, rank: str) -> None:
    """The first process makes a mark, slowly; every process writes down whether it was there when its turn came."""
    mark = folder / "mark"
    with runtime.first_process_first():
        if rank == "0":
            time.sleep(1)
            mark.touch()
        (folder / f"waited-{rank}").write_text(str(mark.is_file()))
    group = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))
    (folder / f"limit-{rank}").write_text(str(group.options._timeout.days))


def losses(folder: Path, batch_size: int) -> list[float]:
    """The loss of each of four steps on the model and the rows in `folder`; `batch_size` is each process's."""
    set_seed(0)
    model = models.set_dropout(models.load_classifier(str(folder / "model"), None).model, 0.0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    trainer = DistillationTrainer(
        model=model, train_dataset=load_from_disk(str(folder / "rows")), processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        args=DistillationTrainingArguments(
            output_dir=str(folder / "out"), max_steps=4, per_device_train_batch_size=batch_size, learning_rate=1e-2,
            report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", logging_steps=1, alpha=0.5,
            temperature=3.0,
        ),
    )  # fmt: skip
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main(folder: Path, command: list[str]) -> int:
    """All of it; the command comes last, since it ends what the processes share."""
    rank = os.environ["RANK"]
    wait(folder, rank)
    (folder / f"losses-{rank}.json").write_text(json.dumps(losses(folder, 4)))
    return __main__.main(command)


if __name__ == "__main__":
    gc.freeze()  # Trainer collects garbage at every training's end: what the imports have left need not be searched
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
