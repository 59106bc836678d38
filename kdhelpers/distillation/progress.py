"""A training's progress bar: one, named, in one place, gone when the training ends however it ends."""

from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kdhelpers import runtime


class ProgressBar(TrainerCallback):
    """Counts the optimizer steps of each training of a Trainer; validation moves it not and brings no second bar.

    Trainer does not tell a callback that it was interrupted, so whoever trains closes it:
    `with ProgressBar("student") as bar: trainer.add_callback(bar); trainer.train()`.
    """

    def __init__(self, name: str):
        self.name = name
        self._open = ExitStack()
        self._bar = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A new bar, in the one process that speaks; after a resume it starts where the checkpoint stands."""
        self.close()
        if state.is_world_process_zero:
            bar = runtime.progress_bar(state.max_steps, self.name, state.global_step, "steps")
            self._bar = self._open.enter_context(bar)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """One step further."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The bar goes."""
        self.close()

    def close(self) -> None:
        """Take the bar away; nothing where there is none."""
        self._open.close()
        self._bar = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
