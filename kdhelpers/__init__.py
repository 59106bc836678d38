"""Helpers of the notebook series "Distilling BERT": `import kdhelpers as kd`, then `kd.` and Tab.

    prepare, recipe         a run, ready for its student: rows, tokens, teacher, the teacher's answers
    compare                 which of two models is better, row by row, and how sure that is
    data, models, distillation, evaluation, experiments, deployment, sagemaker
                            the rooms: `kd.models.` and Tab goes on
    workshop                short cuts of the notebooks; doctor, show, quiet, figures and exercises are from there
    UserError               what is raised where a reader can mend something

Names are loaded when they are first used, so that importing the package takes no time.
"""

import importlib
import typing

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

if typing.TYPE_CHECKING:
    from kdhelpers.distillation import prepare as prepare
    from kdhelpers.errors import UserError as UserError
    from kdhelpers.evaluation import compare as compare
    from kdhelpers.settings import recipe as recipe
    from kdhelpers.workshop import doctor as doctor  # type: ignore[no-redef]
    from kdhelpers.workshop import exercises as exercises
    from kdhelpers.workshop import figures as figures
    from kdhelpers.workshop import show as show


def __getattr__(name: str) -> typing.Any:
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

    try:
        import datasets
        import huggingface_hub
        import transformers
    except ImportError:  # the doctor, or whoever needs them, says so
        return

    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
