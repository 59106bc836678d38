"""Do teacher and student read every text the same way? And tokenizers that differ on purpose, to try that out."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

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


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short hash of every token with its id."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:12]


def usable_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig | None) -> int:
    """How many tokens, special ones included, tokenizer and model allow.

    RoBERTa's kin never use the positions up to the padding's: 514 of them read 512 tokens.
    """
    limits = [NO_LIMIT, int(tokenizer.model_max_length)]
    positions = getattr(config, "max_position_embeddings", None) or 0
    if positions > 0:
        with torch.device("meta"):  # shapes without weights
            body = AutoModel.from_config(config)
        tables = [part for name, part in body.named_modules() if name.endswith("position_embeddings")]
        unused = [part.padding_idx + 1 for part in tables if getattr(part, "padding_idx", None) is not None]
        limits.append(positions - max(unused, default=0))
    return min(limits)


def compare_tokenizers(
    teacher: PreTrainedTokenizerBase,
    student: PreTrainedTokenizerBase,
    teacher_config: PretrainedConfig | None = None,
    student_config: PretrainedConfig | None = None,
    texts: tuple[str, ...] = (),
) -> TokenizerReport:
    """Compare whole vocabularies, special ids, casing and the ids of a probe corpus (plus your `texts`).

    One sample sentence proves nothing about a rare token it does not hold, and comparing the tokenizers' whole
    output fails for equal tokenizers where only one returns token_type_ids; this compares what matters.
    """
    problems = [
        *_vocabulary_problems(teacher.get_vocab(), student.get_vocab()),
        *_special_problems(teacher, student),
        *_reading_problems(teacher, student, (*PROBE_CORPUS, *texts)),
    ]
    remarks = []
    extra = sorted(set(teacher.model_input_names) ^ set(student.model_input_names))
    if extra:
        remarks.append(f"only one of them returns {', '.join(extra)}; each model is fed what it reads")
    limits = [usable_length(teacher, teacher_config), usable_length(student, student_config)]
    if limits[0] != limits[1]:
        remarks.append(f"the teacher reads up to {limits[0]} tokens, the student {limits[1]}: the smaller counts")
    sizes, hashes = zip(*((len(each.get_vocab()), vocabulary_hash(each)) for each in (teacher, student)), strict=True)
    return TokenizerReport(*sizes, *hashes, min(limits), problems, remarks)


def _vocabulary_problems(ours: dict[str, int], theirs: dict[str, int]) -> Iterator[str]:
    tokens = ours.keys() | theirs.keys()
    different = sorted((token for token in tokens if ours.get(token) != theirs.get(token)), key=lambda t: (len(t), t))
    if different:
        shown = "; ".join(
            f"{token!r}: teacher {ours.get(token, 'none')}, student {theirs.get(token, 'none')}"
            for token in different[-3:]
        )
        yield f"{len(different):,} of {len(tokens):,} tokens have another id or are missing, e.g. {shown}"


def _special_problems(teacher, student) -> Iterator[str]:
    for name in ("cls", "sep", "pad", "unk", "mask"):
        a, b = (getattr(tokenizer, f"{name}_token_id", None) for tokenizer in (teacher, student))
        if a != b:
            yield f"the [{name.upper()}] id is {a} for the teacher, {b} for the student"


def _reading_problems(teacher, student, texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        a, b = (each(text, truncation=False, verbose=False)["input_ids"] for each in (teacher, student))
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            yield (
                f"{text[:40]!r} is read differently from token {at} on: "
                f"teacher {teacher.convert_ids_to_tokens(a[at : at + 3])}, "
                f"student {student.convert_ids_to_tokens(b[at : at + 3])}"
            )
            break
    lower = [each("Aa")["input_ids"] == each("aa")["input_ids"] for each in (teacher, student)]
    if lower[0] != lower[1]:
        yield "the {} lower-cases its text, the {} does not".format(*["teacher", "student"][:: 1 if lower[0] else -1])


def require_same_tokenizer(report: TokenizerReport) -> None:
    """Raise UserError where the student would read other tokens than the teacher."""
    if not report.agree:
        raise UserError(
            "teacher and student do not share a tokenizer, so logits and input would not belong together: "
            + report.problems[0]
        )


def _state(tokenizer: PreTrainedTokenizerBase) -> dict:
    """A tokenizer's insides. Raises UserError for one in Python, which has no such description."""
    if not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} is a slow tokenizer, without a tokenizer.json: use a fast one")
    return json.loads(tokenizer.backend_tokenizer.to_str())


def swap_tokens(tokenizer: PreTrainedTokenizerBase, a: str, b: str) -> PreTrainedTokenizerFast:
    """A copy of a WordPiece or BPE tokenizer in which two tokens have changed ids: the smallest mismatch there is."""
    state = _state(tokenizer)
    vocabulary = state["model"]["vocab"]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    return rebuilt_tokenizer(tokenizer, state)


def cased(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """A copy of a BERT tokenizer that no longer lower-cases its text, over the same vocabulary."""
    state = _state(tokenizer)
    state["normalizer"]["lowercase"] = False
    return rebuilt_tokenizer(tokenizer, state)


def rebuilt_tokenizer(tokenizer: PreTrainedTokenizerBase, state: dict) -> PreTrainedTokenizerFast:
    """A tokenizer with the special tokens and settings of `tokenizer`, and the insides that `state` describes.

    `state` is the tokenizer.json, added tokens included.
    """
    kept = ("model_max_length", "model_input_names", "padding_side", "truncation_side")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        **{name: getattr(tokenizer, name) for name in kept},
        **tokenizer.special_tokens_map,
        extra_special_tokens=tokenizer.extra_special_tokens,
    )
