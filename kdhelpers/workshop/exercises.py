"""Answers to the exercises. Each check prints one of three things and never raises:

passed; not yet, with what is wrong; not attempted (the answer is still `...`). Numbers may be rounded to two digits.
"""

import copy
import dataclasses
import functools
import itertools
import math
import operator
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import optimize, stats
from scipy.special import log_softmax, softmax
from tokenizers.processors import TemplateProcessing

from kdhelpers import data, distillation, evaluation, models, storage
from kdhelpers.errors import UserError
from kdhelpers.settings import OTHER_NAMES, RunSettings, recipe, settings_from
from kdhelpers.workshop.kit import logits_of


def _check(judge: Callable[[Any], str | None]) -> Callable[[object], None]:
    """Make a check out of `judge`, which returns what is wrong with an answer, or None."""

    @functools.wraps(judge)
    def check(answer: object) -> None:
        if answer is ...:
            print("not attempted: put your answer in place of the ... and run the cell again")
            return
        try:
            ours = callable(answer) and str(getattr(answer, "__module__", "")).startswith("kdhelpers.")
            wrong = "that is the package's: write your own" if ours else judge(answer)
        except UserError as error:
            wrong = str(error)
        except Exception as error:  # a reader's half-finished function may raise anything
            wrong = f"your answer raised {type(error).__name__}: {error}"
            if not callable(answer) and "not callable" in str(error):
                wrong = "a function is wanted: give its name, without parentheses behind it"
        print("passed" if wrong is None else f"not yet: {wrong}")

    return check


def _said(answer: Any) -> Any:
    """What a reader's function returns. Raises UserError where it returns nothing."""
    if answer is None:
        raise UserError("that is None: is a return missing?")
    return answer


def _value(answer: Any) -> float:
    """An answer as a number. Raises UserError for what is none, naming the part of a library's result that is meant."""
    part = next((name for name in ("x", "pvalue", "logits") if hasattr(_said(answer), name)), None)
    if part:
        raise UserError(f"that is the whole result of a library's function: take its .{part}")
    try:
        return float(_array(answer).astype(float).item())
    except (TypeError, ValueError) as error:
        but = ": leave the $ out" if "$" in str(answer) else f", not {data.quoted(str(answer))}"
        raise UserError(f"a number is wanted{but}") from error


def _number(answer: float, right: float, mistakes: Mapping[str, float]) -> str | None:
    """What is wrong with a number: the mistake that leads to it, or its side. It may be rounded to two digits."""
    half, answer = 10 ** (math.floor(math.log10(right)) - 1) / 2, _value(answer)
    if abs(answer - right) <= half:
        return None
    for message, wrong in {**mistakes, "that is in percent; give a fraction": 100 * right}.items():
        if math.isclose(answer, wrong, rel_tol=0.01):
            return message
    return f"{answer:.4g} is too {'large' if answer > right else 'small'}"


def _function(
    answer: Callable, right: Callable, probes: list[tuple], mistakes: Mapping[str, Callable], tolerance: float = 1e-4
) -> str | None:
    """What is wrong with a function of numbers: the mistake that would return the same on a probe, or its value."""
    for probe in probes:
        got, expected = _value(answer(*copy.deepcopy(probe))), float(right(*probe))
        if math.isclose(got, expected, rel_tol=tolerance, abs_tol=6e-5):  # it may be rounded to four digits
            continue
        named = [message for message, wrong in mistakes.items() if math.isclose(got, wrong(*probe), rel_tol=1e-4)]
        return named[0] if named else f"expected {expected:.4f}, got {got:.4f}"
    return None


def _in_turn(answer: Any) -> Any:
    """An answer in parts, those of a dictionary by their names. Raises UserError for a set."""
    if isinstance(answer, set | frozenset):
        raise UserError("a set has no order: give a list or a tuple")
    if isinstance(answer, Mapping):
        return [answer[name] for name in sorted(answer)]
    return [*answer] if isinstance(answer, Iterator) else _said(answer)


def _two(answer: Any, wanted: str) -> list:
    """The two parts of an answer. Raises UserError, which says what is wanted, for any other number of them."""
    parts = list(answer) if isinstance(answer, Iterable) and not isinstance(answer, str | set | frozenset) else []
    if len(parts) != 2:
        raise UserError(f"two {wanted}")
    return parts


def _array(said: Any) -> np.ndarray:
    """What a function returns as an array: that may be a tensor, lists, or whatever yields its rows."""
    if isinstance(said := _said(said), torch.Tensor):
        said = said.detach().double() if said.is_floating_point() else said
    return np.asarray([*said] if isinstance(said, Iterator) else said)


def _texts(said: Any) -> list[str]:
    """The texts that a function returns. Raises UserError for whatever else: a yes or no, a number, whole rows."""
    found = [*said] if isinstance(_said(said), Iterable) else [said]
    if not all(isinstance(text, str) for text in found):
        raise UserError("return the texts themselves, in a list")
    return found


def _letters(answer: Any, known: Iterable[str]) -> set[str]:
    """The letters that an answer names: "ADE" and "A, d and E" alike. Raises UserError for others than the known."""
    if not isinstance(answer, Iterable) or not all(isinstance(part, str) for part in answer):
        raise UserError(f"letters are wanted, out of {', '.join(known)}")
    words = re.findall(r"[a-z]+", " ".join([answer] if isinstance(answer, str) else answer).lower())
    named = {*"".join(word for word in words if word not in ("and", "none"))}
    if strange := named - {*"".join(known).lower()}:
        raise UserError(f"there is no {sorted(strange)[0]!r}: the letters are {', '.join(known)}")
    return {letter for letter in known if letter.lower() in named}


def _sorted_out(answer: Any, known: Mapping[str, tuple[bool, str]], belongs: str, does_not: str) -> str | None:
    """The first letter that is named and does not belong, or belongs and is not named, and why."""
    named = _letters(answer, known)
    for letter, (wanted, why) in known.items():
        if (letter in named) != wanted:
            return f"{letter} {belongs if wanted else does_not}: {why}"
    return None


@_check
def learnt_from(answer: tuple[int, int]) -> str | None:
    """00: the rows that control and student (alpha 0) learn from, of 500 with a label and 20,000 without."""
    control, student = map(_value, _two(answer, "numbers are wanted: the control's rows, then the student's"))
    mistakes = {
        "without a teacher a row without a label teaches nothing": control in (20_000, 20_500),
        f"the control does not learn from {control:,.0f} rows: how many have a label?": control != 500,
        "the teacher answers for the labelled texts, too": student == 20_000,
        f"{student:,.0f} rows are not the student's: for which texts does the teacher answer?": student != 20_500,
    }
    return next((message for message, made in mistakes.items() if made), None)


