"""How the package is built: rooms whose imports go one way, short functions, types and docstrings, names to find."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import kdhelpers as kd

PACKAGE = Path(kd.__file__).parent
NOT_YET: set[str] = set()

FLOOR = ("errors", "settings", "storage", "runtime")
ROOMS = ("data", "models", "evaluation", "distillation", "deployment", "experiments", "sagemaker", "workshop", "cli")
# The workshop shows the command line to readers, who type it; it asks for it when it is called.
SHOWS_COMMANDS = {("workshop", "cli"), ("workshop", "__main__")}
DRAWS = "kdhelpers.evaluation.figures"  # a door of its own: whoever takes it waits for matplotlib
ALONE = (
    "deployment/predict.py",
    "deployment/predict_static.py",
    "sagemaker/inference.py",
)  # they travel without the package
SCRIPTS = (*ALONE, "sagemaker/container.py")  # started by themselves, where there is no `python -m kdhelpers`
LINES = {
    "whole": 13056,
    "the run": 5412,
}  # raised for a new capability only; the aim for what 0.4 did was 4,900 and 1,900
LONGEST, MOST = 40, 6


def files(*rooms):
    """Modules of the package by their path in it; of some rooms, or all."""
    found = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: path for name, path in found.items() if not rooms or room_of(name) in rooms}


def room_of(name):
    return Path(name).parts[0].removesuffix(".py")


def ported(name):
    return room_of(name) not in NOT_YET and Path(name).stem not in NOT_YET


MODULES = [name for name in files() if ported(name)]


def tree(name):
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def imports(name):
    """What a module takes from the package: (module, name) pairs, wherever in it that is said."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == "kdhelpers")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            if (node.module or "").split(".")[0] == "kdhelpers":
                yield from ((node.module, alias.name) for alias in node.names)


def target(module, name):
    """The room, or the module of the floor, that an import reaches; None for a name of the package itself."""
    parts = [*module.split("."), name][1:]
    return parts[0] if parts[0] in (*FLOOR, *ROOMS, "__main__") else None


def functions(name):
    """(qualified name, node, is a method) of every function of a module, those inside others left out."""

    def inside(node, before):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from inside(child, f"{before}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{before}{child.name}", child, isinstance(node, ast.ClassDef)
            else:
                yield from inside(child, before)

    return inside(tree(name), "")


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    here = room_of(name)
    for module, imported in imports(name):
        there = target(module, imported)
        if there is None or there == here or (here, there) in SHOWS_COMMANDS:
            continue
        order = (*FLOOR, *ROOMS)
        if here in order:
            assert order.index(there) < order.index(here), f"{name} imports {module}.{imported}"


def test_the_floor_needs_no_room():
    for name in files(*FLOOR):
        assert not [module for module, imported in imports(name) if target(module, imported) in ROOMS], name


@pytest.mark.parametrize("name", MODULES)
def test_a_room_is_entered_by_its_door(name):
    """By names that its __init__ lists, never by its inner modules; inside a room modules name each other in full."""
    for module, imported in imports(name):
        there = target(module, imported)
        if there in ROOMS and there != room_of(name) and there != "cli" and room_of(name) != "__main__":
            if module == DRAWS:
                continue
            room = module if module != "kdhelpers" else f"kdhelpers.{imported}"
            assert room.count(".") == 1, f"{name} reaches into {module}"
            if module != "kdhelpers" and there not in NOT_YET:
                listed = getattr(__import__(room, fromlist=["__all__"]), "__all__", ())
                assert imported in listed, f"{name}: {room} does not list {imported}"


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in {*NOT_YET, "cli"}])
def test_a_room_lists_what_it_offers_and_has_it(room):
    module = __import__(f"kdhelpers.{room}", fromlist=["__all__"])
    assert module.__doc__
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", ALONE)
def test_what_travels_alone_imports_nothing_of_the_package(name):
    assert list(imports(name)) == []


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__.py"])
def test_only_the_command_line_reads_argv(name):
    if room_of(name) == "cli" or name in SCRIPTS:
        return
    for node in ast.walk(tree(name)):
        assert not (isinstance(node, ast.Attribute) and node.attr == "argv"), f"{name}:{node.lineno}"
        assert not (isinstance(node, ast.alias) and node.name in ("argparse", "argv")), f"{name}: {node.name}"
        if isinstance(node, ast.FunctionDef):
            assert node.name != "main", f"{name}: a command's main belongs to cli/"


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_short_and_take_few_parameters(name):
    for function, node, is_method in functions(name):
        lines = node.end_lineno - node.lineno + 1
        assert lines <= LONGEST, f"{name}: {function} has {lines} lines"
        given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        count = len(given) + bool(node.args.vararg) + bool(node.args.kwarg) - is_method
        assert count <= MOST, f"{name}: {function} takes {count} parameters"


