"""The exercises' checks: three answers, and a message of its own for each mistake that readers make."""

import dataclasses
import functools
import math
import re
from pathlib import Path, PureWindowsPath

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy import optimize, stats

from kdhelpers import data, distillation, evaluation, models
from kdhelpers.workshop import exercises, logits_of
from tests.test_notebooks import NOTEBOOKS, code_cells, tags


def differ(first, second, texts):
    return [t for t in texts if first(t)["input_ids"] != second(t)["input_ids"]]


def differ_by(**options):
    """The same with options of the tokenizers."""
    options = {"truncation": "max_length" in options, **options}
    return lambda a, b, texts: differ(functools.partial(a, **options), functools.partial(b, **options), texts)


def read_alike(first, second, texts):
    return [t for t in texts if first(t)["input_ids"] == second(t)["input_ids"]]


def whole_encodings_differ(first, second, texts):
    return [t for t in texts if dict(first(t)) != dict(second(t))]


def ids_out_of_order(first, second, texts):
    return [t for t in texts if set(first(t)["input_ids"]) != set(second(t)["input_ids"])]


def gap(confidence, correct):
    return confidence.mean() - correct.mean()


def gap_with(confidence):
    """The calibration gap by this reading of confidence."""
    return lambda logits, labels: gap(confidence(torch.as_tensor(logits)).numpy(), logits.argmax(-1) == labels)


def surest(logits):
    return torch.as_tensor(logits).softmax(-1).max(-1).values.numpy()


calibration = gap_with(lambda logits: logits.softmax(-1).max(-1).values)


def of_the_label(logits, labels):
    """The gap with the probability of the right class in place of confidence."""
    shares = torch.as_tensor(logits).softmax(-1).numpy()[np.arange(len(labels)), labels]
    return gap(shares, logits.argmax(-1) == labels)


def loss(swapped=False, squared=True, reduction="batchmean", turned=False, hard="sum", divided=True):
    def function(student, teacher, labels, alpha, temperature):
        known = F.cross_entropy(student, labels, reduction=hard)
        known = known / (len(labels) if hard == "sum" and divided else 1)
        if turned:
            student, teacher = teacher, student
        soft = F.kl_div(
            F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1), reduction=reduction
        )
        soft = soft * (temperature**2 if squared else 1)
        return (1 - alpha) * known + alpha * soft if swapped else alpha * known + (1 - alpha) * soft

    return function


def loss_of_labelled_rows(student, teacher, labels, alpha, temperature):
    """Its labels' part is right; the teacher's is masked, too."""
    known = labels >= 0
    hard = F.cross_entropy(student, labels, reduction="sum") / len(labels)
    return alpha * hard + loss()(student[known], teacher[known], labels[known], 0, temperature) * (1 - alpha)


def labels_in_place(student, teacher, labels, alpha, temperature):
    """Right, though it writes on its labels."""
    known = labels >= 0
    labels[~known] = 0
    hard = (F.cross_entropy(student, labels, reduction="none") * known).sum() / len(labels)
    return alpha * hard + loss()(student, teacher, labels, 0, temperature) * (1 - alpha)


def without_gradient(*given, part):
    """The right value; one part of it does not move the student: "labels" or "teacher"."""
    student, teacher, labels, alpha, temperature = given
    known = labels >= 0
    left = {part: student.detach()}
    hard = F.cross_entropy(left.get("labels", student)[known], labels[known], reduction="sum") / len(labels)
    return alpha * hard + loss()(left.get("teacher", student), teacher, labels, 0, temperature) * (1 - alpha)


def labels_at_temperature(student, teacher, labels, alpha, temperature):
    """Its labels' part divides the logits by T, too."""
    hard = F.cross_entropy(student / temperature, labels, reduction="sum") / len(labels)
    return alpha * hard + loss()(student, teacher, labels, 0, temperature) * (1 - alpha)


def logarithms_as_target(student, teacher, labels, alpha, temperature):
    pair = (F.log_softmax(logits / temperature, -1) for logits in (student, teacher))
    hard = F.cross_entropy(student, labels, reduction="sum") / len(labels)
    return alpha * hard + (1 - alpha) * temperature**2 * F.kl_div(*pair, reduction="batchmean")


def unweighted_without_labels(*given):
    """Right as long as one row has a label; else the teacher's part alone."""
    return loss()(*given) / (1 if (given[2] >= 0).any() else 1 - given[3])


def unweighted_rows(student, teacher, labels, alpha, temperature, swapped=False, squared=True):
    """Row by row: 1 - alpha where there is a label, the teacher's part alone where there is none."""
    kept = 1 - alpha if swapped else alpha
    hard = F.cross_entropy(student, labels, reduction="none")
    soft = F.kl_div((student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="none")
    soft = soft.sum(-1) * (temperature**2 if squared else 1)
    return torch.where(labels >= 0, kept * hard + (1 - kept) * soft, soft).mean()


def nan_without_labels(*given):
    """Right as long as one row has a label."""
    return loss()(*given) * (1 if (given[2] >= 0).any() else float("nan"))


def column(train=False, gradient=False, mask=True, finish=lambda logits: logits, order=None, longest=None):
    def function(model, tokenizer, texts):
        batch = tokenizer(texts[::order], padding=True, truncation=True, max_length=longest, return_tensors="pt")
        kept = {name: value for name, value in batch.items() if mask or name != "attention_mask"}
        with torch.set_grad_enabled(gradient):
            return finish(model.train(train)(**kept).logits)

    return function


def temperature_of(power=1):
    def function(logits, labels):
        def cross_entropy(t):
            return float(F.cross_entropy(torch.as_tensor(logits) / t, torch.as_tensor(labels)))

        return optimize.minimize_scalar(cross_entropy, bounds=(0.1, 10), method="bounded").x ** power

    return function


def temperature_by_steps(start):
    """Finite differences from `start` on, which a loss in float32 hides."""

    def function(logits, labels):
        def cross_entropy(t):
            return F.cross_entropy(torch.as_tensor(logits) / torch.as_tensor(t), torch.as_tensor(labels)).item()

        return optimize.minimize(cross_entropy, x0=[start]).x

    return function


def shares_of(logits):
    return torch.as_tensor(logits).softmax(-1).numpy()


def least(measure):
    """T by another measure of probabilities and labels."""

    def function(logits, labels):
        grid = np.geomspace(0.1, 10, 400)
        return min(grid, key=lambda t: measure(torch.as_tensor(logits / t).softmax(-1).numpy(), labels))

    return function


def space(high=0.25, log=True, layers="suggest_int", given=None, step=None):
    def function(trial):
        kinds = {"suggest_categorical": ([2, 3],)}
        found = {
            "alpha": trial.suggest_float("alpha", 0.0, high, step=step),
            "temperature": trial.suggest_float("temperature", 2.0, 6.0),
            "layers": getattr(trial, layers)("layers", *kinds.get(layers, (2, 3))),
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 6e-4, log=log),
        }
        return found | (given or {})

    return function