@_check
def embedding_share(answer: float) -> str | None:
    """00: the share of the 3-layer student's parameters that are word embeddings."""
    teacher = models.load_classifier(models.EMBEDDED_BACKBONE, ["negative", "positive"]).model
    student = models.cut_layers(teacher, 3)
    table = models.count_parameters(student.get_input_embeddings())
    positions = student.config.max_position_embeddings * student.config.hidden_size
    whole = models.count_parameters(student)
    mistakes = {
        "that is its share of the teacher; divide by the student's": table / models.count_parameters(teacher),
        "only the table of tokens is meant, not that of positions": (table + positions) / whole,
        "that is two thirds, which is near: two digits are wanted": 2 / 3,
    }
    return _number(answer, table / whole, mistakes)


@_check
def read_differently(answer: Callable) -> str | None:
    """01: a function (teacher_tokenizer, student_tokenizer, texts) -> the texts whose ids differ."""
    ours, silent, bare = (models.load_tokenizer(models.EMBEDDED_BACKBONE) for _ in range(3))
    silent.model_input_names = ["input_ids", "attention_mask"]
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")  # neither [CLS] nor [SEP]
    theirs = models.swap_tokens(ours, "zebra", "moth")
    alike, differ = ["a plain film", "a long " * 600], ["a zebra film", "a zebra and a moth", "a long " * 200 + "zebra"]
    found = _texts(answer(ours, theirs, differ + alike))
    if found == alike:
        return "those are the texts that both read alike"
    lost, extra = ([text for text in a if text not in b] for a, b in ((differ, found), (found, differ)))
    if lost:
        return f"{data.quoted(lost[0])} is read differently and was not found; compare all the ids, in order"
    if extra:
        return f"{data.quoted(extra[0])} is read alike by both and was found"
    if list(answer(ours, silent, differ + alike)):
        return "tokenizers that differ only in token_type_ids read every text alike; compare the input_ids"
    if len(list(answer(ours, bare, differ + alike))) < len(differ + alike):
        return "two tokenizers that add other special tokens read every text differently: compare those ids, too"
    return None


MUST_AGREE = {  # whether a way of teaching needs equal tokenizers, and why
    "A": (True, "a live teacher is fed the student's ids: they have to mean the same to both"),
    "B": (False, "the column was made before, by the teacher, with its own tokenizer"),
    "C": (True, "PKD's loss compares the insides of both models, and for that one batch of ids goes into both"),
    "D": (False, "a file answers for texts, and no id is in it"),
    "E": (False, "hard answers are a column too, of classes in place of logits"),
}


@_check
def must_agree(answer: str) -> str | None:
    """01: the letters of the ways of teaching that need equal tokenizers."""
    return _sorted_out(answer, MUST_AGREE, "needs equal tokenizers", "can do without")


LEAKS = {  # training texts that nobody wrote about a film: whether each leaks, and why
    "A FINE film": (True, "it differs in case alone"),
    "slow  and\tlong ": (True, "it differs in white space alone"),
    "So so": (True, "its label is another there, and the text is the same: compare texts, not rows"),
    "Dull": (True, "its label is withheld, and its text is learnt from all the same: the teacher answers for it"),
    "A fine film of its kind": (False, "a held-out text is a part of it: compare whole texts"),
    "A fine": (False, "it is a part of a held-out text: compare whole texts"),
    "Slow andlong": (False, "a space between two words is missing, so that it has other words"),
    "Long and slow": (False, "two texts are the same if they have the same words in the same order"),
    "Slow and long!": (False, "it differs in more than case and white space"),
    "Twice": (False, "it stands twice among the training rows, and is not held out"),
    "Fresh": (False, "no held-out row has it"),
}


@_check
def leaks(answer: Callable) -> str | None:
    """02: a function (train, held_out), lists of rows with text and label, -> the training texts that leak."""
    train = [{"text": text, "label": data.UNLABELLED if text in ("Dull", "Twice") else 1} for text in LEAKS]
    train.append({"text": "twice", "label": 1})
    held_out = [{"text": "A fine film", "label": 1}, {"text": "Slow and long", "label": 1}]
    held_out += [{"text": "Dull", "label": 0}, {"text": "So so", "label": 0}, {"text": "Seen by nobody", "label": 0}]
    found = _texts(answer(*copy.deepcopy((train, held_out))))
    unlike = [text for text in found if text not in LEAKS]
    found = [data.fold(text) for text in found]
    if "seen by nobody" in found:
        return "'Seen by nobody' stands among the held-out rows alone: look for texts that both have"
    for text, (leaking, why) in LEAKS.items():
        if (data.fold(text) in found) != leaking:
            return f"{text!r} {'leaks' if leaking else 'does not leak'}: {why}"
    if unlike:
        return f"{unlike[0][:60]!r} is not among the training texts: return those as they stand there"
    return None


