"""Every refusal id that src/apr can raise, read from the syntax tree.

An id is the first argument of a class that derives from Refusal. Where a function or a dataclass
passes on an id that it was given (`read_json(path, id=...)`, `Gate(id, ...)`), it becomes a
carrier itself and its callers are read instead, until nothing new is found. An id that is
computed in any other way cannot be documented, so it is an error here.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from apr import errors

SOURCE = Path(errors.__file__).parent


@dataclass(frozen=True)
class Carrier:
    """Something whose call hands over a refusal id: at this position, or under this name."""

    position: int
    keyword: str
    exit_code: int


@dataclass
class Found:
    """What is known of one id."""

    exit_codes: set[int] = field(default_factory=set)
    upstream_ids: set[str] = field(default_factory=set)
    places: list[str] = field(default_factory=list)


@dataclass
class Module:
    """One parsed file: its tree and what its names mean."""

    name: str
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)
    defined: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.defined = set(_defined(self.tree, self.name))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = alias.name

    def meaning(self, function: ast.expr, scope: tuple[ast.AST, ...]) -> str | None:
        """The full name of what is called, as far as a name can tell."""
        if isinstance(function, ast.Name):
            for depth in range(len(scope), -1, -1):
                local = ".".join([self.name, *_names(scope[:depth]), function.id])
                if local in self.defined:
                    return local
            return self.imports.get(function.id)
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            owner = function.value.id
            if owner in ("self", "cls"):
                classes = [node for node in scope if isinstance(node, ast.ClassDef)]
                return f"{self.name}.{classes[-1].name}.{function.attr}" if classes else None
            return f"{self.imports.get(owner, f'{self.name}.{owner}')}.{function.attr}"
        return None


def read_source(directory: Path = SOURCE) -> dict[str, str]:
    """The text of every module below `directory`, by its dotted name."""
    texts = {}
    for path in sorted(directory.rglob("*.py")):
        parts = ["apr", *path.relative_to(directory).with_suffix("").parts]
        texts[".".join(parts)] = path.read_text(encoding="utf-8")
    return texts


def collect(texts: Mapping[str, str]) -> tuple[dict[str, Found], list[str]]:
    """The ids in these modules, and the places where an id cannot be read."""
    modules = [Module(name, ast.parse(text)) for name, text in texts.items()]
    carriers = _refusal_classes(modules)
    while True:
        found: dict[str, Found] = {}
        unreadable: list[str] = []
        known = len(carriers)
        for module in modules:
            for call, scope in _calls(module.tree, ()):
                carrier = carriers.get(module.meaning(call.func, scope) or "")
                if carrier:
                    _read_call(module, call, scope, carrier, carriers, found, unreadable)
            _read_usage_objects(module, found)
        if len(carriers) == known:
            return found, unreadable


def _refusal_classes(modules: list[Module]) -> dict[str, Carrier]:
    classes = {
        f"apr.errors.{name}": Carrier(0, "id", kind.exit_code)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.Refusal)
    }
    known = 0
    while known != len(classes):
        known = len(classes)
        for module in modules:
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef):
                    bases = [module.meaning(base, ()) or "" for base in node.bases]
                    inherited = [classes[base] for base in bases if base in classes]
                    for kind in inherited:
                        classes.setdefault(f"{module.name}.{node.name}", kind)
    return classes


def _read_call(
    module: Module,
    call: ast.Call,
    scope: tuple[ast.AST, ...],
    carrier: Carrier,
    carriers: dict[str, Carrier],
    found: dict[str, Found],
    unreadable: list[str],
) -> None:
    by_name = [word.value for word in call.keywords if word.arg == carrier.keyword]
    argument = by_name[0] if by_name else None
    if argument is None and len(call.args) > carrier.position:
        argument = call.args[carrier.position]
    place = f"{module.name}:{call.lineno}"
    constants = list(_constants(argument)) if argument is not None else []
    for constant in constants:
        entry = found.setdefault(constant, Found())
        entry.exit_codes.add(carrier.exit_code)
        entry.places.append(place)
        for word in call.keywords:
            if word.arg == "upstream_id":
                entry.upstream_ids |= set(_constants(word.value))
    if not constants:
        passed_on = _passed_on(module, argument, scope, carrier.exit_code)
        if passed_on:
            carriers.update(passed_on)
        elif not (isinstance(argument, ast.Attribute) and argument.attr == "id"):
            unreadable.append(place)


def _passed_on(
    module: Module, argument: ast.expr | None, scope: tuple[ast.AST, ...], exit_code: int
) -> dict[str, Carrier]:
    """The enclosing function or class as a carrier, when it was given this id itself."""
    if isinstance(argument, ast.Name):
        for depth in range(len(scope), 0, -1):
            node = scope[depth - 1]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                positional = [arg.arg for arg in [*node.args.posonlyargs, *node.args.args]]
                every = [*positional, *(arg.arg for arg in node.args.kwonlyargs)]
                if argument.id in every:
                    names = [name for name in positional if name not in ("self", "cls")]
                    position = names.index(argument.id) if argument.id in names else len(names)
                    full_name = ".".join([module.name, *_names(scope[:depth])])
                    return {full_name: Carrier(position, argument.id, exit_code)}
    if isinstance(argument, ast.Attribute) and isinstance(argument.value, ast.Name):
        classes = [node for node in scope if isinstance(node, ast.ClassDef)]
        if argument.value.id == "self" and classes:
            fields = [
                item.target.id
                for item in classes[-1].body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
            if argument.attr in fields:
                position = fields.index(argument.attr)
                carrier = Carrier(position, argument.attr, exit_code)
                return {f"{module.name}.{classes[-1].name}": carrier}
    return {}


def _read_usage_objects(module: Module, found: dict[str, Found]) -> None:
    """The command line's own refusals are written out as objects: `{"id": ..., "fix": ...}`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            if {"id", "upstream_id", "fix"} <= set(keys):
                for constant in _constants(node.values[keys.index("id")]):
                    entry = found.setdefault(constant, Found())
                    entry.exit_codes.add(errors.UsageRefusal.exit_code)
                    entry.places.append(f"{module.name}:{node.lineno}")


def _constants(node: ast.expr | None) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.IfExp):
        yield from _constants(node.body)
        yield from _constants(node.orelse)


def _calls(
    node: ast.AST, scope: tuple[ast.AST, ...]
) -> Iterator[tuple[ast.Call, tuple[ast.AST, ...]]]:
    """Every call with the functions and classes around it, outermost first."""
    if isinstance(node, ast.Call):
        yield node, scope
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        scope = (*scope, node)
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, scope)


def _names(scope: tuple[ast.AST, ...]) -> list[str]:
    return [node.name for node in scope if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def _defined(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield f"{prefix}.{child.name}"
            yield from _defined(child, f"{prefix}.{child.name}")
        else:
            yield from _defined(child, prefix)
