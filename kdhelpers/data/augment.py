"""More text out of the text that is there: altered copies, which a teacher answers for like for any other."""

from collections.abc import Collection, Sequence

import numpy as np

from kdhelpers.data.rows import SPLIT_SEED, Rows, fold, row_keys, with_texts
from kdhelpers.errors import UserError

LEFT_OUT = 0.15  # the share of words that are left out of a copy
SHORT = 6  # texts of no more words than this are not cut into parts


def altered_copies(texts: Sequence[str], copies: int, without: Collection[str] = (), seed: int = SPLIT_SEED) -> list:
    """About `copies` altered versions of each text, none twice, and none that is (folded) among `texts` or `without`.

    Half of them are a part of the text, a third to two thirds of its words; of the others every seventh word or so is
    left out. Their labels may be others than the text's: they are for a teacher to answer. After Tang et al.,
    "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", 2019, who also replace words.

    >>> altered_copies(["one two three four five six seven eight nine ten"], 2)
    ['one two three five six seven nine ten', 'one two three four five seven eight nine ten']
    """
    rng = np.random.default_rng(seed)
    seen = {fold(text) for text in (*texts, *without)}
    found = []
    for text in [*texts] * copies:
        words = text.split()
        if len(words) > SHORT and rng.random() < 0.5:
            length = int(rng.integers(len(words) // 3, 2 * len(words) // 3 + 1))
            start = int(rng.integers(len(words) - length + 1))
            words = words[start : start + length]
        else:
            words = [word for word in words if rng.random() >= LEFT_OUT]
        copy = " ".join(words)
        if copy and fold(copy) not in seen:
            seen.add(fold(copy))
            found.append(copy)
    return found


def with_altered_copies(rows: Rows, copies: int) -> Rows:
    """The rows, and beside its training rows altered copies of them without labels. Raises UserError without any."""
    if not copies:
        return rows
    if rows.pairs:
        raise UserError("--augment alters single texts, and these rows are pairs: leave it out")
    held_out = [key for name in ("validation", "test") if name in rows.splits for key in row_keys(rows.splits[name])]
    texts = [{"text": text} for text in altered_copies(rows.splits["train"]["text"][:], copies, held_out)]
    if not texts:
        raise UserError("--augment cuts texts at their spaces, and of these no copy could be made: leave it out")
    return with_texts(rows, texts, "altered copies of the training texts join them, for the teacher to answer")