def last_batch(full):
    """Counted as if it were full, or left out."""

    def function(lengths, size):
        kept = [lengths[at : at + size] for at in range(0, len(lengths), size)]
        kept = kept if full else [batch for batch in kept if len(batch) == size]
        slots = sum(size * max(batch) for batch in kept)
        return 1 - sum(map(sum, kept)) / slots

    return function


def emptied(lengths, size):
    """Right, and nothing is left of what it was given."""
    text, slots = sum(lengths), 0
    while lengths:
        batch = [lengths.pop(0) for _ in range(min(size, len(lengths)))]
        slots += len(batch) * max(batch)
    return 1 - text / slots


def mean_of_batches(lengths, size):
    kept = [lengths[at : at + size] for at in range(0, len(lengths), size)]
    return sum(1 - sum(batch) / (len(batch) * max(batch)) for batch in kept) / len(kept)


def padded_to_longest_of_all(lengths, batch_size):
    return 1 - sum(lengths) / (max(lengths) * len(lengths))


def exact_p(gained, rows):
    return stats.binomtest(gained, rows, 0.5).pvalue


def normal_p(gained, rows):
    return stats.chi2.sf((2 * gained - rows) ** 2 / rows, 1)


def least_gained(n, p=exact_p, sides=2, start=None):
    first = n // 2 if start is None else start
    return next((gained for gained in range(first, n + 1) if p(gained, n) * sides / 2 < 0.05), None)


