"""Do teacher and student read every text the same way? And tokenizers that differ on purpose, to try that out."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModel, PreTrainedTokenizerFast

from kdhelpers.errors import UserError

# Written for this purpose: accents, scripts, emoji, digits, markup, odd spaces, rare words, a long text.
PROBE_CORPUS = (
    "A quietly moving film, and not a minute too long.",
    "Naïve café façade: déjà vu, señor Müller, Łódź, Åse, İstanbul",
    "映画はとても面白かった。 Фильм был скучным. הסרט היה נהדר",
    "So good!!! 😀👍🏽 #mustsee @you http://example.org/a?b=c&d=e",
    "rock'n'roll isn't dead; it's 1984 x 3.14 = 6230.4 (or $5,000)",
    "<b>bold</b> [MASK] [SEP] [UNK] \t tabs\u00a0and\u200bstrange\u3000spaces",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis zyzzyva",
    "",
    "ALL CAPS, Title Case, miXeD cAsE",
    "one more time " * 400,
)
NO_LIMIT = 10**6  # tokens, where neither tokenizer (1e30 is transformers' word for it) nor positions set a limit


@dataclass(frozen=True)
class TokenizerReport:
    """How a teacher's and a student's tokenizer compare. `problems` stop a run; `remarks` do not matter to it."""

    teacher_vocabulary: int
    student_vocabulary: int
    teacher_hash: str
    student_hash: str
    usable_length: int  # tokens that tokenizers and position tables all allow
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        """True where the student reads every text exactly as the teacher does."""
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"vocabulary  teacher {self.teacher_vocabulary:,} tokens ({self.teacher_hash}), "
            f"student {self.student_vocabulary:,} ({self.student_hash})",
            f"length      up to {self.usable_length} tokens",
            *(f"PROBLEM     {problem}" for problem in self.problems),
            *(f"remark      {remark}" for remark in self.remarks),
        ]
        return "\n".join([*lines, "verdict     " + ("the tokenizers agree" if self.agree else "they do not agree")])


def usable_length(tokenizer: Any, config: Any) -> int:
    """How many tokens, special ones included, tokenizer and model (None: any) allow.

    RoBERTa's kin never use the positions up to the padding's: 514 of them read 512 tokens.
    """
    limits = [NO_LIMIT, int(tokenizer.model_max_length)]
    positions = getattr(config, "max_position_embeddings", None) or 0
    if positions > 0:
        with torch.device("meta"):  # shapes without weights
            parts = AutoModel.from_config(config).named_modules()
        padding = [getattr(part, "padding_idx", None) for name, part in parts if name.endswith("position_embeddings")]
        limits.append(positions - max((index + 1 for index in padding if index is not None), default=0))
    return min(limits)


def compare_tokenizers(
    teacher: Any, student: Any, teacher_config: Any = None, student_config: Any = None, texts: tuple[str, ...] = ()
) -> TokenizerReport:
    """Compare whole vocabularies, special ids, casing and the ids of a probe corpus (plus your `texts`).

    One sample sentence proves nothing about a rare token it does not hold, and comparing the tokenizers' whole
    output fails for equal tokenizers where only one returns token_type_ids; this compares what matters.
    """
    both, remarks = (teacher, student), []
    ours, theirs = (each.get_vocab() for each in both)
    extra = sorted(set(teacher.model_input_names) ^ set(student.model_input_names))
    if extra:
        remarks.append(f"only one of them returns {', '.join(extra)}; each model is fed what it reads")
    limits = [usable_length(*each) for each in ((teacher, teacher_config), (student, student_config))]
    if limits[0] != limits[1]:
        remarks.append(f"the teacher reads up to {limits[0]} tokens, the student {limits[1]}: the smaller counts")
    problems = [*_vocabulary_problems(ours, theirs), *_reading_problems(both, (*PROBE_CORPUS, *texts))]
    for name in ("cls", "sep", "pad", "unk", "mask"):
        a, b = (getattr(each, f"{name}_token_id", None) for each in both)
        if a != b:
            problems.append(f"the [{name.upper()}] id is {a} for the teacher, {b} for the student")
    hashes = [hashlib.sha256(json.dumps(sorted(each.items())).encode()).hexdigest()[:12] for each in (ours, theirs)]
    return TokenizerReport(len(ours), len(theirs), hashes[0], hashes[1], min(limits), problems, remarks)


def _vocabulary_problems(ours: dict[str, int], theirs: dict[str, int]) -> Iterator[str]:
    tokens = ours.keys() | theirs.keys()
    different = sorted((t for t in tokens if ours.get(t) != theirs.get(t)), key=lambda token: (len(token), token))
    shown = [f"{t!r}: teacher {ours.get(t, 'none')}, student {theirs.get(t, 'none')}" for t in different[-3:]]
    if different:
        yield f"{len(different):,} of {len(tokens):,} tokens have another id or are missing, e.g. {'; '.join(shown)}"


def _reading_problems(both: tuple[Any, Any], texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        a, b = (each(text, truncation=False, verbose=False)["input_ids"] for each in both)
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            read = [each.convert_ids_to_tokens(ids[at : at + 3]) for each, ids in zip(both, (a, b), strict=True)]
            yield f"{text[:40]!r} is read differently from token {at} on: teacher {read[0]}, student {read[1]}"
            break
    lower = [each("Aa")["input_ids"] == each("aa")["input_ids"] for each in both]
    if lower[0] != lower[1]:
        does, does_not = ("teacher", "student") if lower[0] else ("student", "teacher")
        yield f"the {does} lower-cases its text, the {does_not} does not"


def require_same_tokenizer(report: TokenizerReport) -> None:
    """Raise UserError where the student would read other tokens than the teacher."""
    if not report.agree:
        why = "teacher and student do not share a tokenizer, so logits and input would not belong together"
        raise UserError(f"{why}: {report.problems[0]}")


def _state(tokenizer: Any) -> dict:
    """What tokenizer.json says. Raises UserError for a tokenizer that has none, being written in Python."""
    if not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} is a slow tokenizer, without a tokenizer.json: take a fast one")
    return json.loads(tokenizer.backend_tokenizer.to_str())


def swap_tokens(tokenizer: Any, a: str, b: str) -> PreTrainedTokenizerFast:
    """A copy of a WordPiece or BPE tokenizer in which two tokens have changed ids: the smallest mismatch there is."""
    state = _state(tokenizer)
    vocabulary = state["model"]["vocab"]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    return rebuilt_tokenizer(tokenizer, state)


def cased(tokenizer: Any) -> PreTrainedTokenizerFast:
    """A copy of a BERT tokenizer that no longer lower-cases its text, over the same vocabulary."""
    state = _state(tokenizer)
    state["normalizer"]["lowercase"] = False
    return rebuilt_tokenizer(tokenizer, state)


def rebuilt_tokenizer(tokenizer: Any, state: dict) -> PreTrainedTokenizerFast:
    """A tokenizer with the special tokens and settings of `tokenizer`, and the insides that `state` describes.

    `state` is what tokenizer.json holds, added tokens included.
    """
    kept = ("model_max_length", "model_input_names", "padding_side", "truncation_side", "extra_special_tokens")
    settings = {name: getattr(tokenizer, name) for name in kept} | tokenizer.special_tokens_map
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **settings)
