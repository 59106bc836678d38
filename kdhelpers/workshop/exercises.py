"""Answers to the exercises. Each check prints one of three things and never raises:

passed; not yet, with what is wrong; not attempted (the answer is still `...`).
"""

import shlex
from collections.abc import Callable

import torch
from scipy import stats

from kdhelpers import arguments, checks, losses, models
from kdhelpers.errors import UserError


def _judge(answer, judge: Callable[[object], str | None]) -> None:
    """Print the verdict; `judge` gives back what is wrong, or None."""
    if answer is ...:
        print("not attempted: put your answer in place of the ... and run the cell again")
        return
    try:
        wrong = judge(answer)
    except Exception as error:  # a reader's half-finished function may raise anything
        wrong = f"your answer raised {type(error).__name__}: {error}"
    print("passed" if wrong is None else f"not yet: {wrong}")


def _off(answer: float, right: float, within: float) -> str | None:
    """What is wrong with a number, without giving the right one away; None if it is near enough."""
    return None if abs(answer - right) < within else f"{answer:.4g} is too {'large' if answer > right else 'small'}"


def embedding_share(answer: float) -> None:
    """00: the share of the 3-layer student's parameters that are word embeddings."""

    def judge(share):
        teacher = models.load_classifier(models.EMBEDDED_BACKBONE, ["negative", "positive"]).model
        student = models.student_from_layers(teacher, (2, 4, 6))
        table = student.get_input_embeddings().weight.numel()
        right = table / models.count_parameters(student)
        if abs(share - 100 * right) < 1:
            return "that is a percentage; give a share between 0 and 1"
        if abs(share - table / models.count_parameters(teacher)) < 0.005:
            return "that is the table's share of the teacher; divide by the student's parameters"
        return None if abs(share - right) < 0.005 else f"the table has {table:,} of the student's parameters"

    _judge(answer, judge)


def read_differently(answer: Callable) -> None:
    """01: a function (teacher_tokenizer, student_tokenizer, texts) -> the texts whose ids differ."""

    def judge(function):
        tokenizer = models.load_tokenizer(models.EMBEDDED_BACKBONE)
        other = checks.swap_pieces(tokenizer, "zebra", "moth")
        silent = models.load_tokenizer(models.EMBEDDED_BACKBONE)
        silent.model_input_names = ["input_ids", "attention_mask"]
        texts = ["a plain film", "a zebra and a moth", "a long " * 600]
        if list(function(tokenizer, silent, texts)):
            return "tokenizers that differ only in token_type_ids read every text alike; compare the input_ids"
        found = list(function(tokenizer, other, texts))
        if not found:
            return "'a zebra and a moth' is read differently and was not found"
        return None if found == [texts[1]] else f"expected [{texts[1]!r}], got {found!r}"

    _judge(answer, judge)


def padding_share(answer: Callable) -> None:
    """02: a function (lengths, batch_size) -> share of slots that are padding, each batch padded to its longest."""

    def judge(function):
        lengths = [4, 8, 2, 2, 6]
        right = 1 - sum(lengths) / (8 * 2 + 2 * 2 + 6)
        got = function(lengths, 2)
        if abs(got - (1 - sum(lengths) / (8 * 5))) < 1e-6:
            return "that pads every row to the longest of all; each batch is padded to its own longest"
        if abs(got - (1 - right)) < 1e-6:
            return "that is the share that is text; padding is the rest"
        return (
            None
            if abs(got - right) < 1e-6
            else f"for lengths {lengths} in batches of 2: expected {right:.3f}, got {got:.3f}"
        )

    _judge(answer, judge)


def calibration_gap(answer: Callable) -> None:
    """03: a function (confidence, correct) -> mean confidence minus accuracy, as a fraction."""

    def judge(function):
        confidence, correct = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([True, True, False, False])
        got = float(function(confidence.numpy(), correct.numpy()))
        if abs(got + 0.25) < 1e-6:
            return "the sign: an overconfident model has more confidence than accuracy, and a positive gap"
        return (
            None if abs(got - 0.25) < 1e-6 else f"mean confidence is 0.75, accuracy 0.50: expected 0.25, got {got:.3f}"
        )

    _judge(answer, judge)


def distillation_loss(answer: Callable) -> None:
    """04: a function (student_logits, teacher_logits, labels, alpha, temperature) -> loss."""

    def judge(function):
        generator = torch.Generator().manual_seed(0)
        student, teacher = (3 * torch.randn(8, 3, generator=generator) for _ in range(2))
        labels = torch.arange(8) % 3
        right = losses.distillation_loss(student, teacher, labels, alpha=0.3, temperature=4.0)
        got = function(student, teacher, labels, 0.3, 4.0)
        soft = losses.soft_target_loss(student, teacher, 4.0)
        hard = losses.hard_label_loss(student, labels)
        if torch.isclose(got, 0.3 * hard + 0.7 * soft / 16, rtol=1e-4):
            return "T^2 is missing: at T = 4 the teacher counts 16 times too little"
        if torch.isclose(got, 0.7 * hard + 0.3 * soft, rtol=1e-4):
            return "alpha is the labels' weight, 1 - alpha the teacher's; they have changed places"
        if torch.isclose(got, 0.7 * hard + 0.3 * soft / 16, rtol=1e-4):
            return "both mistakes are still in it"
        if torch.isclose(got, 0.3 * hard + 0.7 * losses.soft_target_loss(teacher, student, 4.0), rtol=1e-4):
            return "the teacher is the target: KL(teacher || student), not the other way round"
        return None if torch.isclose(got, right, rtol=1e-4) else f"expected {right:.4f}, got {float(got):.4f}"

    _judge(answer, judge)


