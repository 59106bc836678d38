"""On which floor does each module stand? One above the highest that it imports; the ground floor imports nothing.

python -m tests.tools.imports [FOLDER]   (a checkout; default: this one)
"""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "kdhelpers"


class House:
    """The modules of a package and what they import of one another, wherever in them that is said.

    A name that comes through an `__init__` counts as an import of the module that defines it.
    """

    def __init__(self, folder: Path):
        self.trees: dict[str, ast.Module] = {}
        for path in sorted((folder / PACKAGE).rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            self.trees[name] = ast.parse(path.read_text(encoding="utf-8"))
        self.faces = {name for name in self.trees if any(other.startswith(f"{name}.") for other in self.trees)}

    def defined_in(self, module: str, name: str) -> str:
        """The module that a name comes from."""
        if f"{module}.{name}" in self.trees:
            return f"{module}.{name}"
        for node in ast.walk(self.trees[module]) if module in self.faces else ():
            if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
                return self.defined_in(node.module, name) if node.module in self.trees else module
        return module

    def imports(self, module: str) -> Iterator[str]:
        """The modules that a module takes something from, repeats and itself included."""
        rooms: dict[str, str] = {}
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.ImportFrom) and node.module in self.trees:
                for alias in node.names:
                    found = self.defined_in(node.module, alias.name)
                    rooms[alias.asname or alias.name] = found
                    yield found
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self.trees)
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
                yield self.defined_in(rooms[node.value.id], node.attr)

    @functools.cache  # noqa: B019  (one house a run)
    def above(self, module: str) -> tuple[str, ...]:
        """The longest chain of imports below a module, itself first; a face stands on no floor."""
        below = sorted({*self.imports(module)} - {module} - self.faces)
        chains = [self.above(other) for other in below]
        return (module, *max(chains, key=len, default=()))


def main(folder: Path) -> None:
    """Print every module's floor, and the longest chain."""
    house = House(folder)
    chains = {name: house.above(name) for name in house.trees if name not in house.faces}
    for name, chain in sorted(chains.items(), key=lambda item: (len(item[1]), item[0])):
        print(f"{len(chain):3}  {name}")
    longest = max(chains.values(), key=len)
    print(f"{len(chains)} modules on {len(longest)} floors, the longest chain: {' > '.join(longest)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT)
