"""Whether two tokenizers read alike is seen in what matters, and a text never gets longer than the model reads."""

import copy
import json

import pytest
import torch
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizer, PreTrainedTokenizerFast, set_seed

from kdhelpers import models
from kdhelpers.errors import UserError
from tests.tiny import (
    FAMILIES,
    POSITIONS,
    VOCABULARY,
    family_tokenizer,
    save_model,
    tiny_bert,
    tiny_model,
    tiny_tokenizer,
)

KINDS = ["wordpiece", "mpnet", "bpe", "unigram"]


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return tiny_tokenizer(request.param)


@pytest.fixture(params=FAMILIES)
def family(request):
    set_seed(0)
    return request.param


def words(tokenizer) -> list[str]:
    """Tokens of the vocabulary that are whole words."""
    return [token for token in tokenizer.get_vocab() if token.lstrip("Ġ▁") in ("winter", "garden")]


class Slow(PreTrainedTokenizer):
    """A tokenizer in Python: a letter a token."""

    def __init__(self, **options):
        self.letters = {letter: index for index, letter in enumerate(["[PAD]", "[UNK]", *map(chr, range(32, 127))])}
        super().__init__(pad_token="[PAD]", unk_token="[UNK]", **options)

    @property
    def vocab_size(self):
        return len(self.letters)

    def get_vocab(self):
        return dict(self.letters)

    def _tokenize(self, text, **options):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.letters.get(token, 1)

    def _convert_id_to_token(self, index):
        return list(self.letters)[index]


# --- comparing ------------------------------------------------------------------------------------------------


def test_a_tokenizer_agrees_with_itself_and_with_what_was_saved(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for other in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        report = models.compare_tokenizers(tokenizer, other)
        assert report.agree, report
        assert "they do not agree" not in str(report)
        models.require_same_tokenizer(report)


@pytest.mark.parametrize("kind", ["wordpiece", "mpnet", "bpe"])
def test_two_swapped_tokens_are_found_and_named(kind):
    tokenizer = tiny_tokenizer(kind)
    a, b = words(tokenizer)
    report = models.compare_tokenizers(tokenizer, models.swap_tokens(tokenizer, a, b))
    assert not report.agree
    assert repr(a) in str(report)
    assert repr(b) in str(report)
    with pytest.raises(UserError):
        models.require_same_tokenizer(report)


@pytest.mark.parametrize("turned", [False, True])
def test_another_casing_over_the_same_vocabulary_is_found(turned):
    lower, upper = tiny_tokenizer(), models.cased(tiny_tokenizer())
    assert lower.get_vocab() == upper.get_vocab()
    report = models.compare_tokenizers(*((upper, lower) if turned else (lower, upper)))
    assert not report.agree
    last = report.problems[-1]
    assert ("student lower-cases" in last) == turned
    assert ("teacher lower-cases" in last) != turned


def test_other_special_ids_are_found():
    other = tiny_tokenizer()
    other.pad_token = "[UNK]"
    report = models.compare_tokenizers(tiny_tokenizer(), other)
    assert any("PAD" in problem for problem in report.problems)


@pytest.mark.parametrize(("first", "second"), [("wordpiece", "mpnet"), ("bpe", "unigram"), ("wordpiece", "bpe")])
def test_different_kinds_do_not_agree(first, second):
    assert not models.compare_tokenizers(tiny_tokenizer(first), tiny_tokenizer(second)).agree


def test_a_text_of_your_own_is_compared_too():
    tokenizer, other = tiny_tokenizer(), tiny_tokenizer()
    other.backend_tokenizer.normalizer = copy.deepcopy(other.backend_tokenizer.normalizer)
    plain = models.compare_tokenizers(tokenizer, other)
    assert plain.agree
    other.add_tokens(["zq"])
    found = models.compare_tokenizers(tokenizer, other, texts=("zq",))
    assert any("'zq' is read differently" in problem for problem in found.problems)


def test_token_type_ids_alone_make_no_difference():
    other = tiny_tokenizer()
    other.model_input_names = ["input_ids", "attention_mask"]
    report = models.compare_tokenizers(tiny_tokenizer(), other)
    assert report.agree
    assert any("token_type_ids" in remark for remark in report.remarks)


def test_tokenizers_without_cls_and_sep_are_compared():
    state = json.loads(tiny_tokenizer("bpe").backend_tokenizer.to_str())
    state["post_processor"] = None
    plain = models.rebuilt_tokenizer(tiny_tokenizer("bpe"), state)
    bare = PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer, pad_token="<pad>")
    assert models.compare_tokenizers(bare, bare).agree
    assert not models.compare_tokenizers(bare, tiny_tokenizer("bpe")).agree
    a, b = words(bare)
    assert not models.compare_tokenizers(bare, models.swap_tokens(bare, a, b)).agree


def test_slow_tokenizers_are_compared_and_not_rebuilt():
    assert models.compare_tokenizers(Slow(), Slow()).agree
    assert not models.compare_tokenizers(Slow(), tiny_tokenizer()).agree
    with pytest.raises(UserError):
        models.swap_tokens(Slow(), "a", "b")
    with pytest.raises(UserError):
        models.cased(Slow())


# --- rebuilding -----------------------------------------------------------------------------------------------


