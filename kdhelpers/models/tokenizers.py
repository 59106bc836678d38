"""Do teacher and student read every text the same way? And tokenizers that differ on purpose, to try that out."""

import hashlib
import json
from dataclasses import dataclass, field

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

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


@dataclass(frozen=True)
class TokenizerReport:
    """How a teacher's and a student's tokenizer compare. `problems` stop a run; `remarks` do not matter to it."""

    teacher_vocabulary: int
    student_vocabulary: int
    teacher_hash: str
    student_hash: str
    usable_length: int  # word pieces that tokenizers and position tables all allow
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def agree(self) -> bool:
        """True where the student reads every text exactly as the teacher does."""
        return not self.problems

    def __str__(self) -> str:
        lines = [
            f"vocabulary  teacher {self.teacher_vocabulary:,} pieces ({self.teacher_hash}), "
            f"student {self.student_vocabulary:,} ({self.student_hash})",
            f"length      up to {self.usable_length} pieces",
            *(f"PROBLEM     {problem}" for problem in self.problems),
            *(f"remark      {remark}" for remark in self.remarks),
        ]
        return "\n".join([*lines, "verdict     " + ("the tokenizers agree" if self.agree else "they do not agree")])


def vocabulary_hash(tokenizer) -> str:
    """A short hash of every piece with its id."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:12]


def _position_limit(tokenizer, config) -> int:
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or 10**9]
    return int(min(limits))


def compare_tokenizers(
    teacher, student, teacher_config=None, student_config=None, texts: tuple[str, ...] = ()
) -> TokenizerReport:
    """Compare whole vocabularies, special ids, casing and the ids of a probe corpus (plus your `texts`).

    One sample sentence proves nothing about a rare piece it does not hold, and comparing the tokenizers' whole
    output fails for equal tokenizers where only one returns token_type_ids; this compares what matters.
    """
    ours, theirs = teacher.get_vocab(), student.get_vocab()
    problems, remarks = [], []
    pieces = ours.keys() | theirs.keys()
    different = sorted((piece for piece in pieces if ours.get(piece) != theirs.get(piece)), key=lambda p: (len(p), p))
    if different:
        shown = "; ".join(
            f"{p!r}: teacher {ours.get(p, 'none')}, student {theirs.get(p, 'none')}" for p in different[-3:]
        )
        problems.append(f"{len(different):,} of {len(pieces):,} pieces have another id or are missing, e.g. {shown}")
    for name in ("cls", "sep", "pad", "unk", "mask"):
        a, b = getattr(teacher, f"{name}_token_id", None), getattr(student, f"{name}_token_id", None)
        if a != b:
            problems.append(f"the [{name.upper()}] id is {a} for the teacher, {b} for the student")
    for text in (*PROBE_CORPUS, *texts):
        a = teacher(text, truncation=False, verbose=False)["input_ids"]
        b = student(text, truncation=False, verbose=False)["input_ids"]
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            problems.append(
                f"{text[:40]!r} is read differently from piece {at} on: "
                f"teacher {teacher.convert_ids_to_tokens(a[at : at + 3])}, "
                f"student {student.convert_ids_to_tokens(b[at : at + 3])}"
            )
            break
    if (
        teacher("Aa")["input_ids"] == teacher("aa")["input_ids"]
        and student("Aa")["input_ids"] != student("aa")["input_ids"]
    ):
        problems.append("the teacher lower-cases its text, the student does not")
    if (
        teacher("Aa")["input_ids"] != teacher("aa")["input_ids"]
        and student("Aa")["input_ids"] == student("aa")["input_ids"]
    ):
        problems.append("the student lower-cases its text, the teacher does not")
    extra = sorted(set(teacher.model_input_names) ^ set(student.model_input_names))
    if extra:
        remarks.append(f"only one of them returns {', '.join(extra)}; each model is fed what it reads")
    limits = [_position_limit(teacher, teacher_config), _position_limit(student, student_config)]
    if limits[0] != limits[1]:
        remarks.append(f"the teacher reads up to {limits[0]} pieces, the student {limits[1]}: the smaller counts")
    return TokenizerReport(
        len(ours), len(theirs), vocabulary_hash(teacher), vocabulary_hash(student), min(limits), problems, remarks
    )


def require_same_tokenizer(report: TokenizerReport) -> None:
    """Raise UserError where the student would read other pieces than the teacher."""
    if not report.agree:
        raise UserError(
            "teacher and student do not share a tokenizer, so logits and input would not belong together: "
            + report.problems[0]
        )


def swap_pieces(tokenizer, a: str, b: str):
    """A copy of a tokenizer in which two pieces have changed ids: the smallest mismatch there is."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    return rebuilt_tokenizer(tokenizer, state)


def cased(tokenizer):
    """A copy of a tokenizer that no longer lower-cases its text, over the same vocabulary."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["normalizer"]["lowercase"] = False
    return rebuilt_tokenizer(tokenizer, state)


def rebuilt_tokenizer(tokenizer, state: dict) -> PreTrainedTokenizerFast:
    """A tokenizer with the special pieces and length of `tokenizer`, and the insides that `state` describes."""
    special = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **{name: getattr(tokenizer, name) for name in special},
    )