def is_public(function):
    return not any(part.startswith("_") for part in function.split("."))


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_say_what_they_do_and_take(name):
    assert ast.get_docstring(tree(name)), f"{name} has no docstring"
    for function, node, is_method in functions(name):
        if not is_public(function):
            continue
        assert ast.get_docstring(node), f"{name}: {function} has no docstring"
        assert node.returns is not None, f"{name}: {function} does not say what it returns"
        given = (node.args.posonlyargs + node.args.args)[is_method:] + node.args.kwonlyargs
        untyped = [argument.arg for argument in given if argument.annotation is None]
        assert not untyped, f"{name}: {function} does not say what {untyped} are"


def lines_of(*rooms):
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files(*rooms).values())


@pytest.mark.skipif(bool(NOT_YET), reason="rooms are still being ported")
def test_the_package_does_not_grow():
    assert lines_of() <= LINES["whole"]
    assert lines_of("data", "models", "distillation", "evaluation") <= LINES["the run"]


def test_importing_the_package_takes_no_library_with_it():
    code = "import sys, kdhelpers; print([n for n in ('torch', 'transformers', 'numpy', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


ROOMS_AND_TAB = f"""
import json, sys
for room in {[room for room in ROOMS if room not in NOT_YET]}:
    __import__(f"kdhelpers.{{room}}")
slow = [name for name in ("matplotlib", "sagemaker") if name in sys.modules]
for name in [name for name in sys.modules if name.startswith("kdhelpers")]:
    del sys.modules[name]  # a notebook that begins; the libraries stay, so that it does not take long
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import kdhelpers as kd")
assert not [name for name in sys.modules if name.startswith("kdhelpers.")]
found = []
for cell in ("pass", "kd.data; kd.quiet(); kd.experiments; None"):  # before and after rooms are loaded
    shell.run_cell(cell)
    for jedi in (False, True):
        shell.Completer.use_jedi = jedi
        with provisionalcompleter():
            found.append(sorted(c.text.lstrip(".") for c in shell.Completer.completions("kd.", 3)))
print(json.dumps([slow, found]))
"""


@pytest.fixture(scope="module")
def rooms_and_tab():
    """What is there of slow libraries once all rooms are imported, and what Tab shows: one process for both."""
    done = subprocess.run([sys.executable, "-c", ROOMS_AND_TAB], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_no_room_draws_until_it_is_asked_to(rooms_and_tab):
    """Importing a room brings neither matplotlib nor SageMaker's SDK, which take seconds."""
    slow, _ = rooms_and_tab
    assert slow == []


def test_the_tab_key_shows_what_notebooks_use_and_only_that(rooms_and_tab):
    _, found = rooms_and_tab
    assert found == [sorted(kd.__all__)] * 4
    assert dir(kd) == sorted(kd.__all__)
    assert dir(kd.workshop) == sorted(kd.workshop.__all__)
    assert not {"importlib", "typing", "warnings"} & {*dir(kd), *dir(kd.workshop)}


def names_in_notebooks():
    for path in sorted((PACKAGE.parent / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kd":
                yield node.attr


@pytest.mark.skipif(bool(NOT_YET), reason="notebooks still use the former names")
def test_every_name_that_is_shown_is_used_in_a_notebook():
    assert set(kd.__all__) == set(names_in_notebooks())


@pytest.mark.parametrize("name", ["UserError", "compare", "doctor", "prepare", "quiet", "recipe"])
def test_help_is_worth_reading(name):
    assert len(inspect.getdoc(getattr(kd, name))) > 60


def test_a_name_that_is_not_there_is_an_attribute_error():
    for module in (kd, kd.workshop):
        with pytest.raises(AttributeError, match="no_such_name"):
            module.no_such_name  # noqa: B018
