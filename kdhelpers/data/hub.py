"""Rows from the Hugging Face Hub, and one sentence for whatever goes wrong there."""

import itertools
import logging
import re
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, List, Value

from kdhelpers.data.rows import Rows, checked_rows, require_column
from kdhelpers.errors import UserError
from kdhelpers.settings import ROW_FILES, RunSettings

log = logging.getLogger(__name__)


def hub_rows(settings: RunSettings) -> Rows:
    """A data set from the Hugging Face Hub, e.g. nyu-mll/glue, sst2; labels are still names. Raises UserError.

    Where the test split's labels are hidden (GLUE writes -1) or there is none, the validation split is what gets
    scored; then nothing may be chosen on it, so the run keeps its last checkpoint.
    """
    from datasets import load_dataset

    what = f"the data set {settings.dataset_id} ({settings.dataset_config or 'default'})"
    log.info("asking the Hugging Face Hub for %s", what)
    try:
        raw = load_dataset(str(settings.dataset_id), settings.dataset_config)
    except Exception as error:  # datasets wraps what the Hub answered in many types
        raise UserError(hub_message(what, error)) from error
    if "train" not in raw:
        raise UserError(f"{what} has no train split; it has: {', '.join(raw)}")
    # MNLI has two of each held-out split: validation_matched is of the training rows' kind
    called = {name: next((s for s in (name, f"{name}_matched") if s in raw), None) for name in ROW_FILES[:3]}
    tables = {name: _checked(raw[there], settings, there) for name, there in called.items() if there}
    declared = getattr(_one(raw["train"].features[settings.label_column]), "names", [])
    labels = {name: {str(row["label"]) for row in rows} - {"None"} for name, rows in tables.items()}
    held_out = [found for name, found in labels.items() if name != "train"]
    if not declared and held_out and all(found == {"-1"} or "-1" not in found for found in held_out):
        for row in itertools.chain(*tables.values()):  # -1 is no class, or it would be among the held-out ones
            row["label"] = None if row["label"] == "-1" else row["label"]
    hidden = [name for name in tables if name != "train" and all(row["label"] is None for row in tables[name])]
    splits = DatasetDict({name: Dataset.from_list(rows) for name, rows in tables.items() if name not in hidden})
    notes = [f"{what} hides the labels of its {name} rows" for name in hidden]
    test_name = "test"
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        why = "test labels are hidden" if "test" in hidden else "there are no test rows"
        test_name = f"{called['validation']} ({why})"
        notes.append(f"scores are for {test_name}; the last checkpoint is kept: nothing may be chosen on those rows")
    commits = re.findall(r"\b[0-9a-f]{40}\b", str(raw["train"].cache_files))  # datasets names a folder after it
    return Rows(splits, declared, test_name, commits[-1] if commits else None, notes)


def _checked(rows: Dataset, settings: RunSettings, split: str) -> list[dict]:
    """One split's rows, checked as a file's are; a ClassLabel becomes its name, -1 no label."""
    text, label, where = settings.text_column, settings.label_column, f"{settings.dataset_id}, {split}"
    columns = [column for column in (text, settings.text_pair_column, label) if column]
    for column in columns:
        require_column(column, rows.column_names, where)
    feature = rows.features[label]
    if not isinstance(_one(feature), ClassLabel | Value):
        raise UserError(f"{where}: the column {label!r} holds {feature}, neither a label nor a list of labels")
    frame = rows.select_columns(columns).to_pandas()
    if isinstance(_one(feature), ClassLabel):
        named = dict(enumerate(_one(feature).names))
        frame[label] = frame[label].map(named if _one(feature) is feature else lambda ids: [named[i] for i in ids])
    records = ((f"{where}, row {number}", record) for number, record in enumerate(frame.to_dict("records"), 1))
    return checked_rows(records, text, label, settings.text_pair_column, settings.separator)


def _one(feature: Any) -> Any:
    """What a list of labels holds; of a single label, that itself."""
    return feature.feature if isinstance(feature, List) else feature


def hub_message(what: str, error: BaseException) -> str:
    """One sentence for a failed download from the Hugging Face Hub: what was wanted, why it failed, what to do."""
    causes = [error]
    while following := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(following)
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    codes = [getattr(getattr(cause, "response", None), "status_code", None) for cause in causes]
    # datasets' own error for a 404 keeps no status
    status = 404 if "DatasetNotFoundError" in kinds else next(filter(None, codes), 0)
    known = {
        401: "it does not exist or needs a login (hf auth login): check the spelling",
        403: "access is refused: ask for it on the model's page and log in (hf auth login)",
        404: "it does not exist there: check the spelling",
        429: "the Hub says too many requests (429): wait a few minutes",
    }
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if status in known:
        why = known[status]
    elif status >= 500:
        why = f"the Hub is in trouble (HTTP {status}): try again later"
    elif kinds & {"ConnectionError", "TransportError", "LocalEntryNotFoundError"}:
        why = "the Hub cannot be reached and the cache has no copy: check the network, or run the default recipe"
    return f"cannot get {what} from the Hugging Face Hub: {why}"