def least_gained_by_loop(n):
    """The same from the upper end."""
    found = None
    for gained in range(n, n // 2, -1):
        if exact_p(gained, n) < 0.05:
            found = np.int64(gained)
    return found


TABLE, STUDENT, TEACHER = 30522 * 384, 17_390_594, 22_713_986
LIVE = (
    "--train reviews.csv --teacher textattack/bert-base-uncased-SST-2 --student-layers 4 --temperature 4 --live-teacher"
)
SPENT, WOULD_BE = (50e6 * ms / 1000 / 3600 * 0.2 for ms in (0.6, 12.0))
SAVED = WOULD_BE - SPENT


# check: (right answers, then wrong ones, each with a word of its message)
def words(texts):
    """A rule of two dozen words, as a reader might write one."""
    score = np.array([sum((w in PRAISE) - (w in BLAME) for w in text.lower().split()) for text in texts])
    return np.stack([1 / (1 + np.exp(score)), 1 / (1 + np.exp(-score))], axis=1)


PRAISE = "best good great funny moving love beautiful fine smart fun perfect rich".split()
BLAME = "bad dull worst boring no nothing too never lacks mess tedious only".split()


def by_heart(texts):
    """The validation rows' own labels, and one half for any other text."""
    rows = data.movie_snippets().splits["validation"]
    known = dict(zip(rows["text"], rows["label"], strict=True))
    return np.array([[0.5, 0.5] if text not in known else np.eye(2)[known[text]] for text in texts])


def in_their_order(texts):
    return np.eye(2)[data.movie_snippets().splits["validation"]["label"]]


def budgeted(
    late=False, measure="p95_ms", key=lambda t: (t.accuracy, -t.megabytes), within=lambda ms, most: ms <= most
):
    """A choice among timings, right or with one mistake."""

    def choose(timings, budget):
        fast = [t for t in timings if within(getattr(t, measure), budget)]
        return max(fast, key=key).name if fast or late else None

    return choose


def by_table(timings, budget):
    table = pd.DataFrame([dataclasses.asdict(one) for one in timings])
    fast = table[table["p95_ms"] <= budget].sort_values(["accuracy", "megabytes"], ascending=[False, True])
    return None if fast.empty else fast["name"].iloc[0]


def folded(row):
    return " ".join(row["text"].lower().split())


def leaks(key=folded, keep=lambda row: True, finish=lambda row: row["text"]):
    """The training rows that are held out, too, by this reading of what a row says."""

    def function(train, held_out):
        known = {key(row) for row in held_out}
        return [finish(row) for row in train if keep(row) and key(row) in known]

    return function


def stated(train, held_out):
    """Of every held-out row the folded text that training rows have, too."""
    return {folded(row) for row in held_out} & {folded(row) for row in train}


def spelt_as_held_out(train, held_out):
    known = {folded(row) for row in train}
    return [row["text"] for row in held_out if folded(row) in known]


def leaks_by(match):
    """Training texts that match a held-out one, both folded."""
    return lambda train, held_out: [
        row["text"] for row in train if any(match(folded(row), folded(other)) for other in held_out)
    ]


def twice_in_training(train, held_out):
    texts = [folded(row) for row in train]
    return [row["text"] for row in train if texts.count(folded(row)) > 1 or folded(row) in map(folded, held_out)]


def temperature(odds=lambda share: share / (1 - share), gap=lambda pair: abs(pair[0] - pair[1]), least=0.5):
    """T of the formula, right or with one mistake."""
    return lambda pair, share: (
        None if share <= least or pair[0] == pair[1] else float(gap(pair)) / math.log(odds(share))
    )


def temperature_for_all_ties(pair, share):
    """The formula alone says T = 0 for them."""
    return abs(pair[0] - pair[1]) / math.log(share / (1 - share)) if share > 0.5 else None


def temperature_by_search(lowest=0.01, careful=True):
    def function(pair, share):
        grid = np.geomspace(lowest, 100, 4000)
        found = [torch.as_tensor(pair / t).softmax(-1).max() - share for t in grid]
        return None if careful and min(np.abs(found)) > 0.003 else grid[int(np.argmin(np.abs(found)))]

    return function


def temperature_by_root(pair, share):
    return optimize.brentq(lambda t: float(torch.as_tensor(pair / t).softmax(-1).max()) - share, 0.05, 100)


def ensemble(each=lambda x: torch.as_tensor(x).softmax(-1), finish=torch.log, over=0):
    """What several teachers say together, right or with one mistake."""
    return lambda logits: finish(torch.stack([torch.as_tensor(each(x)) for x in logits]).double().mean(over))


def ensemble_with_numpy(logits):
    shares = [np.exp(x - x.max(-1, keepdims=True)) for x in logits]
    return np.log(sum(x / x.sum(-1, keepdims=True) for x in shares) / len(shares)).tolist()


ASKED = {"share": 0.95, "sides": "greater", "level": 0.05}


def lowest(split="validation", above=np.greater_equal, start=math.inf, stop=True, enough=None, **asked):
    """A choice of a threshold, right or with one mistake."""
    share, sides, level = (asked.get(name, usual) for name, usual in ASKED.items())

    def function(sure, agrees, candidates):
        found = start
        for candidate in candidates:
            alone = agrees[split][above(sure[split], candidate)]
            p = stats.binomtest(int(alone.sum()), len(alone), share, alternative=sides).pvalue
            if p <= level if enough is None else enough(alone):
                found = candidate
            elif stop:
                break
        return found

    return function


def lowest_of_both(sure, agrees, candidates):
    """It pools the splits."""
    pooled = [{"validation": np.concatenate([*part.values()])} for part in (sure, agrees)]
    return lowest()(*pooled, candidates)


def lowest_without_loop(sure, agrees, candidates):
    counts = [(agrees["validation"][sure["validation"] >= one]) for one in candidates]
    passing = [stats.binomtest(int(one.sum()), len(one), 0.95, alternative="greater").pvalue <= 0.05 for one in counts]
    return [math.inf, *candidates][[*passing, False].index(False)]


def lowest_that_test_rows_confirm(sure, agrees, candidates):
    found = lowest()(sure, agrees, candidates)
    return found if agrees["test"][sure["test"] >= found].mean() >= 0.95 else math.inf


def lowest_of_both_tests(sure, agrees, candidates):
    return max(lowest(split)(sure, agrees, candidates) for split in ("validation", "test"))


def lowest_found_at_a_no(sure, agrees, candidates):
    """Right as long as one of the candidates fails."""
    found = lowest()(sure, agrees, candidates)
    return None if found == candidates[-1] else found


def of_the_cheapest(column):
    return lambda curve, wanted: curve[curve.accuracy >= wanted].sort_values("milliseconds")[column].iloc[0]


def few_disagree(alone):
    """The same question the other way round."""
    return stats.binomtest(int((~alone).sum()), len(alone), 0.05, alternative="less").pvalue <= 0.05


PAGE = ("student.html", "index.html", "onnx/model_quantized.onnx", "config.json")
REPLIES = {"negative": [1, 0], "positive": [0, 1], "I cannot say": [0.5, 0.5]}


def halves(swapped=False, **other):
    """Replies to two probabilities each, right or with one mistake."""
    table = REPLIES | {"I cannot say": other.get("unclear", [0.5, 0.5])}
    return lambda replies: np.array([table[reply][::-1] if swapped else table[reply] for reply in replies])


def vader_shares(texts, sharpness=None):
    score = exercises._compound(list(texts))
    positive = (1 + score) / 2 if sharpness is None else 1 / (1 + np.exp(-sharpness * score))
    return np.stack([1 - positive, positive], axis=1)


EXERCISES = {
    "model_for_budget": (
        [
            budgeted(),
            lambda timings, budget: next(
                (t.name for t in sorted(timings, key=lambda t: (-t.accuracy, t.megabytes)) if t.p95_ms <= budget), None
            ),
            by_table,
        ],
        [
            (budgeted(measure="p50_ms"), "that is p50"),
            (budgeted(key=lambda t: -t.p95_ms), "the fastest"),
            (budgeted(within=lambda ms, most: True), "over the budget"),
            (budgeted(key=lambda t: t.accuracy), "equally accurate ones the smallest"),
            (budgeted(key=lambda t: (t.accuracy, t.megabytes)), "equally accurate ones the smallest"),
            (budgeted(key=lambda t: (t.accuracy, -t.p95_ms)), "equally accurate ones the smallest"),
            (budgeted(key=lambda t: (t.accuracy, t.p95_ms)), "equally accurate ones the smallest"),
            (budgeted(key=lambda t: (t.accuracy, -t.p50_ms)), "equally accurate ones the smallest"),
            (budgeted(key=lambda t: -t.megabytes), "the fastest"),
            (budgeted(late=True), "None where none is fast enough; yours raised ValueError"),
            (budgeted(within=lambda ms, most: ms < most), "just the budget"),
            (lambda timings, budget: budgeted()(timings, budget) or "none", "None where none is fast enough"),
            (lambda timings, budget: timings[0], "return its .name"),
            (lambda timings, budget: [t.name for t in timings if t.p95_ms <= budget], "the answer is D, not ['D']"),
            (lambda timings, budget: None, "return missing"),
        ],
    ),
    "shares": (
        [
            halves(),
            lambda replies: halves()(replies).tolist(),
            lambda replies: iter(halves()(replies)),
            lambda replies: torch.tensor(halves()(replies), dtype=torch.bfloat16, requires_grad=True),
        ],
        [
            (halves(swapped=True), "changed places"),
            (halves(unclear=[0, 0]), "sum to 1"),
            (halves(unclear=[0, 1]), "counts as positive"),
            (halves(unclear=[1, 0]), "counts as negative"),
            (lambda replies: halves()(replies)[:, 1], "it returns the shape (5,)"),
            (lambda replies: halves()(replies)[[0, 1, 3]], "it returns the shape (3, 2)"),
            (lambda replies: halves()(replies).argmax(-1), "it returns the shape (5,)"),
            (lambda replies: [[reply, reply] for reply in replies], "two numbers"),
            (lambda replies: halves()(replies)[::-1], "expected"),
            (lambda replies: None, "return missing"),
        ],
    ),
    "leaks": (
        [
            leaks(),
            lambda *rows: set(leaks()(*rows)),
            lambda *rows: iter(leaks()(*rows)),
            lambda *rows: list(pd.DataFrame(leaks(finish=lambda row: row)(*rows))["text"].drop_duplicates()),
            lambda train, held_out: np.array(leaks()(train, held_out)),
        ],
        [
            (leaks(key=lambda row: row["text"]), "'A FINE film' leaks: it differs in case alone"),
            (leaks(key=lambda row: row["text"].lower().strip()), "leaks: it differs in white space alone"),
            (leaks(key=lambda row: tuple(sorted(folded(row).split()))), "the same words in the same order"),
            (leaks(key=lambda row: frozenset(folded(row).split())), "the same words in the same order"),
            (leaks(finish=lambda row: row), "return the texts themselves, in a list"),
            (lambda train, held_out: bool(leaks()(train, held_out)), "return the texts themselves, in a list"),
            (leaks(keep=lambda row: row["label"] >= 0), "'Dull' leaks: its label is withheld"),
            (leaks(key=lambda row: (folded(row), row["label"])), "compare texts, not rows"),
            (leaks_by(lambda text, other: other in text), "a held-out text is a part of it"),
            (leaks_by(lambda text, other: text in other), "it is a part of a held-out text"),
            (leaks(key=lambda row: re.sub(r"\W+", " ", folded(row)).strip()), "in more than case and white space"),
            (leaks(key=lambda row: "".join(folded(row).split())), "'Slow andlong' does not leak: a space"),
            (stated, "is not among the training texts: return those as they stand there"),
            (leaks(finish=lambda row: row["text"].strip()), "'slow  and\\tlong' is not among the training texts"),
            (spelt_as_held_out, "'A fine film' is not among the training texts"),
            (twice_in_training, "'Twice' does not leak: it stands twice among the training rows"),
            (lambda train, held_out: [row["text"] for row in train], "does not leak"),
            (lambda train, held_out: [row["text"] for row in held_out], "stands among the held-out rows alone"),
            (lambda train, held_out: [], "leaks"),
            (lambda train, held_out: [0, 1, 2, 3], "return the texts themselves"),
            (lambda train, held_out: len(leaks()(train, held_out)), "return the texts themselves, in a list"),
            (lambda train, held_out: None, "return missing"),
            (data.leaking_rows, "write your own"),
        ],
    ),
    "temperature_for": (
        [
            temperature(),
            temperature_by_search(),
            lambda *given: (found := temperature()(*given)) and round(found, 2),
            lambda *given: (found := temperature()(*given)) and torch.tensor([found]),
            lambda pair, share: None if share <= 0.5 or not np.ptp(pair) else temperature_by_root(pair, share),
        ],
        [
            (lambda *given: (found := temperature()(*given)) and 1 / found, "T divides"),
            (temperature(gap=lambda pair: pair[1] - pair[0]), "the first or the second"),
            (temperature(gap=max), "the difference of the two counts"),
            (temperature(odds=lambda share: share), "the other class has a share, too"),
            (temperature_by_search(lowest=1), "T may be below 1"),
            (temperature_by_search(lowest=1, careful=False), "does your search?"),
            (temperature(least=0), "no T brings about a share of 0.4: T never changes which class leads"),
            (temperature(least=0.45), "no T brings about a share of 0.5: it comes near as T grows, and never there"),
            (temperature_for_all_ties, "no T brings about a share of 0.7: there the logits are equal"),
            (lambda *given: (found := temperature()(*given)) and (found if found >= 1 else None), "T may be below 1"),
            (temperature_by_search(careful=False), "Return None there, not 100.0"),
            (temperature_by_root, "Return None there, not an error, ValueError"),
            (lambda *given: 2.0, "expected 1.8205, got 2.0000"),
            (lambda *given: None, "return missing"),
        ],
    ),
    "page_files": (
        [
            PAGE,
            list(PAGE),
            ", ".join(PAGE),
            dict(zip("ABCD", PAGE, strict=True)),
            [Path("runs") / name for name in PAGE],
            [PureWindowsPath("runs") / name for name in PAGE],
            [rf"runs\student-page\{name}".replace("/", "\\") for name in PAGE],
            (name for name in PAGE),
            ("student.html", "index.html", "model_quantized.onnx", "config.json"),
        ],
        [
            (("student", *PAGE[1:]), "A: the ending of the file's name is missing"),
            ((*PAGE[:2], "onnx/model_quantized", PAGE[3]), "C: the ending of the file's name is missing"),
            (("index.html", *PAGE[1:]), "A is not 'index.html': for a double click"),
            (("student.html", "student.html", *PAGE[2:]), "B is not 'student.html': asked for a folder"),
            ((*PAGE[:2], "runs\\onnx\\", PAGE[3]), "C: onnx is a folder; which file is in it?"),
            ({*PAGE}, "a set has no order"),
            ((*PAGE[:2], "onnx", PAGE[3]), "C: onnx is a folder; which file is in it?"),
            ((*PAGE[:2], "config.json", PAGE[2]), "C is not 'config.json': weights are"),
            ((*PAGE[:2], "onnx/model.onnx", PAGE[3]), "C is not 'onnx/model.onnx'"),
            ((*PAGE[:3], "tokenizer.json"), "D is not 'tokenizer.json': a model's configuration says"),
            (PAGE[:3], "four names of files are wanted"),
            ("student.html", "four names of files are wanted"),
            (4, "TypeError"),
        ],
    ),
    "ensemble": (
        [
            ensemble(),
            ensemble_with_numpy,
            lambda logits: iter(ensemble()(logits)),
            ensemble(finish=lambda shares: shares.log() + 2),  # the same to a softmax, at every T
            lambda logits: np.log(sum(np.asarray(torch.as_tensor(x).softmax(-1)) for x in logits)),
            lambda logits: ensemble()(logits).float(),
        ],
        [
            (ensemble(finish=lambda shares: shares), "those are probabilities; a column holds logits"),
            (ensemble(each=lambda x: x, finish=lambda mean: mean), "that is the mean of logits or"),
            (ensemble(each=lambda x: 3 * x, finish=lambda mean: mean), "that is the sum of logits"),
            (
                ensemble(each=lambda x: torch.as_tensor(x).log_softmax(-1), finish=lambda mean: mean),
                "or of log-probabilities",
            ),
            (ensemble(each=lambda x: torch.as_tensor(x).softmax(0)), "not over the rows"),
            (lambda logits: torch.tensor(np.stack(logits)).softmax(0).mean(0).log(), "not over the teachers"),
            (ensemble(each=np.exp), "divide by the row's sum"),
            (ensemble(each=lambda x: np.eye(3)[x.argmax(-1)]), "not votes"),
            (ensemble(each=lambda x: np.eye(3)[x.argmax(-1)], finish=lambda votes: votes), "not votes"),
            (ensemble(each=lambda x: 3 * np.eye(3)[x.argmax(-1)], finish=lambda votes: votes), "not votes"),
            (ensemble(each=lambda x: np.eye(3)[x.argmax(-1)], finish=lambda votes: (votes + 1e-9).log()), "not votes"),
            (lambda logits: logits[0] + logits[1] ** 2, "for a row"),
            (lambda logits: logits[0], "that is one teacher alone"),
            (ensemble(over=1), "it returns the shape (3, 3), not (2, 3)"),
            (lambda logits: ensemble()(logits).clip(0).log(), "the logarithm of 0"),
            (distillation.mean_of_probabilities, "write your own"),
            (lambda logits: None, "return missing"),
        ],
    ),
    "lowest_threshold": (
        [
            lowest(),
            lowest_without_loop,
            lowest(enough=few_disagree),
            lambda *given: np.array([lowest()(*given)]),
        ],
        [
            (lowest(split="test"), "test rows have had a say"),
            (lowest(split="test", start=None), "test rows have had a say"),
            (lowest_of_both, "test rows have had a say"),
            (lowest_of_both_tests, "test rows have had a say"),
            (lowest_that_test_rows_confirm, "test rows have had a say"),
            (lowest(above=np.greater), "rows at the threshold itself count, too"),
            (lowest(start=None), "infinity is wanted, not None"),
            (lowest_found_at_a_no, "return missing"),
            (lowest(share=0.05), "every threshold passes: does the test ask about 95 %"),
            (lowest(level=0.95), "may be luck: is p at most 0.05"),
            (lowest(level=0.025), "p at most 0.05 is enough"),
            (lowest(level=0.01), "p at most 0.05 is enough"),
            (lambda *given: math.nan, "got nan"),
            (lowest(enough=lambda alone: alone.mean() >= 0.95), "may be luck"),
            (lowest(enough=lambda alone: alone.mean() >= 0.95, stop=False), "may be luck"),
            (lowest(stop=False), "stop at the first no"),
            (
                lambda sure, agrees, candidates: lowest()(sure, agrees, candidates[::-1]),
                "do you begin with the highest",
            ),
            (lowest(sides="two-sided"), "more than 95 % is the question"),
            (lowest(sides="less"), "more than 95 % is the question"),
            (lambda sure, agrees, candidates: math.inf, "do you begin with the highest"),
            (lambda sure, agrees, candidates: candidates[0], "the first that passes"),
            (lambda *given: given[2][given[2].index(lowest()(*given)) + 1], "that one fails: the one before it"),
            (lowest(start=0.9), "infinity where none is"),
            (lambda *given: given[2].index(lowest()(*given)), "expected 0.8, got 1"),
            (lambda sure, agrees, candidates: None, "return missing"),
        ],
    ),
    "rule": (
        [words, lambda texts: words(texts).tolist(), lambda texts: iter(words(texts))],
        [
            (lambda texts: words(texts)[:, ::-1], "changed places"),
            (lambda texts: np.full((len(texts), 2), 0.5), "1000 of them get one half"),
            (lambda texts: np.tile([0, 1], (len(texts), 1)), "more than 53 % is wanted\n"),  # none is undecided
            (lambda texts: words(texts)[:, 1], "it returns the shape (1000,)"),
            (lambda texts: 100 * words(texts), "two probabilities that sum to 1"),
            (by_heart, "a rule looks no label up"),
            (in_their_order, "a rule looks no label up"),
            (vader_shares, "that is VADER: use words of your own"),
            (lambda texts: vader_shares(texts, 5), "that is VADER"),
            (lambda texts: np.eye(2)[vader_shares(texts).argmax(-1)], "that is VADER"),
        ],
    ),
    "learnt_from": (
        [(500, 20_500), [500, 20_500.0], np.array([500, 20_500])],
        [
            ((500, 20_000), "for the labelled texts, too"),
            ((20_500, 20_500), "a row without a label teaches nothing"),
            ((20_500, 500), "a row without a label teaches nothing"),
            ((500, 500), "for which texts does the teacher answer?"),
            ((2_000, 20_500), "how many have a label?"),
            ("500, 20500", "two numbers are wanted"),
            ((500, 20_000, 20_500), "two numbers are wanted"),
            (20_500, "two numbers are wanted"),
            ({500, 20_500}, "two numbers are wanted: the control's rows, then the student's"),
            (("few", "many"), "a number is wanted"),
        ],
    ),
    "must_agree": (
        ["AC", "c and a", ["A", "C"], ("A", "C")],
        [
            ("A", "C needs equal tokenizers: PKD's loss compares the insides"),
            ("C", "A needs equal tokenizers: a live teacher is fed"),
            ("ABC", "B can do without: the column was made before"),
            ("ACD", "D can do without: a file answers for texts"),
            ("A, C and E", "E can do without"),
            ("ACF", "there is no 'f': the letters are A, B, C, D, E"),
            ([True, False, True, False, False], "letters are wanted"),
            ("none", "A needs"),
        ],
    ),
    "models_or_ways": (
        ["BE", "e and b", ["B", "E"], ("B", "E"), {"E", "B"}],
        [
            ("ABE", "A does not speak for a way of training: two models were compared"),
            ("BCE", "C does not speak for a way of training: two of three seeds gain next to nothing"),
            ("BDE", "D does not speak for a way of training: however many rows there are"),
            ("E", "B speaks for a way of training: the three seeds agree"),
            ("B", "E speaks for a way of training: a small gain"),
            ("none", "B speaks for a way of training"),
            ("BF", "there is no 'f': the letters are A, B, C, D, E"),
            (2, "letters are wanted"),
        ],
    ),
    "embedding_share": (
        [TABLE / STUDENT, 0.674, 0.67],
        [
            (100 * TABLE / STUDENT, "percent"),
            (TABLE / TEACHER, "of the teacher"),
            ((TABLE + 512 * 384) / STUDENT, "not that of positions"),
            (2 / 3, "two digits are wanted"),
            (0.7, "too large"),
            ("67 %", "a number is wanted, not '67 %'"),
            ((30522, 384), "a number is wanted"),
            (0.5, "too small"),
        ],
    ),
    "read_differently": (
        [differ, lambda *given: set(differ(*given)), lambda *given: iter(differ(*given)), differ_by(max_length=512)],
        [
            (lambda a, b, t: [], "not found"),
            (lambda a, b, t: t, "read alike by both and was found"),
            (read_alike, "those are the texts that both read alike"),
            (whole_encodings_differ, "token_type_ids"),
            (ids_out_of_order, "in order"),
            (differ_by(add_special_tokens=False), "other special tokens"),
            (differ_by(max_length=8), "was not found; compare all the ids"),
            (differ_by(max_length=128), "was not found; compare all the ids"),
            (lambda a, b, t: [text in differ(a, b, t) for text in t], "the texts themselves"),
            (lambda a, b, t: bool(differ(a, b, t)), "return the texts themselves, in a list"),
            (lambda a, b, t: len(differ(a, b, t)), "return the texts themselves, in a list"),
            (lambda a, b, t: None, "return missing"),
        ],
    ),
    "padding_share": (
        [
            emptied,
            lambda *given: np.array([data.padding_share(*given)]),
            lambda *given: round(data.padding_share(*given), 4),
        ],
        [
            (data.padding_share, "write your own"),
            (padded_to_longest_of_all, "longest of all"),
            (lambda *a: 1 - data.padding_share(*a), "that is text"),
            (lambda lengths, size: data.padding_share(lengths, 2), "expected"),
            (lambda *a: None, "return missing"),
            (lambda *a: 100 * data.padding_share(*a), "in percent"),
            (last_batch(full=True), "count only those"),
            (last_batch(full=False), "counts too"),
            (lambda *given: data.padding_share(*given) / (1 - data.padding_share(*given)), "not by the text alone"),
            (mean_of_batches, "count all slots"),
            (lambda lengths, size: lengths.sort() or data.padding_share(lengths, size), "do not sort"),
            (0.15, "a function is wanted"),
        ],
    ),
    "calibration_gap": (
        [
            calibration,
            lambda *given: torch.tensor(calibration(*given)),
            lambda *given: round(float(calibration(*given)), 4),
        ],
        [
            (lambda *given: -calibration(*given), "positive gap"),
            (lambda *given: abs(calibration(*given)), "negative one"),
            (lambda *given: 100 * calibration(*given), "percentage points"),
            (gap_with(lambda logits: logits.max(-1).values), "a logit is no probability"),
            (gap_with(lambda logits: logits.softmax(0).max(-1).values), "not over the rows"),
            (gap_with(lambda logits: logits.softmax(-1)[:, 1]), "class 1's"),
            (lambda logits, labels: (logits.argmax(-1) == labels).mean(), "expected"),
            (lambda *given: np.abs(surest(given[0]) - (given[0].argmax(-1) == given[1])).mean(), "row by row"),
            (
                lambda *given: evaluation.expected_calibration_error(*given),
                "the calibration error, a distance averaged over the rows",
            ),
            (of_the_label, "of the class that leads, right or wrong; that is the label's"),
        ],
    ),
    "distillation_loss": (
        [loss(), labels_in_place],
        [
            (lambda *given: loss()(*given).item(), "no gradient reaches"),
            (lambda student, *rest: loss()(student.detach(), *rest), "no gradient reaches"),
            (functools.partial(without_gradient, part="teacher"), "its gradient is not"),
            (functools.partial(without_gradient, part="labels"), "its gradient is not"),
            (lambda *given: loss(hard="sum", divided=False)(*given), "not divided by the number of rows"),
            (loss_of_labelled_rows, "for all rows"),
            (loss(swapped=True), "changed places"),
            (loss(squared=False), "T^2 is missing"),
            (loss(swapped=True, squared=False), "both mistakes"),
            (lambda student, teacher, *rest: loss()(teacher, student, *rest), "expected"),
            (loss(turned=True), "the teacher is the target"),
            (loss(reduction="mean"), "batchmean"),
            (loss(hard="mean"), "counts for the whole batch"),
            (nan_without_labels, "in a batch without any label it is NaN"),
            (logarithms_as_target, "kl_div wants probabilities for its target, unless log_target says otherwise"),
            (labels_at_temperature, "T is for the teacher's part alone"),
            (lambda *given: loss()(*given[:2], given[2].clamp(min=0), *given[3:]), "as if it were of class 0"),
            (
                lambda *given: loss(hard="mean")(*given[:2], given[2].clamp(min=0), *given[3:]),
                "as if it were of class 0",
            ),
            (distillation.distillation_loss, "that is the package's: write your own"),
            (unweighted_without_labels, "keeps the factor 1 - alpha"),
            (unweighted_rows, "a row without a label keeps the factor 1 - alpha"),
            (functools.partial(unweighted_rows, squared=False), "T^2 is missing"),
            (functools.partial(unweighted_rows, swapped=True), "changed places"),
            (lambda *given: None, "return missing"),
        ],
    ),
    "teacher_column": (
        [
            column(),
            lambda *given: column()(*given).tolist(),
            column(finish=lambda logits: logits.log_softmax(-1)),
            lambda *given: list(column()(*given)),
            lambda *given: list(column()(*given).split(1)),
            lambda *given: iter(column()(*given)),
        ],
        [
            (column(train=True), "eval mode"),
            (column(mask=False), "attention mask"),
            (column(gradient=True), "no_grad"),
            (column(finish=lambda logits: logits.softmax(-1)), "probabilities"),
            (column(finish=lambda logits: logits.argmax(-1)), "the shape (70,)"),
            (column(order=-1), "in another order"),
            (column(longest=16), "the short texts are right, and the long ones are not"),
            (lambda *given: list(column()(*given).split(32)), "that is a list of batches"),
            (lambda *given: [column()(*given)], "that is a list of batches"),
            (logits_of, "that is the package's: write your own"),
            (lambda model, tokenizer, texts: model(**tokenizer(texts, padding=True, return_tensors="pt")), ".logits"),
            (
                lambda model, tokenizer, texts: model(tokenizer(texts, padding=True, return_tensors="pt")),
                "model(**batch)",
            ),
            (lambda model, tokenizer, texts: model(**tokenizer(texts, padding=True)), 'return_tensors="pt"'),
            (lambda model, tokenizer, texts: None, "return missing"),
            (lambda model, tokenizer, texts: model.nothing, "AttributeError"),
        ],
    ),
    "fit_temperature": (
        [
            temperature_of(),
            lambda *given: round(temperature_of()(*given), 2),
            lambda *given: np.array([temperature_of()(*given)]),
            temperature_by_steps(1.0),
            temperature_by_steps(2.0),
        ],
        [
            (least(lambda shares, labels: ((shares - np.eye(2)[labels]) ** 2).mean()), "mean cross-entropy"),
            (least(lambda shares, labels: abs(gap(shares.max(1), shares.argmax(1) == labels))), "mean cross-entropy"),
            (temperature_of(-1), "T divides"),
            (lambda *given: 1.0, "T = 1 changes nothing"),
            (lambda *given: max(1.0, temperature_of()(*given)), "your search ends at 1;"),
            (lambda *given: max(1.1, temperature_of()(*given)), "your search ends at 1.1;"),
            (lambda *given: 2.0, "got 2.00: the least mean cross-entropy decides\n"),
            (lambda logits, labels: temperature_of()(shares_of(logits), labels), "no softmax before it"),
            (temperature_of(2), "least mean cross-entropy"),
            (lambda *given: optimize.minimize_scalar(lambda t: (t - 1) ** 2), "take its .x"),
        ],
    ),
    "pseudo_labels": (
        [lambda logits, labels: logits.argmax(-1), lambda logits, labels: logits.argmax(-1).tolist()],
        [
            (lambda logits, labels: np.where(labels >= 0, labels, logits.argmax(-1)), "known labels are kept"),
            (lambda logits, labels: logits, "the shape (5, 2)"),
            (lambda logits, labels: logits.max(-1), "the likeliest class"),
            (lambda logits, labels: np.array(["bad", "good"])[logits.argmax(-1)], "class ids are wanted"),
        ],
    ),
    "forest_plot": (
        [("ADE", "BDE"), ["eda", "E D B"], ("A, D and E", "B, D and E"), (["A", "D", "E"], ["b", "d", "e"])],
        [
            (("ACDE", "BDE"), "C's interval goes from -1.1 to +4.8: it holds 0"),
            (("A and E", "BDE"), "D's interval"),  # the d of "and" is no answer
            (("AE", "BDE"), "D's interval goes from -2.9 to -0.4: it leaves 0 out"),
            (("ADE", "DE"), "B's interval goes from -0.8 to +1.4: it ends below 2"),
            (("ADE", "ABDE"), "A's interval goes from +0.9 to +3.9: it reaches 2"),
            (("ADEF", "BDE"), "there is no 'f'"),
            ("ADE, BDE", "two strings of letters are wanted"),
            ({"ADE", "BDE"}, "two strings of letters are wanted"),
        ],
    ),
    "next_step": (
        [
            *((3, 1, 4, 2), "3142", 3142, {"B": 1, "A": 3, "C": 4, "D": 2}, "A3 B1 C4 D2"),
            *((3.0, 1.0, 4.0, 2.0), torch.tensor([3.0, 1.0, 4.0, 2.0]), [*"3142"]),
            *(tuple(np.array([3, 1, 4, 2])), np.array([3, 1, 4, 2]), pd.Series([3, 1, 4, 2]), iter([3, 1, 4, 2])),
        ],
        [
            ((31, 42), "four numbers are wanted"),
            ({3, 1, 4, 2}, "a set has no order"),
            (frozenset("3142"), "a set has no order"),
            ((4, 1, 4, 2), "A is not 4. The table's row: verdict: no evidence, too few rows | label more test rows"),
            ((3, 3, 4, 2), "B is not 3. The table's row: verdict: no evidence, enough rows | ship the control"),
            ((3, 1, 1, 2), "C is not 1. The table's row: verdict: better | repeat with --seeds 3"),
            ((3, 1, 4, 4), "D is not 4. The table's row: it must be faster | first the teacher itself in int8"),
            ((3, 1, 4), "four numbers are wanted"),
        ],
    ),
    "least_gained": (
        [least_gained, least_gained_by_loop],
        [
            (lambda n: least_gained(n, sides=1), "28 gained of 44 are too few: p = 0.096 there; half of that"),
            (lambda n: least_gained(n, start=0), "with 0 of 44 rows gained the rest are lost"),
            (lambda n: least_gained(n, p=normal_p), "38 gained of 60 are too few: p = 0.052"),
            (lambda n: min(g for g in range(n // 2, n + 1) if exact_p(g, n) < 0.05), "five rows can never"),
            (lambda n: least_gained(n) or n, "five rows can never"),
            (lambda n: (least_gained(n) or 0) + 1, "fewer than 30 of 44 are enough"),
            (lambda n: n, "fewer than 44 of 44"),
            (lambda n: exact_p(n, n), "a whole number of rows is wanted, not 1.14e-13"),
            (lambda n: float("nan"), "a whole number of rows is wanted"),
            (lambda n: None, "is a return missing?"),
            (lambda n: next((g for g in range(n // 2, n) if exact_p(g, n) < 0.05), None), "reach n itself?"),
            (lambda n: stats.binomtest(30, n, 0.5), "take its .pvalue"),
            (29, "a function is wanted"),
        ],
    ),
    "rows_needed": (
        [0.15 * (1.96 / 0.01) ** 2, 5762, 5763, 5800],
        [
            (0.15 * 1.96 / 0.01, "has to be squared"),
            (0.15 * 1.96**2, "a point is 0.01, not 1"),
            (15 * (1.96 / 0.01) ** 2, "15 % is 0.15"),
            ((0.15 * (1.96 / 0.01) ** 2) ** 0.5, "the root of it"),
            (0.15 / 0.01**2, "1.96 standard deviations"),
            (0.15 * (2 / 0.01) ** 2, "not 2"),
            (None, "that is None"),
            (1000, "too small"),
            (2400, "if those are 2.4 times the 1,000 rows"),
            (0.25 * (1.96 / 0.02) ** 2, "if those are 2.4 times the 1,000 rows"),
            (0.25 * (1.96 / 0.01) ** 2, "the variance is 0.15 here, not 0.25"),
            (0.15 * (1.645 / 0.01) ** 2, "1.645 holds 90 cases of 100"),
            (4050, "1.645 holds 90 cases of 100"),
            (0.15 * (2.58 / 0.01) ** 2, "too large"),
        ],
    ),
    "search_space": (
        [space()],
        [
            (space(high=1.0), "alpha goes from 0 to 1"),
            (space(log=False), "log=True"),
            (space(layers="suggest_categorical"), "suggest_int"),
            (space(layers="suggest_float"), "layers is a range here: take suggest_int"),
            (space(given={"alpha": 0.3}), "alpha must be what the trial suggests"),
            (space(given={"lr": 1e-4}), "a dictionary of alpha"),
            (space(step=0.25), "alpha has a step"),
            (lambda trial: {"lr": trial.suggest_float("lr", 1e-4, 6e-4)}, "by these names"),
            (lambda trial: trial.suggest_float("alpha", 0.0, 0.25, log=True), "leave log out"),
            (lambda trial: None, "a dictionary of alpha"),
        ],
    ),
    "dollars_saved": (
        [SAVED, 31.7, 32],
        [
            (SAVED / 50, "fifty"),
            (SPENT, "student costs; take"),
            (WOULD_BE, "what the teacher costs; take"),
            (SAVED * 2, "too large"),
            (SAVED * 1000, "1,000 milliseconds"),
            (SAVED / 0.2, "in hours"),
            ("$31.67", "a number is wanted: leave the $ out"),
        ],
    ),
    "cheapest_pair": (
        [
            lambda curve, wanted: curve[curve.accuracy >= wanted].milliseconds.min(),
            lambda curve, wanted: curve.milliseconds[curve[curve.accuracy >= wanted].student_share.idxmax()],
            lambda curve, wanted: curve.milliseconds[curve[curve.accuracy >= wanted].dollars.idxmin()],
        ],
        [
            (lambda curve, wanted: curve[curve.accuracy >= wanted].milliseconds.max(), "slowest"),
            (lambda curve, wanted: curve.milliseconds.min(), "fastest of all"),
            (lambda curve, wanted: curve.milliseconds[curve.accuracy.idxmax()], "most accurate"),
            (lambda curve, wanted: curve[curve.accuracy >= wanted].milliseconds.idxmin(), "a row's number"),
            (lambda curve, wanted: None, "return missing"),
            (lambda curve, wanted: curve[curve.accuracy >= wanted].milliseconds.iloc[0], "in no order"),
            (lambda curve, wanted: curve[curve.accuracy >= wanted].sort_values("accuracy").iloc[0, 1], "nearest"),
            (lambda curve, wanted: curve.milliseconds[(curve.accuracy - wanted).abs().idxmin()], "nearest"),
            *((of_the_cheapest(column), "another column") for column in ("accuracy", "threshold", "dollars")),
            (lambda curve, wanted: curve[curve.accuracy >= wanted].accuracy.min(), "another column"),
            (lambda curve, wanted: curve[curve.accuracy > wanted].milliseconds.min(), "exactly the wanted accuracy"),
            (lambda curve, wanted: int(curve[curve.accuracy >= wanted].milliseconds.min()), "expected 3.5000, got 3"),
        ],
    ),
    "spot_cost": (
        [0.74, 0.738],
        [
            (0.74 * 1.5, "waiting for a machine is not billed"),
            (0.74 * 62 / 60, "the two minutes in which a stopped job may end are not counted here"),
            (0.77, "the two minutes in which a stopped job may end are not counted here"),
            (0.37, "all minutes count, at full price: nobody promises a spot discount"),
            (0.74 * 0.3, "nobody promises a spot discount"),
            (74, "cents"),
            (7, "too large"),
        ],
    ),
    "still_billed": (
        [{"b", "d"}, ["d", "b"], "bd", ("b", "d"), {"B", "D"}, "b and d", np.array(["b", "d"])],
        [
            ({"a", "b", "d"}, "a: the machine ends"),
            ({"d"}, "b: nobody but you deletes"),
            ({"b", "c", "d"}, "c: a serverless endpoint"),
            ({"b"}, "d: an endpoint on a machine"),
            (set(), "b: nobody but you"),
            ({"b", "d", "e"}, "there is no 'e'"),
            (2, "letters are wanted, out of a, b, c, d"),
        ],
    ),
    "distill_command": (
        [
            LIVE,
            LIVE.replace("--student-layers 4", "--student_layers=4"),
            LIVE + " --output here",
            LIVE.split(),
            ("kdhelpers", "distill", *LIVE.split()),
            [4 if word == "4" else word for word in LIVE.split()],
            LIVE.replace(" --", "\n--").splitlines(),
            LIVE.replace("--teacher", "--teacher_id"),
            "python -m kdhelpers distill "
            + LIVE.replace(" --temp", " \\\n  --temp").replace("reviews.csv", "./reviews.csv"),
        ],
        [
            (LIVE.replace(" --live-teacher", ""), "cache"),
            (LIVE.replace("temperature 4", "temperature 2").split(), "not 4"),
            (LIVE.replace("temperature 4", "temperature 2"), "not 4"),
            (LIVE.replace(" --temperature 4", ""), "temperature is right by luck"),
            (LIVE + " --validation validation.csv", "validation would be validation.csv"),
            (LIVE.replace("--teacher textattack/bert-base-uncased-SST-2", ""), "teacher would be"),
            (LIVE.replace("-SST-2", ""), "not textattack/bert-base-uncased-SST-2"),
            (LIVE + " --alpha 0.5", "alpha would be 0.5"),
            (LIVE.replace("reviews.csv", "train.csv"), "train would be train.csv"),
            (LIVE.replace("temperature", "temparature"), "did you mean --temperature?"),
        ],
    ),
}


load_once = functools.cache(models.load_classifier)


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """A check loads the backbone for every answer; nothing changes it."""
    monkeypatch.setattr(models, "load_classifier", lambda model_id, names: load_once(model_id, tuple(names)))


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("name", EXERCISES)
def test_three_answers(name, capsys):
    right, wrong = EXERCISES[name]
    judge = getattr(exercises, name)
    judge(...)
    assert capsys.readouterr().out.startswith("not attempted")
    for answer in right:
        judge(answer)
        assert capsys.readouterr().out == "passed\n"
    for answer, sign in wrong:
        judge(answer)
        said = capsys.readouterr().out
        assert said.startswith("not yet: ")
        assert sign in said
        assert len(said) < 200, "a sentence, whatever was returned"


@pytest.mark.parametrize("name", EXERCISES)
def test_an_answer_that_raises_is_told_so(name, capsys):
    def careless(*_):
        raise KeyError("nothing here")

    for answer in (careless, None, "a word", torch.tensor([1.0, 2.0])):
        getattr(exercises, name)(answer)
        assert capsys.readouterr().out.startswith("not yet: ")


def test_the_spot_plan_is_judged_whole(capsys):
    from kdhelpers import sagemaker

    def plan(options, **job):
        times = {"max_minutes": 60, "max_wait_minutes": 90}
        return sagemaker.JobPlan(options, **{"instance": "ml.g4dn.xlarge", "spot": True, **times, **job})

    asked = {"recipe": "sst2", "temperature": 4}
    for answer, words in (
        (..., "not attempted"),
        (plan(asked), "passed"),
        (plan(asked, max_wait_minutes=30), "not yet: --max-wait-minutes 30: a spot job needs it, 60 or more"),
        (plan(asked, spot=False, max_wait_minutes=None), "not yet: spot is False"),
        (plan({"recipe": "sst2"}), "not yet: temperature would be 3.0, not 4.0"),
        (plan(asked | {"alpha": 1}), "not yet: alpha would be 1.0"),
        (plan({"temparature": 4}), "did you mean --temperature?"),
        (plan(asked, spot=False), "only a spot job waits"),
        (plan("sst2"), "not yet: the hyperparameters are a dictionary"),
        ("ml.g4dn.xlarge", "not yet: "),
    ):
        exercises.spot_plan(answer)
        assert words in capsys.readouterr().out


def test_the_rows_that_are_quoted_stand_in_the_table():
    (path,) = [path for path in NOTEBOOKS if path.stem == "05b_what_helped"]
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells).replace("*", "").replace("`", "")
    for _, row in exercises.NEXT_STEP.values():
        assert f"\n| {row}" in text


def test_every_exercise_of_the_series_is_tested_here():
    solutions = [
        cell.source
        for path in NOTEBOOKS
        for cell in code_cells(nbformat.read(path, as_version=4))
        if "solution" in tags(cell)
    ]
    used = {name for source in solutions for name in re.findall(r"kd\.(?:check|exercises)\.(\w+)\(", source)}
    assert used == {*EXERCISES, "spot_plan"}
