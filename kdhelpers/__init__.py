"""Helpers of the notebook series "Distilling BERT": `import kdhelpers as kd`.

Modules are loaded when they are first used, so that `kd.losses` does not wait for everything else.
"""

import importlib
import importlib.util

__version__ = "0.3.0"  # part of every cache's key: raise it when the same settings train another model

_FUNCTIONS = {"doctor": "machine", "compare": "card", "prepare": "workshop", "show": "plots"}


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"kdhelpers.{_FUNCTIONS[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"kdhelpers.{name}"):
        return importlib.import_module(f"kdhelpers.{name}")
    raise AttributeError(f"module 'kdhelpers' has no attribute {name!r}")


def quiet() -> None:
    """Silence the libraries' messages that a reader can do nothing about; errors still come through."""
    import warnings

    # asked of whoever imports tqdm in a notebook; no bar of ours needs a widget
    warnings.filterwarnings("ignore", message="IProgress not found")

    import datasets
    import huggingface_hub
    import transformers

    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
