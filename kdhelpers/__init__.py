"""Helpers of the notebook series "Distilling BERT": `import kdhelpers as kd`, then `kd.` and Tab.

The names below are loaded when they are first used, so that importing the package takes no time.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.4.0"  # part of every cache's key: raise it when the same settings train another model

_FUNCTIONS = {
    "UserError": "errors",
    "compare": "evaluation",
    "doctor": "workshop",
    "prepare": "distillation",
    "recipe": "settings",
    "show": "workshop",
}
_ROOMS = ("data", "models", "distillation", "evaluation", "experiments", "deployment", "sagemaker", "workshop")
_MODULES = {"exercises": "workshop.exercises", "figures": "workshop.figures"}

__all__ = ["quiet", *_FUNCTIONS, *_ROOMS, *_MODULES]

if TYPE_CHECKING:
    from kdhelpers.distillation import prepare
    from kdhelpers.errors import UserError
    from kdhelpers.evaluation import compare
    from kdhelpers.settings import recipe
    from kdhelpers.workshop import doctor, exercises, figures, show


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"kdhelpers.{_FUNCTIONS[name]}"), name)
    if name in _ROOMS or name in _MODULES:
        return importlib.import_module(f"kdhelpers.{_MODULES.get(name, name)}")
    raise AttributeError(f"module 'kdhelpers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


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