def test_a_rebuilt_tokenizer_keeps_added_tokens_and_settings(tokenizer, tmp_path):
    tokenizer.add_tokens(["zeitgeist"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>"]})
    tokenizer.model_max_length, tokenizer.padding_side = 17, "left"
    again = models.rebuilt_tokenizer(tokenizer, json.loads(tokenizer.backend_tokenizer.to_str()))
    again.save_pretrained(tmp_path)
    for other in (again, AutoTokenizer.from_pretrained(tmp_path)):
        assert other.get_vocab() == tokenizer.get_vocab()
        assert other("the zeitgeist <user>")["input_ids"] == tokenizer("the zeitgeist <user>")["input_ids"]
        assert set(other.all_special_tokens) == set(tokenizer.all_special_tokens)
        assert (other.model_max_length, other.padding_side) == (17, "left")
        assert other.pad(other(["a", "a a"]))["input_ids"] == tokenizer.pad(tokenizer(["a", "a a"]))["input_ids"]


def test_cased_and_swapped_tokenizers_stay_so_when_saved(tmp_path):
    tokenizer = tiny_tokenizer()
    for name, changed in {"a": models.cased(tokenizer), "b": models.swap_tokens(tokenizer, "winter", "garden")}.items():
        changed.save_pretrained(tmp_path / name)
        again = AutoTokenizer.from_pretrained(tmp_path / name)
        assert again("A Winter in the garden")["input_ids"] == changed("A Winter in the garden")["input_ids"]


# --- length ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [int(1e30), 10_000, POSITIONS])
def test_the_longest_text_that_is_cut_by_the_tokenizer_is_read_by_the_model(family, limit, tmp_path):
    tokenizer, model = family_tokenizer(family), tiny_model(family)
    tokenizer.model_max_length = limit
    save_model(tmp_path, model, tokenizer)
    loaded = models.load_tokenizer(str(tmp_path))
    batch = loaded(["the film " * 200, "a"], truncation=True, padding=True, return_tensors="pt")
    usable = loaded.model_max_length
    assert batch["input_ids"].shape[1] == usable
    if family not in ("deberta-v2", "modernbert"):  # whose positions are relative: there is no table to run out of
        assert usable == POSITIONS
    with torch.inference_mode():
        assert model(**batch).logits.isfinite().all()


@pytest.mark.parametrize(
    ("family_name", "usable"), [("roberta", 512), ("xlm-roberta", 512), ("mpnet", 512), ("bert", 514)]
)
def test_514_positions_of_roberta_are_512(family_name, usable):
    tokenizer, config = family_tokenizer(family_name), tiny_model(family_name).config
    tokenizer.model_max_length, config.max_position_embeddings = int(1e30), 514
    assert models.usable_length(tokenizer, config) == usable
    assert models.compare_tokenizers(tokenizer, tokenizer, config, config).usable_length == usable


def test_a_length_of_the_tokenizers_own_counts_where_it_is_smaller():
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 20
    assert models.usable_length(tokenizer, tiny_bert().config) == 20
    report = models.compare_tokenizers(tiny_tokenizer(), tokenizer, tiny_bert().config, tiny_bert().config)
    assert report.usable_length == 20
    assert report.agree


def test_a_length_without_any_limit_is_still_a_number_that_truncation_takes():
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = int(1e30)
    tokenizer.model_max_length = models.usable_length(tokenizer, None)
    assert tokenizer.model_max_length < 2**31
    assert len(tokenizer("the film", truncation=True)["input_ids"]) == 4


def test_asking_for_the_length_draws_no_random_number():
    config = tiny_model("roberta").config
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    models.usable_length(tiny_tokenizer("bpe"), config)
    assert torch.equal(torch.rand(1), expected)


# --- loading --------------------------------------------------------------------------------------------------


def refused(folder, *said: str) -> None:
    with pytest.raises(UserError) as caught:
        models.load_tokenizer(str(folder))
    for word in (str(folder), *said):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_token_without_an_embedding_is_refused(family, tmp_path):
    tokenizer = family_tokenizer(family)
    tokenizer.add_tokens(["zeitgeist"])
    save_model(tmp_path, tiny_model(family), tokenizer)
    refused(tmp_path, "zeitgeist")


def test_embeddings_without_a_token_do_not_matter(tmp_path):
    model = tiny_bert()
    model.resize_token_embeddings(len(VOCABULARY) + 30)
    save_model(tmp_path, model, tiny_tokenizer())
    assert models.load_tokenizer(str(tmp_path)).get_vocab() == tiny_tokenizer().get_vocab()


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "deberta-v2", "modernbert"])
def test_a_folder_without_a_tokenizer_is_refused(name, tmp_path):
    tiny_model(name).save_pretrained(tmp_path)
    refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [("deberta-v2", "spm.model"), ("albert", "spiece.model"), ("xlm-roberta", "sentencepiece.bpe.model")],
)
def test_a_sentencepiece_file_alone_names_the_package_that_reads_it(name, file, tmp_path):
    if models.loading.importlib.util.find_spec("sentencepiece"):
        pytest.skip("sentencepiece is installed")
    tiny_model(name).save_pretrained(tmp_path)
    (tmp_path / file).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    refused(tmp_path, "pip install sentencepiece")


def test_a_damaged_tokenizer_is_told_in_one_sentence(tmp_path):
    save_model(tmp_path, tiny_bert(), tiny_tokenizer())
    (tmp_path / "tokenizer.json").write_text("{")
    refused(tmp_path)


def test_a_vocabulary_file_alone_is_enough(tmp_path):
    tiny_bert().save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    loaded = models.load_tokenizer(str(tmp_path))
    assert isinstance(loaded, BertTokenizerFast)
    assert models.compare_tokenizers(loaded, tiny_tokenizer()).agree


def test_a_tokenizer_without_padding_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    save_model(tmp_path, tiny_bert(), tokenizer)
    refused(tmp_path, "pad")
