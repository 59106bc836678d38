"""A teacher is anything that answers: a file, a function, several models."""

import dataclasses
import json
import re
import time

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from huggingface_hub import InferenceClient
from scipy.special import log_softmax, softmax
from transformers import set_seed

from kdhelpers import models
from kdhelpers.data import TEACHER_LOGITS
from kdhelpers.distillation import answers, answers_from, answers_from_file, ask, distill, prepare, prepared
from kdhelpers.errors import UserError
from kdhelpers.settings import settings_from
from kdhelpers.workshop import pretend_endpoint
from tests.runs import bare, files, options, own_cache, settings, spoken, teacher  # noqa: F401
from tests.tiny import save_model, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("own_cache")
NAMES = ["bad", "good"]
ROWS = Dataset.from_dict({"id": ["7", "8", "9"], "text": ["fine", "poor", "so so"]})
SHARES = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]])


def written(path, table: pd.DataFrame) -> str:
    writers = {".csv": table.to_csv, ".parquet": table.to_parquet}
    if path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        writers[path.suffix](path, index=False)
    return str(path)


def answer_table(values=SHARES, **columns) -> pd.DataFrame:
    return pd.DataFrame(columns | dict(zip(NAMES, np.asarray(values).T, strict=True)))


# --- a file


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["probabilities", "log-probabilities", "logits"])
@pytest.mark.parametrize("by", ["id", "text"])
def test_answers_in_a_shuffled_file_find_their_rows(tmp_path, ending, kind, by):
    values = {"probabilities": SHARES, "log-probabilities": np.log(SHARES), "logits": 3 + np.log(SHARES)}[kind]
    keys = {"id": [7, 8, 9]} if by == "id" else {"sentence": ROWS["text"][:]}
    table = answer_table(values, **keys).iloc[[2, 0, 1]][[*keys, "good", "bad"]]
    found = answers_from_file(written(tmp_path / f"answers.{ending}", table), "sentence").of(ROWS, NAMES)
    np.testing.assert_allclose(softmax(found, axis=-1), SHARES, atol=1e-5)
    assert found.dtype == np.float32


def test_spaces_around_a_class_in_the_header_are_no_part_of_its_name(tmp_path):
    table = answer_table(sentence=ROWS["text"][:]).rename(columns={"bad": " bad "})
    assert answers_from_file(written(tmp_path / "a.csv", table), "sentence").label_names == ("bad", "good")