def mcnemar(answer: float) -> None:
    """05: the exact McNemar p for 30 rows gained and 14 lost."""

    def judge(p):
        right = stats.binomtest(30, 44, 0.5).pvalue
        if abs(p - right / 2) < 1e-4:
            return "that counts one direction; a split as uneven the other way is as unlikely, so p is twice that"
        if abs(p - stats.binomtest(30, 1000, 0.5).pvalue) < 1e-4:
            return "rows on which both agree toss no coin: 44 are left, not 1,000"
        return _off(p, right, 1e-4)

    _judge(answer, judge)


def search_space(answer: Callable) -> None:
    """06: a function of an Optuna trial: alpha 0 to 0.25, T 2 to 6, 2 or 3 layers, learning rate 1e-4 to 6e-4 (log)."""

    def judge(function):
        from optuna.trial import FixedTrial

        asked = {"alpha": 0.1, "temperature": 3.0, "layers": 2, "learning_rate": 3e-4}
        trial = FixedTrial(asked)
        got = function(trial)
        if not isinstance(got, dict):
            return "it must give back a dictionary, name: trial.suggest_...(...)"
        missing = sorted(set(asked) - set(got))
        if missing:
            return f"missing: {', '.join(missing)}"
        wanted = {"alpha": (0, 0.25), "temperature": (2, 6), "layers": (2, 3), "learning_rate": (1e-4, 6e-4)}
        for name, (low, high) in wanted.items():
            asked_for = trial.distributions[name]
            if not hasattr(asked_for, "low"):
                return f"{name} is a range here: take suggest_int or suggest_float, not suggest_categorical"
            if (asked_for.low, asked_for.high) != (low, high):
                return f"{name} goes from {asked_for.low:g} to {asked_for.high:g}, not from {low:g} to {high:g}"
        if not trial.distributions["learning_rate"].log:
            return "the learning rate wants log=True: from 1e-4 to 2e-4 is as big a step as from 3e-4 to 6e-4"
        return None

    _judge(answer, judge)


def dollars_saved(answer: float) -> None:
    """07: dollars a month: 50 million sentences, 12 ms against 0.6 ms, $0.20 an hour."""

    def judge(dollars):
        right = 50e6 * (12.0 - 0.6) / 1000 / 3600 * 0.20
        if abs(dollars - right / 50) < 0.01:
            return "that is for one million sentences; there are fifty"
        if abs(dollars - 50e6 * 0.6 / 1000 / 3600 * 0.20) < 0.01:
            return "that is what the student costs; take it from what the teacher costs"
        return _off(dollars, right, 0.05)

    _judge(answer, judge)


def spot_plan(answer) -> None:
    """08: the plan of a spot job on an ml.g4dn.xlarge: sst2, temperature 4, 60 minutes, 90 with waiting."""

    def judge(plan):
        from kdhelpers import sagemaker_job

        try:
            sagemaker_job.check(plan)
        except UserError as error:
            return str(error)
        settings = sagemaker_job.run_settings(plan)
        wanted = {"instance": "ml.g4dn.xlarge", "spot": True, "max_minutes": 60, "max_wait_minutes": 90}
        for name, value in wanted.items():
            if getattr(plan, name) != value:
                return f"{name} is {getattr(plan, name)}, not {value}"
        if (settings.recipe.name, settings.recipe.temperature) != ("sst2", 4.0):
            return f"it would run {settings.recipe.name} at temperature {settings.recipe.temperature:g}"
        return None

    _judge(answer, judge)


def distill_command(answer: str) -> None:
    """09: the options for a 4-layer student, temperature 4, on train.csv, with the teacher run live."""

    def judge(line):
        try:
            settings, _ = arguments.run_settings(shlex.split(line))
        except UserError as error:
            return f"the command line says: {error}"
        wanted = {"student_layers": 4, "temperature": 4.0}
        for name, value in wanted.items():
            if getattr(settings.recipe, name) != value:
                return f"{name.replace('_', ' ')} would be {getattr(settings.recipe, name)}, not {value}"
        if settings.files is None or settings.files.train != "train.csv":
            return "the rows would not come from train.csv"
        return (
            None if settings.live_teacher else "the teacher's logits would come from the cache, not from a live teacher"
        )

    _judge(answer, judge)
