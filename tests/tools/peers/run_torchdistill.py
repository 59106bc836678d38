"""torchdistill's way, after its GLUE example and its configuration for SST-2, written here as a dict.

Two variants: "fp32", and "bf16" with mixed precision through accelerate, which its example is launched with.
"""

import time

from tests.tools.peers.task import Task, read_task, report  # first: it makes torchvision importable

# isort: split
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import RandomSampler
from torchdistill.core.distillation import get_distillation_box
from torchdistill.datasets.registry import register_collate_func
from torchdistill.optim.registry import register_scheduler
from transformers import get_linear_schedule_with_warmup

PATCHES: list[str] = []


def training_config(task: Task, rows: int) -> dict:
    """What its YAML file says, with our numbers."""
    model = {"forward_proc": "forward_batch_only_as_kwargs", "forward_hook": {"output": ["classifier"]}}
    loss = {
        "student_module_path": "classifier",
        "student_module_io": "output",
        "teacher_module_path": "classifier",
        "teacher_module_io": "output",
        "temperature": task.temperature,
        "alpha": 0.0,
        "reduction": "batchmean",
    }
    steps = task.steps(rows)
    return {
        "num_epochs": task.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "collate_fn": "pad",
            "requires_supp": False,
            "kwargs": {"batch_size": task.batch_size},
        },
        "teacher": model | {"requires_grad": False},
        "student": model | {"requires_grad": True},
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": task.learning_rate, "weight_decay": 0.0},
            "max_grad_norm": 1.0,
        },
        "scheduler": {
            "key": "get_linear_schedule_with_warmup",
            "kwargs": {"num_warmup_steps": round(task.warmup * steps), "num_training_steps": steps},
            "scheduling_step": 1,
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": loss}, "weight": 1.0}}},
        },
    }


def accelerator_for(task: Task) -> Accelerator | None:
    """None for fp32 on one CPU, where it would change nothing."""
    if task.variant == "fp32":
        return None
    if not hasattr(AcceleratorState, "use_fp16"):
        AcceleratorState.use_fp16 = property(lambda state: state.mixed_precision == "fp16")
        PATCHES.append("accelerate's state given back its property use_fp16, which torchdistill asks for")
    return Accelerator(cpu=True, mixed_precision=task.variant)


def main() -> None:
    """Distil with torchdistill's box; the loop over it is the user's, as in its examples."""
    task = read_task()
    teacher, student = task.models()
    rows = task.inputs()
    register_collate_func(task.collator(), key="pad")
    register_scheduler(get_linear_schedule_with_warmup)
    started = time.perf_counter()
    box = get_distillation_box(
        teacher, student, {"train": rows}, training_config(task, len(rows)), torch.device("cpu"), None, False, 1,
        accelerator_for(task),
    )  # fmt: skip
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch in box.train_data_loader:
            box.post_forward_process(loss=box.forward_process(batch, targets=None, supp_dict=None))
        box.post_epoch_process()
    if box.accelerator:
        student = box.accelerator.unwrap_model(box.student_model, keep_fp32_wrapper=False)
    report(task, student, started, PATCHES)


if __name__ == "__main__":
    main()