@_check
def padding_share(answer: Callable) -> str | None:
    """02: a function (lengths, batch_size) -> share of slots that are padding, each batch padded to its longest."""
    share = data.padding_share
    mistakes = {
        "each batch is padded to its own longest, not to the longest of all": lambda rows, n: share(rows, len(rows)),
        "that is the share that is text; padding is the rest": lambda rows, n: 1 - share(rows, n),
        "that is in percent; give a fraction": lambda rows, n: 100 * share(rows, n),
        "the rows stay in their order: do not sort them": lambda rows, n: share(sorted(rows), n),
        "the last batch has fewer rows: count only those": lambda rows, n: share([*rows, *[0] * (-len(rows) % n)], n),
        "divide by all slots, padding and text, not by the text alone": lambda rows, n: (
            share(rows, n) / (1 - share(rows, n))
        ),
        "the last batch is smaller, and counts too": lambda rows, n: share(rows[: len(rows) // n * n], n),
        "that is the mean of the batches' shares; batches differ in size: count all slots": lambda rows, n: float(
            np.mean([share(rows[at : at + n], n) for at in range(0, len(rows), n)])
        ),
    }
    return _function(answer, share, [([2, 2, 6, 3, 4], 2), ([2, 2, 6, 3, 4], 3)], mistakes)


@_check
def temperature_for(answer: Callable) -> str | None:
    """03: a function (two logits, share) -> the T at which the leading class has that share, or None."""

    def right(logits: Any, share: float) -> float:
        return abs(logits[0] - logits[1]) / math.log(share / (1 - share))

    mistakes = {
        "that is 1 / T; T divides the logits": lambda *probe: 1 / right(*probe),
        "T is above 0: the class that leads has the larger logit, be it the first or the second": (
            lambda *probe: -right(*probe)
        ),
        "the larger logit alone says nothing: the difference of the two counts": (
            lambda logits, share: right([logits.max(), 0.0], share)
        ),
        "the other class has a share, too: the odds are share / (1 - share)": (
            lambda logits, share: right(logits, share / (1 + share))
        ),
        "to raise a share, T goes below 1: does your search?": lambda *probe: max(1.0, right(*probe)),
    }
    probes: list[tuple] = [(np.array([-1.5, 2.5]), 0.9), (np.array([2.0, -1.0]), 0.6), (np.array([1.0, 3.0]), 0.95)]
    if answer(*probes[0]) is not None and answer(*probes[-1]) is None:
        return "for the logits 1 and 3 and the share 0.95 it returns None: T may be below 1"
    wrong = _function(answer, right, probes, mistakes, tolerance=0.02)
    for pair, share, why in (
        ((2.0, -1.0), 0.4, "T never changes which class leads"),
        ((2.0, -1.0), 0.5, "it comes near as T grows, and never there"),
        ((1.0, 1.0), 0.7, "there the logits are equal, and so are the shares, at every T"),
    ):
        try:
            got = None if wrong else answer(np.array(pair), share)
        except (ZeroDivisionError, ValueError) as error:  # of the formula, and of a search that ends nowhere
            got = f"an error, {type(error).__name__}"
        if got is not None:
            return f"no T brings about a share of {share}: {why}. Return None there, not {str(got)[:40]}"
    return wrong


@_check
def calibration_gap(answer: Callable) -> str | None:
    """03: a function (logits, labels) -> mean confidence minus accuracy, as a fraction."""

    def gap(confidence: Callable) -> Callable:
        return lambda logits, labels: confidence(logits).mean() - (logits.argmax(-1) == labels).mean()

    def row_by_row(logits: np.ndarray, labels: np.ndarray) -> float:
        return np.abs(softmax(logits, axis=-1).max(-1) - (logits.argmax(-1) == labels)).mean()

    right = gap(lambda logits: softmax(logits, axis=-1).max(-1))
    mistakes = {
        "the sign: surer than right is a positive gap, less sure than right a negative one": lambda *p: -right(*p),
        "take the two means, then their difference; no absolute value row by row": row_by_row,
        "that is the calibration error, a distance averaged over the rows; here one difference of two means": (
            evaluation.expected_calibration_error
        ),
        "confidence is the probability of the class that leads, right or wrong; that is the label's": (
            lambda logits, labels: gap(lambda x: softmax(x, axis=-1)[range(len(x)), labels])(logits, labels)
        ),
        "that is in percentage points; give a fraction": lambda *probe: 100 * right(*probe),
        "a logit is no probability: a softmax over the classes makes one": gap(lambda logits: logits.max(-1)),
        "a softmax over the classes of a row, not over the rows": gap(lambda logits: softmax(logits, axis=0).max(-1)),
        "confidence is the probability of the class that leads, whichever it is; that is class 1's": (
            gap(lambda logits: softmax(logits, axis=-1)[:, 1])
        ),
    }
    logits = np.array([[2.0, -1.0], [0.5, 1.0], [-1.0, 1.0], [3.0, 0.0], [0.2, 0.1]], dtype=np.float32)
    probes = [(logits, np.array(labels)) for labels in ([0, 1, 0, 1, 1], [0, 1, 1, 0, 0])]
    return _function(answer, right, probes, mistakes)


@_check
def fit_temperature(answer: Callable) -> str | None:
    """03: a function (logits, labels) -> the T at which the labels are likeliest."""
    draw = np.random.default_rng(0)
    for true in (2.5, 0.4):
        # a tenth of the labels are wrong whatever the logits say: so that no other measure has its best at the same T
        margin = draw.normal(0, 3, 4000)
        labels = (draw.random(4000) < 0.05 + 0.9 / (1 + np.exp(-margin))).astype(int)
        # in float64: in float32 the loss hides the small steps by which scipy's minimize finds its way
        logits = true * np.stack([-margin, margin], axis=1) / 2
        right, got = _likeliest_temperature(logits, labels), _value(answer(logits, labels))
        if math.isclose(got, right, rel_tol=0.05):
            continue
        if math.isclose(got, 1 / right, rel_tol=0.05):
            return "that is 1 / T; T divides the logits"
        if right < 1 and got > 0.98:
            return f"your search ends at {got:.3g}; a model that is not sure enough has its T below 1"
        if math.isclose(got, 1.0):
            return "T = 1 changes nothing; accuracy cannot find T, since no T changes which class leads"
        if math.isclose(got, _likeliest_temperature(softmax(logits, axis=-1), labels), rel_tol=0.05):
            return "cross_entropy takes logits / T, and no softmax before it"
        return f"expected T = {right:.2f}, got {got:.2f}: the least mean cross-entropy decides"
    return None


def _likeliest_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    own = np.arange(len(labels)), labels
    found = optimize.minimize_scalar(lambda t: -log_softmax(logits / t, axis=-1)[own].mean(), bounds=(0.05, 20))
    return float(found.x)


def _loss_with(*mistakes: str) -> Callable:
    """The loss of 04 with the mistakes of these names, or with none."""

    def loss(*probe: Any) -> torch.Tensor:
        student, teacher, labels, alpha, temperature = probe
        known = labels >= 0
        divided, filled = student / (temperature if "hot" in mistakes else 1), labels.clamp(min=0)
        hard = distillation.hard_label_loss(divided, filled if "clamped" in mistakes else labels)
        hard = hard / (known.float().mean() if "lone" in mistakes else 1) * (len(labels) if "summed" in mistakes else 1)
        others = distillation.soft_target_loss(student[~known], teacher[~known], temperature) * (~known).float().mean()
        if "masked" in mistakes:
            student, teacher = student[known], teacher[known]
        pair = (teacher, student) if "turned" in mistakes else (student, teacher)
        soft = distillation.soft_target_loss(*pair, temperature)
        soft = soft / (3 if "over classes" in mistakes else 1) / (temperature**2 if "unsquared" in mistakes else 1)
        weight = 1 - alpha if "swapped" in mistakes else alpha
        return weight * hard + (1 - weight) * soft + (weight * others if "unweighted" in mistakes else 0)

    return loss


@_check
def distillation_loss(answer: Callable) -> str | None:
    """04: a function (student_logits, teacher_logits, labels, alpha, temperature) -> loss; label -100: none."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = [3 * torch.randn(8, 3, generator=generator) for _ in range(2)], torch.arange(8) % 3
    mistakes = {
        "T^2 is missing: at T = 4 the teacher counts 16 times too little": _loss_with("unsquared"),
        "alpha is the labels' weight, 1 - alpha the teacher's; they have changed places": _loss_with("swapped"),
        "both mistakes are still in it": _loss_with("unsquared", "swapped"),
        "the teacher is the target: KL(teacher || student), not the other way round": _loss_with("turned"),
        'a mean over classes, too: KL is a mean over rows, reduction="batchmean"': _loss_with("over classes"),
        "a lone label counts for the whole batch: sum over the labelled rows, divide by all": _loss_with("lone"),
        "the labels' part is summed, and not divided by the number of rows": _loss_with("summed"),
        "the teacher's term is for all rows, labelled or not": _loss_with("masked"),
        "a row without a label keeps the factor 1 - alpha": _loss_with("unweighted"),
        "T is for the teacher's part alone: the labels' takes the student's logits undivided": _loss_with("hot"),
        "a row without a label counts as if it were of class 0": _loss_with("clamped"),
    }
    known = [labels.where(torch.arange(8) < count, data.UNLABELLED) for count in (8, 2, 0)]
    probes: list[tuple] = [(*logits, some, 0.3, 4.0) for some in known]
    if math.isnan(_value(answer(*copy.deepcopy(probes[0])))):
        return "it is NaN: kl_div wants probabilities for its target, unless log_target says otherwise"
    wrong = _function(answer, _loss_with(), probes[:2], mistakes)
    if wrong is None:
        if math.isnan(float(answer(*copy.deepcopy(probes[2])))):
            return "in a batch without any label it is NaN, the mean of nothing"
        gradients: list[torch.Tensor] = []
        for loss in (answer, _loss_with()):
            student, *others = copy.deepcopy(probes[0])
            value = loss(student.requires_grad_(), *others)
            if not getattr(value, "requires_grad", False):
                return "no gradient reaches the student: return a tensor, and detach nothing"
            gradients += torch.autograd.grad(value, student)
        if not torch.allclose(gradients[0], gradients[1], atol=1e-5):
            return "the value is right, its gradient is not: a part of it does not reach the student's logits"
    return wrong or _function(answer, _loss_with(), probes[2:], mistakes)


@_check
def teacher_column(answer: Callable) -> str | None:
    """04: a function (model, tokenizer, texts) -> logits [texts, classes], in the order of the texts."""
    model = models.cut_layers(models.load_classifier(models.EMBEDDED_BACKBONE, ["negative", "positive"]).model, 1)
    head = model.get_parameter("classifier.weight")  # ten times as large as a new one is, so that every mistake shows
    torch.nn.init.normal_(head, std=0.2, generator=torch.Generator().manual_seed(0))
    tokenizer = models.load_tokenizer(models.EMBEDDED_BACKBONE)
    texts = ["A long film " * (index % 5) + f"about number {index}." for index in range(70)]
    right = logits_of(model, tokenizer, texts).log_softmax(-1)
    try:
        said = _said(answer(model.train(), tokenizer, texts))
    except AttributeError as error:  # transformers' for a batch in place of its parts, and for lists
        if str(error) and "size" not in str(error):
            raise
        return 'a batch is a dictionary of tensors: tokenizer(..., return_tensors="pt"), then model(**batch)'
    if hasattr(said, "logits"):
        return "that is the whole result of the model: take its .logits"
    said = [*said] if isinstance(said, Iterator) else said
    if isinstance(said, list | tuple) and isinstance(said[0], torch.Tensor):
        if any(one.ndim == 2 and len(one) > 1 for one in said):
            return "that is a list of batches: make one of them, a row a text"
        said = torch.cat([torch.atleast_2d(one) for one in said])
    got = torch.as_tensor(said)
    if got.shape != right.shape:
        return f"for {len(texts)} texts and 2 classes it returns the shape {tuple(got.shape)}"
    if got.requires_grad:
        return "a column needs no gradient: answer under torch.no_grad()"
    got = got.float()
    if torch.allclose(got, right.exp(), atol=1e-3):
        return "those are probabilities: keep the logits, which T is to divide"
    got = got.log_softmax(-1)
    if torch.allclose(got, right, atol=1e-3):
        return None
    if torch.allclose(got.sort(0).values, right.sort(0).values, atol=1e-3):
        return "the answers are right, and in another order than the texts"
    alike = torch.isclose(got, right, atol=1e-3).all(-1)
    if alike[::5].all() and not alike[4::5].any():  # the shortest texts, and the longest
        return "the short texts are right, and the long ones are not: are they read to their end?"
    return "those are not its answers: is it in eval mode, and does it get the attention mask?"


@_check
def least_gained(answer: Callable) -> str | None:
    """05: a function n -> of n rows that tell two models apart, the fewest gained for better, p < 0.05; or None."""
    for rows, right in {44: 29, 60: 39, 6: 6, 5: None}.items():
        try:
            got = answer(rows)
        except (StopIteration, ValueError):  # of next() and min(), where there is nothing to find
            if right:
                raise
            got = rows
        if right is None:
            return None if got is None else "five rows can never: even with all 5 gained p is 0.062, so return None"
        if got is None:
            why = "does your loop reach n itself?" if right == rows else "is a return missing?"
            return f"for {rows} rows it returns None, and {right} gained are enough: {why}"
        if not (gained := _value(got)).is_integer():
            return f"a whole number of rows is wanted, not {gained:.3g}"
        gained = int(gained)
        if 0 <= gained < rows / 2:
            return f"with {gained} of {rows} rows gained the rest are lost: p may be small there, but for *worse*"
        p = stats.binomtest(min(gained, rows), rows, 0.5).pvalue
        if p >= 0.05:
            why = "; half of that counts one direction only" if p < 0.1 else ""
            return f"{gained} gained of {rows} are too few: p = {p:.3f} there{why}"
        if gained != right:
            return f"fewer than {gained} of {rows} are enough: p is below 0.05 with {right}, too"
    return None


WAYS = {  # comparisons that nobody made: whether each speaks for a way of training, and why
    "A": (False, "two models were compared, and another seed would make two others"),
    "B": (True, "the three seeds agree, and their interval leaves 0 out"),
    "C": (False, "two of three seeds gain next to nothing, and the interval holds 0"),
    "D": (False, "however many rows there are, two models were compared"),
    "E": (True, "a small gain is one, too, and the seeds' interval leaves 0 out"),
}


@_check
def models_or_ways(answer: str) -> str | None:
    """05: the letters of the comparisons that speak for a way of training, and not for one model alone."""
    return _sorted_out(answer, WAYS, "speaks for a way of training", "does not speak for a way of training")


@_check
def pseudo_labels(answer: Callable) -> str | None:
    """05b: a function (teacher_logits, labels) -> the labels of the student that learns hard answers."""
    logits = np.array([[2.0, -1.0], [0.1, 0.3], [1.5, 1.0], [-3.0, 2.0], [0.2, 0.1]])
    labels, right = np.array([1, -100, 0, -100, -100]), logits.argmax(-1)
    got = _array(answer(logits, labels))
    if got.shape != right.shape:
        return f"for 5 rows it returns the shape {got.shape}; one class a row is wanted"
    if got.dtype.kind not in "fiub":
        return "class ids are wanted, 0 and 1, as in labels"
    if np.array_equal(got, right):
        return None
    if np.array_equal(got, np.where(labels >= 0, labels, right)):
        return "known labels are kept: the student beside it sees none, so two things would differ at once"
    return f"expected {right.tolist()}, the likeliest class of every row, got {got.round(2).tolist()}"


def _invented(*points: float) -> evaluation.SeedsComparison:
    *seeds, low, high = (value / 100 for value in points)
    return evaluation.SeedsComparison(dict(enumerate(seeds, 42)), sum(seeds) / len(seeds), (low, high), "invented")


FOREST = {  # comparisons that nobody made, for 05b: three seeds' differences in points, then the interval's ends
    "A": _invented(2.9, 1.8, 2.5, 0.9, 3.9),
    "B": _invented(0.1, 0.9, -0.1, -0.8, 1.4),
    "C": _invented(4.3, 0.2, 1.2, -1.1, 4.8),
    "D": _invented(-1.2, -2.1, -1.5, -2.9, -0.4),
    "E": _invented(0.7, 0.5, 0.9, 0.2, 1.3),
}


@_check
def forest_plot(answer: tuple[str, str]) -> str | None:
    """05b: the letters of the comparisons that show a difference, and of those that rule out a gain of 2 points."""
    shown, ruled_out = (_letters(said, FOREST) for said in _two(answer, "strings of letters are wanted"))
    for name, one in FOREST.items():
        low, high = (100 * end for end in one.interval95)
        where = f"{name}'s interval goes from {low:+.1f} to {high:+.1f}: it"
        if (name in shown) != (low > 0 or high < 0):
            holds = "holds 0, and shows no difference" if name in shown else "leaves 0 out, and shows a difference"
            return f"{where} {holds}"
        if (name in ruled_out) != (high < 2):
            holds = "reaches 2, so such a gain is possible" if name in ruled_out else "ends below 2, which rules it out"
            return f"{where} {holds}"
    return None


NEXT_STEP = {  # the cases of 05b: the right choice, and how its row of the table of what to do begins
    "A": ("3", "verdict: no evidence, too few rows | label more test rows"),
    "B": ("1", "verdict: no evidence, enough rows | ship the control"),
    "C": ("4", "verdict: better | repeat with --seeds 3"),
    "D": ("2", "it must be faster | first the teacher itself in int8"),
}


@_check
def next_step(answer: Any) -> str | None:
    """05b: the numbers of what to do next in the cases A to D, however they are written."""
    answer = _in_turn(answer)
    parts = [answer] if isinstance(answer, str) or not np.ndim(answer) else answer
    chosen = re.findall(r"\d+", " ".join(one if isinstance(one, str) else f"{_value(one):g}" for one in parts))
    chosen = [*chosen[0]] if len(chosen) == 1 else chosen
    if len(chosen) != len(NEXT_STEP):
        return "four numbers are wanted, one for each of A, B, C and D"
    for (case, (right, row)), number in zip(NEXT_STEP.items(), chosen, strict=True):
        if number != right:
            return f"{case} is not {number}. The table's row: {row}"
    return None


@_check
def rows_needed(answer: float) -> str | None:
    """06: the rows with which chance moves two equal trials by less than 1 point, 95 times in 100; 15 % disagree."""
    right = 0.15 * (1.96 / 0.01) ** 2
    mistakes = {
        "1.96 / 0.01 has to be squared: the noise shrinks with the root of the rows": right / (1.96 / 0.01),
        "a point is 0.01, not 1": right * 0.01**2,
        "15 % is 0.15, not 15": 100 * right,
        "that is the root of it": right**0.5,
        "95 of 100 are 1.96 standard deviations, not one": right / 1.96**2,
        "take 1.96, as noise does, not 2": right * (2 / 1.96) ** 2,
        "the variance is 0.15 here, not 0.25: most rows do not tell the two apart": right * 0.25 / 0.15,
        "1.645 holds 90 cases of 100, since chance goes both ways": right * (1.645 / 1.96) ** 2,
        "if those are 2.4 times the 1,000 rows: the noise shrinks with the root of the rows": 2400.0,
    }
    return _number(answer, right, mistakes)


@_check
def search_space(answer: Callable) -> str | None:
    """06: a function of an Optuna trial: alpha 0 to 0.25, T 2 to 6, 2 or 3 layers, learning rate 1e-4 to 6e-4 (log)."""
    from optuna.distributions import FloatDistribution, IntDistribution
    from optuna.trial import FixedTrial

    asked = {"alpha": 0.1, "temperature": 3.0, "layers": 2, "learning_rate": 3e-4}
    wanted = {"alpha": (0, 0.25), "temperature": (2, 6), "layers": (2, 3), "learning_rate": (1e-4, 6e-4)}
    trial = FixedTrial(asked)
    try:
        got = answer(trial)
    except ValueError as error:  # Optuna's, for a name that it has no value for, and for a range that is none
        if "not found" in str(error):
            return f"the trial is asked for {', '.join(asked)}, by these names ({str(error).partition('.')[0]})"
        if "log" in str(error):
            return "one range begins at 0, where a logarithm has no value: leave log out"
        return str(error)
    if not isinstance(got, dict) or set(got) != set(asked):
        return f"it must return a dictionary of {', '.join(asked)}, each trial.suggest_...(...)"
    for name, (low, high) in wanted.items():
        kind = trial.distributions.get(name)
        if kind is None or got[name] != asked[name]:
            return f"{name} must be what the trial suggests under that name"
        if not isinstance(kind, IntDistribution if name == "layers" else FloatDistribution):
            return f"{name} is a range here: take suggest_" + ("int" if name == "layers" else "float")
        if name != "layers" and getattr(kind, "step", None):
            return f"{name} has a step, so that few values are possible: leave step out"
        if (kind.low, kind.high) != (low, high):
            return f"{name} goes from {kind.low:g} to {kind.high:g}, not from {low:g} to {high:g}"
    if not getattr(trial.distributions["learning_rate"], "log", False):
        return "the learning rate wants log=True: from 1e-4 to 2e-4 is as big a step as from 3e-4 to 6e-4"
    return None


@_check
def dollars_saved(answer: float) -> str | None:
    """07: dollars a month: 50 million sentences, 12 ms against 0.6 ms, $0.20 an hour."""
    teacher, student = (50e6 * ms / 1000 / 3600 * 0.20 for ms in (12.0, 0.6))
    mistakes = {
        "that is for one million sentences; there are fifty": (teacher - student) / 50,
        "that is what the student costs; take it from what the teacher costs": student,
        "that is what the teacher costs; take from it what the student costs": teacher,
        "1,000 milliseconds are a second": 1000 * (teacher - student),
        "that is in hours; an hour is $0.20": 5 * (teacher - student),
    }
    return _number(answer, teacher - student, mistakes)


_Timed = dataclasses.make_dataclass("_Timed", ("name", "p50_ms", "p95_ms", "accuracy", "megabytes"))
# models that nobody has measured; B, C and E are equally accurate, and C, the smallest of them, lies between in time
BUDGETED = [_Timed("A", 2, 9, 0.9, 20), _Timed("B", 3, 4, 0.85, 60), _Timed("C", 4, 5, 0.85, 15)]
BUDGETED += [_Timed("D", 1, 1.5, 0.8, 5), _Timed("E", 5, 5.5, 0.85, 30)]


@_check
def model_for_budget(answer: Callable) -> str | None:
    """07: a function (timings, budget) -> the name of the most accurate model whose p95 is within it, or None."""
    mistakes = {
        (1.7, "A"): "that is the most accurate of all, and over the budget",
        (6.0, "A"): "that is p50; the slow tail, p95, has to be within the budget",
        (6.0, "B"): "that is not the smallest: of equally accurate ones the smallest is wanted",
        (6.0, "E"): "that is not the smallest: of equally accurate ones the smallest is wanted",
        (6.0, "D"): "that is the fastest and smallest, not the most accurate that is fast enough",
        (4.0, "D"): "a p95 of just the budget is within it",
        (1.2, "D"): "that is p50; the slow tail, p95, has to be within the budget",
    }
    wanted = {1.7: "D", 6.0: "C", 4.0: "B", 1.2: None}
    for models_of, (budget, right) in itertools.product((BUDGETED, BUDGETED[::-1]), wanted.items()):
        try:
            got = answer(copy.deepcopy(models_of), budget)
        except (ValueError, IndexError) as error:  # of max() and of [0] where nothing is left
            if right is not None:
                raise
            return f"None where none is fast enough; yours raised {type(error).__name__}"
        if hasattr(got, "name"):
            return "that is the whole entry: return its .name"
        if got != right:
            said = f"within {budget:g} ms the answer is {right}, not {str(got)[:40]}"
            said = "your function returns None: is a return missing?" if got is None else said
            return mistakes.get((budget, str(got)), said if right else "None where none is fast enough")
    return None


PAGE_FILES = {  # the files of 07's page, and what each is there for
    "A": ("student.html", "for a double click, page and student have to be in one file"),
    "B": ("index.html", "asked for a folder, a server shows its index.html, which loads what lies beside it"),
    "C": ("model_quantized.onnx", "weights are in an ONNX file, here in 8 bits"),
    "D": ("config.json", "a model's configuration says how many classes there are, and what each is called"),
}


@_check
def page_files(answer: Any) -> str | None:
    """07: the files that four uses of the page's folder need, A to D."""
    answer = _in_turn(answer)
    names = [str(one).strip() for one in (re.split(r"[\s,]+", answer) if isinstance(answer, str) else answer)]
    if len(names) != len(PAGE_FILES):
        return "four names of files are wanted, one for each of A, B, C and D"
    for (use, (right, why)), name in zip(PAGE_FILES.items(), names, strict=True):
        last = PureWindowsPath(name).name  # it knows both kinds of slashes
        if last == right.partition(".")[0]:
            return f"{use}: the ending of the file's name is missing"
        if last == "onnx":
            return f"{use}: onnx is a folder; which file is in it?"
        if last != right:
            return f"{use} is not {data.quoted(name)}: {why}"
    return None


def _other_run(settings: RunSettings, wanted: RunSettings) -> str | None:
    """The first option in which a run differs from the wanted one, in a sentence."""
    got, right = (storage.computed_by(dataclasses.asdict(one)) for one in (settings, wanted))
    wrong = next((name for name in right if got[name] != right[name]), None)
    return f"{wrong.replace('_', ' ')} would be {got[wrong]}, not {right[wrong]}" if wrong else None


@_check
def spot_plan(answer: Any) -> str | None:
    """08: the plan of a spot job on an ml.g4dn.xlarge: sst2, temperature 4, 60 minutes, 90 with waiting."""
    from kdhelpers import sagemaker

    if not isinstance(getattr(answer, "hyperparameters", None), dict):
        return "the hyperparameters are a dictionary, {name: value}, the first thing in a JobPlan"
    sagemaker.check(answer)
    wanted = {"instance": "ml.g4dn.xlarge", "spot": True, "max_minutes": 60, "max_wait_minutes": 90}
    for name, value in wanted.items():
        if getattr(answer, name) != value:
            return f"{name} is {getattr(answer, name)}, not {value}"
    return _other_run(settings_from(answer.hyperparameters), recipe("sst2", temperature=4))


@_check
def spot_cost(answer: float) -> str | None:
    """08: the most that the machine of that plan can cost, in dollars."""
    from kdhelpers import sagemaker

    hour = sagemaker.PRICES["ml.g4dn.xlarge"]
    mistakes = {
        "waiting for a machine is not billed: 60 minutes, not 90": 1.5 * hour,
        "the two minutes in which a stopped job may end are not counted here": 62 / 60 * hour,
        "that is in cents": 100 * hour,
    }
    wrong, less = _number(answer, hour, mistakes), "all minutes count, at full price: nobody promises a spot discount"
    return less if wrong and wrong.endswith("too small") else wrong


STILL_BILLED = {
    "a": (False, "the machine ends with the script, or at the plan's limit"),
    "b": (True, "nobody but you deletes files in S3: cents a month"),
    "c": (False, "a serverless endpoint is billed while it answers"),
    "d": (True, "an endpoint on a machine of its own is billed by the hour, asked or not, until it is deleted"),
}


@_check
def still_billed(answer: set[str]) -> str | None:
    """08: which of four things go on costing money after a job has ended: their letters."""
    named = _letters(answer, STILL_BILLED)
    return next((f"{key}: {why}" for key, (billed, why) in STILL_BILLED.items() if (key in named) != billed), None)


@_check
def distill_command(answer: str) -> str | None:
    """09: a Hub's teacher, a 4-layer student, temperature 4, on reviews.csv alone, with the teacher run live."""
    from kdhelpers.cli.parsing import read_options

    said = " ".join(map(str, answer)) if isinstance(answer, list | tuple) else str(answer)
    words = shlex.split(said.replace("\\\n", " "))
    words = list(itertools.dropwhile(lambda word: not word.startswith("--"), words))  # "distill" may stand first
    spelt = {name.replace("-", "_"): value for name, value in read_options(words).items()}
    options = {OTHER_NAMES.get(name, name): value for name, value in spelt.items()}
    options |= {"train": os.path.normpath(options["train"])} if "train" in options else {}
    wanted = {"train": "reviews.csv", "teacher": "textattack/bert-base-uncased-SST-2", "student_layers": 4}
    wanted |= {"temperature": 4, "live_teacher": True}
    wrong = _other_run(settings_from(options), settings_from(wanted))
    if wrong and wrong.startswith("live teacher"):
        return "the teacher's logits would come from the cache, not from a live teacher"
    left_out = [name for name in wanted if name not in options]
    return wrong or (f"{left_out[0]} is right by luck: the recipe has it today, so name it" if left_out else None)


def _compound(texts: list[str]) -> np.ndarray:
    """VADER's score of each text, from -1 to 1."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer()
    return np.array([lexicon.polarity_scores(text)["compound"] for text in texts])


@_check
def rule(answer: Callable) -> str | None:
    """10: a function from texts to two probabilities each, without a label, better than guessing."""
    rows = data.movie_snippets().splits["validation"]
    shares = _array(answer(list(rows["text"][:]))).astype(float)
    if shares.shape != (len(rows), 2):
        return f"for {len(rows)} texts it returns the shape {shares.shape}, not ({len(rows)}, 2)"
    if (shares < 0).any() or not np.allclose(shares.sum(1), 1, atol=0.01):
        return "each row holds two probabilities that sum to 1"
    labels, undecided = np.array(rows["label"][:]), int((shares[:, 0] == shares[:, 1]).sum())
    accuracy = (shares.argmax(-1) == labels).mean()
    if accuracy > 0.53:
        score = _compound(rows["text"][:])
        copied = ((shares[:, 1] > 0.5) == (score > 0))[score != 0].mean() > 0.98
        again = _array(answer([f"{text} {text}" for text in reversed(rows["text"][:])])).argmax(-1)[::-1]
        if (again == labels).mean() <= 0.53:
            return "it knows these rows by heart, and not the same words in other texts: a rule looks no label up"
        return "that is VADER: use words of your own" if copied else None
    if (shares.argmin(-1) == labels).mean() > 0.53:
        return "negative comes first and positive second: the columns have changed places"
    why = f"; {undecided} of them get one half, which counts as negative: take commoner words" if undecided else ""
    return f"it is right on {100 * accuracy:.1f} % of the validation rows, and more than 53 % is wanted{why}"


@_check
def shares(answer: Callable) -> str | None:
    """10: a function from replies to probabilities [replies, 2], negative and positive; one half each where unclear."""
    replies = ["positive", "negative", "I cannot say", "negative", "I cannot say"]
    right = np.array([[0, 1], [1, 0], [0.5, 0.5], [1, 0], [0.5, 0.5]])
    got = _array(answer(list(replies)))
    if got.shape != right.shape:
        return f"for {len(replies)} replies it returns the shape {got.shape}, not ({len(replies)}, 2)"
    if got.dtype.kind not in "fiu":
        return "each row holds two numbers"
    if np.allclose(got, right, atol=0.01):
        return None
    clear, unclear = got[right[:, 0] != 0.5], got[2]
    if np.allclose(clear, right[right[:, 0] != 0.5][:, ::-1], atol=0.01):
        return "negative comes first and positive second: the columns have changed places"
    if not np.allclose(got.sum(1), 1):
        return "each row holds two probabilities that sum to 1, also where the teacher cannot say"
    if unclear.max() > 0.6:
        side = ("negative", "positive")[int(unclear.argmax())]
        return f"'I cannot say' counts as {side}: of two classes it is one half each"
    return f"expected {right.tolist()}, got {got.round(2).tolist()}"


@_check
def ensemble(answer: Callable) -> str | None:
    """10: a function from several teachers' logits, a list of [rows, classes], to their mean as a column."""
    # the first is very sure, the others lean the other way: the means of logits and of probabilities name other classes
    teachers = np.array([[[9.0, 0, 1], [0, 2, 1]], [[0, 2, 1], [6, 5, 4]], [[5, 7, 5], [1, 0, 3]]])
    for each in (teachers, teachers[1:]):
        right = np.log(softmax(each, axis=-1).mean(0))
        got = _array(answer([*each.copy()])).astype(float)
        if got.shape != right.shape:
            return f"for {len(each)} teachers, 2 rows and 3 classes it returns the shape {got.shape}, not (2, 3)"
        if not np.isfinite(got).all():
            return "it holds the logarithm of 0: count how sure each teacher is, not votes"
        if np.allclose(log_softmax(got, axis=-1), right, atol=1e-3):
            continue
        why = "there one sure teacher outvotes two others; make probabilities first, then their mean"
        mistakes = {
            "those are probabilities; a column holds logits: take the logarithm": np.exp(right),
            f"that is the mean of logits or of log-probabilities: {why}": each.mean(0),
            f"that is the sum of logits or of log-probabilities: {why}": each.sum(0),
            "a softmax over the classes of a row, not over the rows": np.log(softmax(each, axis=1).mean(0)),
            "a softmax over the classes of a row, not over the teachers": np.log(softmax(each, axis=0).mean(0)),
            "exp(logit) is no probability yet: divide by the row's sum": np.log(np.exp(each).mean(0)),
            "that is one teacher alone": each[0],
        }
        named = [said for said, wrong in mistakes.items() if np.allclose(log_softmax(got - wrong, axis=-1), -np.log(3))]
        if not named and np.allclose(got, _array(answer([*3 * each])), atol=1e-3):  # of the same classes, and surer
            return "it is the same however sure the teachers are: that is what counts, not votes"
        first = [one[0].round(2).tolist() for one in (right, got)]
        return named[0] if named else "for a row {} is expected, not {}".format(*first)
    return None


@_check
def cheapest_pair(answer: Callable) -> str | None:
    """11: the fewest milliseconds at which the pair has an accuracy, from what `evaluation.cascade` returns."""
    accuracies, milliseconds = [0.845, 0.83, 0.86, 0.80, 0.84, 0.85], [5.5, 4.5, 6.5, 2.5, 3.5, 10.5]  # in no order
    curve = pd.DataFrame({"accuracy": accuracies, "milliseconds": milliseconds})
    curve["threshold"], curve["student_share"] = [0.75, 0.7, 0.8, 0.5, 0.6, 1.1], [0.7, 0.8, 0.5, 1.0, 0.9, 0.0]
    curve["dollars"] = curve["milliseconds"] / 36  # of a million answers, at 10 cents an hour

    def enough(pick: Callable, above: Callable = operator.ge) -> Callable:
        return lambda wanted: pick(curve["milliseconds"][above(curve["accuracy"], wanted)])

    mistakes: dict[str, Callable] = {
        "that is the slowest pair that is accurate enough": enough(max),
        "that is the fastest of all, accurate enough or not": lambda wanted: min(milliseconds),
        "that is the most accurate pair": lambda wanted: 6.5,
        "that is the pair whose accuracy is nearest; a faster one may be more accurate": (
            lambda wanted: curve["milliseconds"][(curve["accuracy"] - wanted).abs().idxmin()]
        ),
        "that is a row's number, not its milliseconds": enough(lambda rows: rows.idxmin()),
        "that is the first that is accurate enough, and the rows stand in no order": enough(lambda rows: rows.iloc[0]),
        "a pair with exactly the wanted accuracy will do, too": enough(min, operator.gt),
    }

    def found(wanted: float) -> float:
        got = _value(answer(curve.copy(), wanted))
        if np.isclose(curve[["accuracy", "threshold", "dollars"]], got).any():
            raise UserError("that stands in another column: milliseconds are wanted")
        return got

    probes = [(wanted,) for wanted in (0.83, 0.85, 0.8, 0.835)]
    return _function(found, enough(min), probes, mistakes)


AGREEING = [  # invented: rows with a confidence of 0.9 and more, of 0.8 and more, and so on, and how many of them agree
    [(200, 200), (100, 96), (100, 90), (300, 298), (300, 270), (100, 40)],
    [(200, 200), (100, 92), (100, 60)],  # of the first 300: one-sided p 0.034, two-sided 0.063
    [(58, 58), (242, 241)],  # all of 58 agree, and that is not certain enough
    [(59, 59)],  # and this is, if only with the row at the threshold itself
]
STRICTER = "p at most 0.05 is enough, and a threshold that has it was turned down"
NONE_PASSES = "a threshold passes there: do you begin with the highest, and count those that agree?"


def _passes_few(answer: Callable) -> bool:
    """Whether a threshold passes at which 40 of 100 rows agree: that is the other side of the test."""
    sure, agrees = np.full(100, 0.9), np.arange(100) < 40
    return bool(answer({"validation": sure, "test": sure}, {"validation": agrees, "test": agrees}, [0.9]) == 0.9)


def _thresholds(sure: np.ndarray, agrees: np.ndarray, candidates: list[float]) -> tuple[float, dict[str, float]]:
    """The threshold that 11 asks for, and what each mistake finds in its place."""

    def passing(alternative: str = "greater", above: Callable = operator.ge) -> list[bool]:
        alone = [agrees[above(sure, at)] for at in candidates]
        tests = [stats.binomtest(int(one.sum()), len(one), 0.95, alternative=alternative) for one in alone]
        return [bool(one.pvalue <= 0.05) for one in tests]

    def last(passing: list[bool]) -> float:
        return [math.inf, *candidates][[*passing, False].index(False)]

    good, right = list(itertools.compress(candidates, passing())), last(passing())
    by_chance = [agrees[sure >= at].mean() >= 0.95 for at in candidates]
    return right, {
        "that one fails: the one before it is wanted, infinity where none is": max(
            [at for at in candidates if at < right], default=math.nan
        ),
        "rows at the threshold itself count, too": last(passing(above=operator.gt)),
        STRICTER: last(passing("two-sided")),
        "that is the first that passes: go on down, as long as they pass": max(good),
        "stop at the first no: who goes on tries until luck says yes": min(good),
        "that 95 % of these rows agree may be luck: is p at most 0.05 there?": last(by_chance),
        "every threshold passes: does the test ask about 95 %, and is p at most 0.05?": candidates[-1],
        NONE_PASSES: math.inf,
    }


@_check
def lowest_threshold(answer: Callable) -> str | None:
    """11: a function (sure, agrees, candidates) -> the lowest threshold with an agreement of 95 % and more."""
    for bands in AGREEING:
        candidates = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4][: len(bands)]
        ends = zip(candidates, bands, strict=True)
        sure = np.concatenate([[at + 0.05] * (rows - 1) + [at] for at, (rows, _) in ends])
        agrees = np.concatenate([np.arange(rows) < agreeing for rows, agreeing in bands])
        others, said = np.repeat(candidates, 2000), []
        for verdict in (True, False):  # of every test row: neither may change the answer
            both = {"validation": agrees.copy(), "test": np.full(len(others), verdict)}
            said.append(answer({"validation": sure.copy(), "test": others.copy()}, both, candidates[:]))
        got, again = (math.nan if one is None else _value(one) for one in said)
        if not np.isclose(got, again, equal_nan=True):
            return "test rows have had a say: choose on validation rows, so that test rows can check it"
        right, mistakes = _thresholds(sure, agrees, candidates)
        if said[0] is None and right == math.inf:
            return "where no threshold passes infinity is wanted, not None"
        if not math.isclose(_value(said[0]), right):
            named = [message for message, wrong in mistakes.items() if math.isclose(got, wrong)]
            if named and named[0] in (STRICTER, NONE_PASSES) and _passes_few(answer):
                return 'more than 95 % is the question, with p at most 0.05: alternative="greater"'
            return named[0] if named else f"expected {right:.4g}, got {got:.4g}"
    return None