WRONG = {
    "not a number": (lambda t: t.assign(good=["0.9", "x", "0.5"]), "line 3 has 'x' for the class 'good'"),
    "no value": (lambda t: t.assign(good=[0.9, None, 0.5]), "line 3"),
    "infinite": (lambda t: t.assign(good=[0.9, np.inf, 0.5]), "line 3 holds NaN or an infinite value"),
    "no sum of 1": (lambda t: t.assign(good=[0.9, 0.5, 0.5]), "line 3 is not like the others, whose probabilities"),
    "one negative": (lambda t: t.assign(good=[0.9, -0.2, 0.5]), "line 3 is not like the others"),
    "percentages": (lambda t: t.assign(bad=[10, 80, 50], good=[90, 20, 50]), "convert them"),
    "scores of single classes": (lambda t: t.assign(bad=[0.1, 0.1, 0.3], good=[0.3, 0.4, 0.2]), "convert them"),
    "twice": (lambda t: t.assign(id=[7, 8, 8]), "line 4 answers for id '8' again, after .*line 3"),
    "missing": (lambda t: t.assign(id=[7, 8, 10]), "1 of 3 rows have no answer in .* the first is 'so so'"),
    "another class": (lambda t: t.rename(columns={"bad": "fair"}), "the classes fair, good; the rows' are bad, good"),
    "one class more": (lambda t: t.assign(fair=0.0), "the classes bad, good, fair; the rows' are bad, good"),
    "no class": (lambda t: t[["id"]], "no column of answers, only id"),
    "nothing to join by": (lambda t: t.drop(columns="id"), "neither a column 'id' nor 'text'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_answers_are_is_one_sentence(tmp_path, name):
    change, said = WRONG[name]
    path = written(tmp_path / "answers.csv", change(answer_table(id=[7, 8, 9])))
    with pytest.raises(UserError, match=said):
        answers_from_file(path).of(ROWS, NAMES)


def test_a_log_probability_that_does_not_sum_to_one_is_found_too(tmp_path):
    values = np.log(SHARES)
    values[1] = [-0.1, -0.1]
    with pytest.raises(UserError, match="line 3 is not like the others, whose log-probabilities"):
        answers_from_file(written(tmp_path / "answers.csv", answer_table(values, id=[7, 8, 9])))


def test_rows_of_which_a_file_knows_none_have_no_answer(tmp_path):
    path = written(tmp_path / "answers.csv", answer_table(id=["a", "b", "c"]))
    assert answers_from_file(path).of(ROWS, NAMES) is None


@pytest.fixture
def answer_file(files, teacher, tmp_path):  # noqa: F811
    """The tiny teacher's probabilities for every row of `files`, shuffled; and its run."""
    ready = prepare(settings(files, teacher, tmp_path / "unused"))
    tables = []
    for split in ("train", "validation", "test"):
        values = softmax(ready.logits(ready.teacher, split), axis=-1)
        tables.append(answer_table(values, sentence=ready.splits[split]["text"][:]))
    table = pd.concat(tables).sample(frac=1, random_state=0)
    return written(tmp_path / "answers.csv", table), ready


def own_student(tmp_path) -> dict:
    """A student of another family, with another tokenizer, as options."""
    set_seed(0)
    student = save_model(tmp_path / "student", tiny_model("roberta"), tiny_tokenizer("bpe"))
    return {"student": student, "epochs": 6, "learning_rate": 3e-3, "train_embeddings": True}


def without_teacher(given: dict) -> dict:
    return {name: value for name, value in given.items() if name != "teacher"}


@pytest.mark.slow
def test_a_file_of_answers_teaches_as_the_model_does_that_gave_them(files, answer_file, tmp_path, spoken):  # noqa: F811
    path, live = answer_file
    given = options(files, None, tmp_path / "run", teacher_answers=path, controls="all", **own_student(tmp_path))
    wanted = settings_from(without_teacher(given))
    ready = prepare(wanted)
    cached = softmax(np.array(ready.splits["train"][TEACHER_LOGITS][:]), axis=-1)
    np.testing.assert_allclose(cached, softmax(live.logits(live.teacher, "train"), axis=-1), atol=1e-4)
    metrics = distill(wanted)
    assert metrics["student"]["test_agreement"] > 0.9
    assert metrics["teacher"]["test_accuracy"] > 0.95, "the file answers for the test rows, too"
    assert metrics["teacher"]["model"] is None
    assert "parameters" not in metrics["teacher"]
    assert f"teacher: the answers of {path}" in spoken()
    with pytest.raises(UserError, match="read them with teacher_logits"):
        _ = ready.teacher
    # what --controls all adds
    assert metrics["hard_answers"]["layers"] == metrics["student"]["layers"]
    shown = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(shown.columns[3:-1]) == [
        "baseline", "taught_baseline", "teacher", "control", "second_control", "student", "hard_answers",
    ]  # fmt: skip
    assert "the student on hard answers" in metrics["soft_or_hard"]["text"]
    assert "a control with another seed" in metrics["two_controls"]["text"]


def test_training_rows_without_an_answer_stop_the_run_and_test_rows_need_none(files, answer_file, tmp_path, spoken):  # noqa: F811
    path, live = answer_file
    table = pd.read_csv(path)
    for split, said in (("test", "answers for no test row"), ("train", "for none of the training rows")):
        part = table[~table["sentence"].isin(live.splits[split]["text"][:])]
        own = written(tmp_path / f"but-{split}.csv", part)
        given = options(files, None, tmp_path / split, teacher_answers=own, controls="none", **own_student(tmp_path))
        wanted = settings_from(without_teacher(given | {"epochs": 1}))
        if split == "train":
            with pytest.raises(UserError, match=said):
                distill(wanted)
        else:
            metrics = distill(wanted)
            assert said in spoken()
            assert "test_accuracy" not in metrics["teacher"]
            assert metrics["student"]["test_accuracy"] > 0.4


def test_one_file_may_hold_rows_and_answers(files, answer_file, tmp_path):  # noqa: F811
    own = pd.read_csv(files / "train.csv", keep_default_na=False).merge(pd.read_csv(answer_file[0]), on="sentence")
    path = written(tmp_path / "both.csv", own)
    given = options(files, None, tmp_path / "run", train=path, teacher_answers=path, **own_student(tmp_path))
    ready = prepare(settings_from(without_teacher(given)))
    assert len(ready.splits["train"]) == len(own)
    assert ready.teacher_logits("test") is None


def test_a_file_of_text_holds_no_answers(tmp_path):
    (tmp_path / "answers.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="no column of answers, only text"):
        answers_from_file(str(tmp_path / "answers.txt"))


def test_a_run_of_one_function_is_not_resumed_with_another(files, tmp_path, monkeypatch):  # noqa: F811
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    given = without_teacher(options(files, None, tmp_path / "run", accept_teacher=True, **own_student(tmp_path)))
    monkeypatch.setattr("kdhelpers.distillation.pipeline.train_all", stop)
    with pytest.raises(KeyboardInterrupt):
        distill(settings_from(given), answers_from(halves, "one"))
    with pytest.raises(UserError, match="other settings"):
        distill(settings_from(given | {"resume": True}), answers_from(halves, "another"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"teacher": "x"}, "--teacher or --teacher-answers, not both"),
        ({"live_teacher": True}, "leave out further teachers, --teacher-answers"),
        ({"hidden_states": "pkd"}, "leave out further teachers, --teacher-answers"),
    ],
)
def test_what_answers_cannot_do_is_refused(more, said):
    with pytest.raises(UserError, match=re.escape(said)):
        settings_from({"teacher_answers": "answers.csv", **more})


# --- a function


def halves(texts):
    return [[0.5, 0.5] for _ in texts]


def test_every_text_is_asked_once_and_an_interruption_loses_one_batch(monkeypatch):
    asked = []

    def breaks(texts):
        asked.extend(texts)
        if "c" in texts:
            raise KeyboardInterrupt
        return [[len(text), 1.0] for text in texts]

    with pytest.raises(KeyboardInterrupt):
        ask(breaks, ["a", "bb", "a", "c"], "lengths", batch_size=2)
    assert asked == ["a", "bb", "c"], "a repeated text is asked once"
    asked.clear()
    again = lambda texts: asked.extend(texts) or [[len(text), 1.0] for text in texts]  # noqa: E731
    found = ask(again, ["c", "bb", "a", "c"], "lengths", batch_size=2)
    assert asked == ["c"], "what was answered before is not asked again"
    np.testing.assert_array_equal(found, [[1, 1], [2, 1], [1, 1], [1, 1]])
    ask(again, ["a"], "other lengths")
    assert asked == ["c", "a"], "another name has answers of its own"


def test_a_torn_line_costs_its_answer_and_no_other(own_cache):  # noqa: F811
    ask(halves, ["a", "b"], "halves")
    (file,) = (own_cache / "answers").glob("*.jsonl")
    file.write_text(file.read_text()[:-9])
    asked = []
    ask(lambda texts: asked.extend(texts) or halves(texts), ["a", "b"], "halves")
    ask(lambda texts: asked.extend(texts) or halves(texts), ["a", "b"], "halves")
    assert asked == ["b"]


class Response:
    def __init__(self, status: int, **headers):
        self.status_code, self.headers = status, headers


class HTTPError(Exception):
    def __init__(self, status: int, **headers):
        super().__init__(f"HTTP {status}")
        self.response = Response(status, **headers)


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (HTTPError(429, **{"Retry-After": "7"}), [7, 7]),
        (HTTPError(503), [1, 2]),
        (TimeoutError("too slow"), [1, 2]),
        (ConnectionResetError(), [1, 2]),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(monkeypatch, error, waits):
    waited, calls = [], iter([error, error, None])
    monkeypatch.setattr(answers.time, "sleep", waited.append)

    def flaky(texts):
        if failure := next(calls):
            raise failure
        return halves(texts)

    assert ask(flaky, ["a"], "flaky").tolist() == [[0.5, 0.5]]
    assert waited == waits


def test_what_does_not_pass_is_one_sentence_and_keeps_what_was_answered(monkeypatch):
    monkeypatch.setattr(answers.time, "sleep", lambda seconds: None)

    def down(texts):
        if "b" in texts:
            raise HTTPError(500)
        return halves(texts)

    with pytest.raises(UserError, match=r"down failed 3 times \(HTTP 500\); what it answered before is kept"):
        ask(down, ["a", "b"], "down", batch_size=1, attempts=3)
    asked = []
    ask(lambda texts: asked.extend(texts) or halves(texts), ["a", "b"], "down")
    assert asked == ["b"]


@pytest.mark.parametrize(
    "error", [HTTPError(401), HTTPError(404), KeyError("no such name"), TypeError("a slip")], ids=str
)
def test_a_slip_in_the_function_is_shown_at_once(monkeypatch, error):
    monkeypatch.setattr(answers.time, "sleep", lambda seconds: pytest.fail("waited"))

    def slips(texts):
        raise error

    with pytest.raises(type(error)):
        ask(slips, ["a"], "slips")


@pytest.mark.parametrize("given", [[[0.5, 0.5]], [0.5, 0.5], [[0.5, np.nan]] * 2])
def test_answers_of_another_shape_are_refused(given):
    with pytest.raises(UserError, match="answered .* to the batch that begins 'a': finite numbers of shape"):
        ask(lambda texts: given, ["a", "b"], "odd")
    assert ask(halves, ["a"], "odd").tolist() == [[0.5, 0.5]], "and not kept"


def test_a_rule_teaches_without_a_single_label(files, tmp_path, answer_file, spoken):  # noqa: F811
    """What the tiny task's texts mean can be looked up; here the file of answers is the rule."""
    known = pd.read_csv(answer_file[0]).set_index("sentence")
    rule = answers_from(lambda texts: known.loc[texts, NAMES].to_numpy(), "a rule", NAMES)
    for name in ("train", "validation", "test"):
        table = pd.read_csv(files / f"{name}.csv")
        table.assign(label="" if name == "train" else table["label"]).to_csv(tmp_path / f"{name}.csv", index=False)
    given = options(tmp_path, None, tmp_path / "run", **own_student(tmp_path))
    metrics = distill(settings_from(without_teacher(given)), rule)
    assert "no control, for want of labels" in spoken()
    assert metrics["teacher"]["test_accuracy"] > 0.9
    assert metrics["student"]["test_accuracy"] > 0.9
    assert "baseline" not in metrics
    assert metrics["taught_baseline"]["test_accuracy"] > 0.9


def test_a_function_with_other_classes_is_refused():
    with pytest.raises(UserError, match="threes answers for 3 classes; the rows' are bad, good"):
        answers_from(lambda texts: np.eye(3)[: len(texts)], "threes").of(ROWS, NAMES)


# --- several teachers


def test_two_teachers_that_disagree_teach_the_mean_of_their_probabilities(files, teacher, tmp_path):  # noqa: F811
    set_seed(1)
    other = models.set_labels(tiny_model("roberta"), NAMES)
    folder = save_model(tmp_path / "other", other, tiny_tokenizer("bpe"))
    given = options(files, teacher, tmp_path / "run", controls="none", accept_teacher=True)
    both = settings_from(given | {"teacher": json.dumps([str(teacher), str(folder)])})
    alone = dataclasses.replace(both, ensemble=[])
    ready, one = prepare(both), prepare(alone)
    two = prepare(dataclasses.replace(alone, teacher=str(folder), student=str(teacher)))
    for split in ("train", "test"):
        logits = [each.logits(each.teacher, split) for each in (one, two)]
        assert (logits[0].argmax(-1) != logits[1].argmax(-1)).mean() > 0.1, "they disagree"
        mean = np.mean([softmax(each, axis=-1) for each in logits], axis=0)
        taught = np.array(ready.splits["train"][TEACHER_LOGITS][:]) if split == "train" else ready.teacher_logits(split)
        np.testing.assert_allclose(log_softmax(taught, axis=-1), np.log(mean), atol=1e-3)
    metrics = distill(both)
    sizes = [models.count_parameters(each.teacher) for each in (one, two)]
    assert metrics["teacher"]["parameters"] == sum(sizes)
    assert metrics["teacher"]["models"] == [str(teacher), str(folder)]


def test_a_bare_encoder_that_is_named_twice_is_fine_tuned_twice(files, bare, tmp_path):  # noqa: F811
    given = options(files, bare, tmp_path / "run", teacher_epochs=2, teacher_learning_rate=3e-3, accept_teacher=True)
    ready = prepare(settings_from(given | {"teacher": [str(bare), str(bare)]}))
    fits = (ready.teacher_fit, ready.further[0].teacher_fit)
    first, second = (models.weights_fingerprint(fit.model) for fit in fits)
    assert first != second
    assert ready.further[0].settings.seed not in range(42, 142), "the teacher of another seed's run"


def test_two_teachers_with_their_classes_in_another_order_teach_classes_by_name(files, teacher, tmp_path):  # noqa: F811
    turned = models.load_classifier(str(teacher), ["bad", "good"])
    models.align_labels(turned, ["good", "bad"])
    folder = save_model(tmp_path / "turned", turned.model, tiny_tokenizer())
    given = options(files, teacher, tmp_path / "run")
    one, two = (prepare(settings_from(given | {"teacher": [str(teacher), str(other)]})) for other in (teacher, folder))
    assert one.label_names == two.label_names == ["bad", "good"]
    for split in ("validation", "test"):
        np.testing.assert_allclose(one.teacher_logits(split), two.teacher_logits(split), atol=1e-5)
    columns = [np.array(ready.splits["train"][TEACHER_LOGITS][:]) for ready in (one, two)]
    np.testing.assert_allclose(*columns, atol=1e-5)


def test_what_is_wrong_with_a_further_teacher_is_said_before_the_first_is_trained(files, bare, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(prepared, "fit", lambda *_: pytest.fail("a training began"))
    given = options(files, bare, tmp_path / "run")
    with pytest.raises(UserError, match="no model folder at ./nowhere"):
        prepare(settings_from(given | {"teacher": [str(bare), "./nowhere"]}))
    with pytest.raises(UserError, match="at alpha 1 no teacher teaches"):
        prepare(settings_from(given | {"teacher": [str(bare), str(bare)], "alpha": 1}))


# --- an endpoint, asked with the client that a reader would take


def asking(endpoint, timeout=10.0):
    client = InferenceClient(base_url=endpoint.url, api_key="none", timeout=timeout)

    def answer(texts):
        said = []
        for text in texts:
            chat = client.chat.completions.create(model="any", messages=[{"role": "user", "content": text}])
            share = float(chat.choices[0].message.content)
            said.append([1 - share, share])
        return said

    return answer


def test_an_endpoint_in_trouble_is_waited_for_and_nothing_is_paid_twice(monkeypatch):
    waited = []
    monkeypatch.setattr(answers.time, "sleep", waited.append)
    with pretend_endpoint(lambda message: "0.25" if message == "poor" else "0.75") as endpoint:
        endpoint.troubles += [429, 503]
        first = ask(asking(endpoint), ["poor", "fine"], "llm", batch_size=1)
        assert waited == [1.0, 2.0], "as the server asks, then as long as it takes"
        endpoint.troubles += [500] * 5
        with pytest.raises(UserError, match="what it answered before is kept"):
            ask(asking(endpoint), ["poor", "fine", "so so"], "llm", batch_size=1)
        again = ask(asking(endpoint), ["so so", "fine", "poor"], "llm", batch_size=1)
        assert endpoint.served == 3
    assert first.tolist() == again[[2, 1]].tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_trouble_in_the_middle_of_a_batch_costs_no_answer_that_was_yielded_before(monkeypatch):
    monkeypatch.setattr(answers.time, "sleep", lambda seconds: None)
    texts = [f"text {number}" for number in range(16)]
    with pretend_endpoint(lambda message: f"0.{message.removeprefix('text '):0>2}") as endpoint:

        def yields(batch):
            for text in batch:
                yield from asking(endpoint)([text])

        endpoint.troubles += [200] * 5 + [429, 200, 503]
        found = ask(yields, texts, "llm", batch_size=8)
        assert endpoint.served == 16
        np.testing.assert_allclose(found[:, 1], np.arange(16) / 100)
        endpoint.troubles += [200] * 3 + [429]
        ask(asking(endpoint), texts, "all at once", batch_size=8)
        assert endpoint.served == 16 + 3 + 16, "what returns a whole batch pays for its beginning again"
        endpoint.troubles += [200] * 3 + [500] * 5
        with pytest.raises(UserError, match="what it answered before is kept"):
            ask(yields, texts, "down", batch_size=8)
        ask(yields, texts, "down", batch_size=8)
        assert endpoint.served == 35 + 16


@pytest.mark.parametrize("rows", [[[0.5, 0.5]], [[0.5, 0.5]] * 3, [0.5, 0.5], [[0.5, np.nan]] * 2], ids=str)
def test_yielded_rows_of_another_shape_are_refused(rows):
    with pytest.raises(UserError, match="odd (answered|yielded more rows)"):
        ask(lambda texts: (row for row in rows), ["a", "b"], "odd")


def test_an_endpoint_that_is_too_slow_or_refuses_the_key(monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(answers.time, "sleep", lambda seconds: None)
    with pretend_endpoint(lambda message: sleep(0.6) or "0.5") as endpoint:
        with pytest.raises(UserError, match="slow failed 2 times"):
            ask(asking(endpoint, timeout=0.1), ["a"], "slow", attempts=2)
        endpoint.troubles += [401]
        with pytest.raises(Exception, match="401"):
            ask(asking(endpoint), ["a"], "no key")
        assert not endpoint.troubles


def test_a_broken_answer_of_an_endpoint_goes_through_and_is_not_kept():
    with pretend_endpoint(lambda message: "I cannot say") as endpoint:
        with pytest.raises(ValueError, match="I cannot say"):
            ask(asking(endpoint), ["a"], "broken")
        endpoint.reply = lambda message: "0.5"
        assert ask(asking(endpoint), ["a"], "broken").tolist() == [[0.5, 0.5]]


def test_ids_that_are_those_of_other_rows_are_refused_where_the_texts_say_so(tmp_path):
    table = answer_table(id=[7, 8, 9], text=["Fine ", "so so", "poor"])
    with pytest.raises(UserError, match="line 3 has the id '8' and another text than that row, 'poor'"):
        answers_from_file(written(tmp_path / "answers.csv", table)).of(ROWS, NAMES)
    table["text"] = ["Fine ", "POOR", "so  so"]
    assert answers_from_file(written(tmp_path / "answers.csv", table)).of(ROWS, NAMES).shape == (3, 2)
