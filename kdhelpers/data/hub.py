"""Rows from the Hugging Face Hub, and one sentence for whatever goes wrong there."""

import logging
import re
from pathlib import Path

from datasets import Dataset, DatasetDict

from kdhelpers.data.rows import Rows, require_column
from kdhelpers.errors import UserError

log = logging.getLogger(__name__)


def hub_rows(dataset_id: str, config: str | None, text_column: str, label_column: str) -> Rows:
    """A data set from the Hugging Face Hub, e.g. nyu-mll/glue, sst2.

    Where the test split's labels are hidden (GLUE writes -1) or there is none, the validation split is what gets
    scored; then nothing may be chosen on it, so the run keeps its last checkpoint.
    """
    from datasets import load_dataset

    log.info("asking the Hugging Face Hub for the data set %s", dataset_id)
    try:
        raw = load_dataset(dataset_id, config)
        revision = _dataset_revision(raw)
    except Exception as error:  # datasets wraps what the Hub answered in many types
        raise UserError(hub_message(f"the data set {dataset_id} ({config or 'default'})", error)) from error
    for name in ("train", "validation"):
        if name not in raw:
            raise UserError(f"the data set {dataset_id} has no {name} split; it has: {', '.join(raw)}")
    for column in (text_column, label_column):
        require_column(column, raw["train"].column_names, f"{dataset_id} ({config or 'default'})")
    feature = raw["train"].features[label_column]
    names = list(getattr(feature, "names", [])) or [str(value) for value in sorted(set(raw["train"][label_column]))]

    def tidy(split):
        rows = raw[split]
        ids = [f"{split}-{index}" for index in range(len(rows))]
        return Dataset.from_dict({"id": ids, "text": rows[text_column], "label": rows[label_column]})

    scored_on = "test" if "test" in raw and min(raw["test"][label_column]) >= 0 else "validation"
    splits = DatasetDict(train=tidy("train"), test=tidy(scored_on))
    if scored_on == "test":
        splits["validation"] = tidy("validation")
        return Rows(splits, names, revision=revision)
    note = (
        f"{dataset_id} hides its test labels: the scores are for its validation split, "
        "and the last checkpoint is kept, since nothing may be chosen on those rows"
    )
    return Rows(splits, names, "validation (test labels are hidden)", revision, [note])


def _dataset_revision(raw: DatasetDict) -> str | None:
    """The commit that the rows came from; datasets names its cache folder after it."""
    for file in raw["train"].cache_files:
        commits = [part for part in Path(file["filename"]).parts if re.fullmatch("[0-9a-f]{40}", part)]
        if commits:
            return commits[-1]
    return None


def hub_message(what: str, error: BaseException) -> str:
    """One sentence for a failed download from the Hugging Face Hub: what was wanted, why it failed, what to do."""
    chain, status = error, None
    while chain is not None and status is None:
        status = getattr(getattr(chain, "response", None), "status_code", None)
        chain = chain.__cause__ or chain.__context__
    if "doesn't exist on the Hub" in str(error):  # datasets' own error for a 404 keeps no status
        status = 404
    reasons = {
        401: "it does not exist or needs a login (hf auth login): check the spelling",
        403: "access is refused: ask for it on the model's page and log in (hf auth login)",
        404: "it does not exist there: check the spelling",
        429: "the Hub says too many requests (429): wait a few minutes",
    }
    if status in reasons:
        why = reasons[status]
    elif status and status >= 500:
        why = f"the Hub is in trouble (HTTP {status}): try again later"
    elif isinstance(error, (OSError, ValueError)) and "does not appear to have a file" in str(error):
        why = "it lacks a file that is needed: " + str(error).strip().splitlines()[0]
    else:
        why = (
            "the Hub cannot be reached and there is no copy in the cache: check the network, or run the default recipe"
        )
    return f"cannot get {what} from the Hugging Face Hub: {why}"
