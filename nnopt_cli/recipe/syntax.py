"""Recipes as text: YAML, TOML or JSON, as the file's suffix says, to a table and back."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnopt_cli.errors import UsageError

SUFFIXES = (".yaml", ".yml", ".toml", ".json")
_BREAKS = re.compile("[\x85\u2028\u2029]")  # ends of lines in YAML, but for those of ASCII
LARGEST = 1 << 22  # bytes; a recipe is written by hand


def is_recipe(path: Path) -> bool:
    """Whether the name is a recipe's rather than a model's."""
    return path.suffix.lower() in SUFFIXES and not path.name.endswith(".index.json")


def check_suffix(path: Path) -> None:
    """Raise UsageError where the suffix names no form of recipe."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path}: a recipe's name ends in {', '.join(SUFFIXES)}", "The suffix says how it is written."
        )


def read_table(path: Path) -> dict[str, Any]:
    """The table that a recipe file holds. Nothing in it is executed.

    Raises UsageError: it is no such file, is not written as its suffix says, or gives a key twice.
    """
    check_suffix(path)
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: is larger than a recipe ({LARGEST >> 20} MB) can be")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such recipe") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        table = _parse(text, path.suffix.lower())
    except RecursionError:
        raise UsageError(f"{path}: is nested too deeply") from None
    except ValueError as error:  # of all three: JSON's, TOML's and our YAML's
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: holds {_kind(table)} and not a table with the keys model and steps")
    return table


def write_table(table: Mapping[str, Any], suffix: str, comment: str = "") -> str:
    """`table` as text in the form that `suffix` names; `comment` goes first, where the form has comments."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    if suffix == ".json":
        return json.dumps(table, indent=2, ensure_ascii=False) + "\n"
    if suffix == ".toml":
        return head + _toml(table)
    import yaml

    return head + yaml.dump(
        dict(table), Dumper=_dumper(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


def read_value(text: str) -> Any:
    """One value as YAML writes it: `0.5`, `true`, `[a, b]`, `{name: sgd}`. Raises ValueError."""
    return _yaml(text)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r} is given twice")
        table[key] = value
    return table


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_loader())  # a SafeLoader that knows fewer types
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{said}") from None


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return _json(text)
    return tomllib.loads(text) if suffix == ".toml" else _yaml(text)


# YAML 1.2's scalars. Under 1.1 `2:4` would be the number 124, `no` a boolean, and `1e-3` a string.
_SCALARS = {
    "null": (r"|~|null|Null|NULL", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
}


def _resolvers(cls: Any) -> Any:
    for name, (pattern, first) in _SCALARS.items():
        starts = ["" if char == "\0" else char for char in first]
        cls.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"(?:{pattern})$"), starts)
    return cls


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key, _ in node.value:
                name = self.construct_object(key, deep=True)
                if not isinstance(name, str):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {name!r} is not text", key.start_mark
                    )
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {name!r} is given twice", key.start_mark
                    )
                seen.add(name)
            return super().construct_mapping(node, deep)

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):  # a few lines of them can stand for gigabytes
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, "aliases are not read in recipes", mark)
            return super().compose_node(parent, index)

    Loader.yaml_implicit_resolvers = {}
    _resolvers(Loader)
    # `0o17` and `1_000` are not read as numbers, and `007` is seven as in YAML 1.2.
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
    return Loader


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
            return super().increase_indent(flow, False)

        def represent_str(self, data: str) -> Any:
            style = '"' if _BREAKS.search(data) else None  # other quotes leave them as line breaks
            return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    Dumper.add_representer(str, Dumper.represent_str)
    # Text is quoted that YAML 1.1 or 1.2 would read as something else.
    Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}
    return _resolvers(Dumper)


def _toml(table: Mapping[str, Any]) -> str:
    lines, later = [], []
    for key, value in table.items():
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            for row in value:
                later += ["", f"[[{_toml_key(key)}]]"]
                later += [f"{_toml_key(k)} = {_toml_value(v)}" for k, v in row.items() if v is not None]
        elif isinstance(value, Mapping):
            later += ["", f"[{_toml_key(key)}]"]
            later += [f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None]
        elif value is not None:
            lines.append(f"{_toml_key(key)} = {_toml_value(value)}")
    return "\n".join([*lines, *later]) + "\n"


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None)
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value if item is not None) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(value), repr(value))
    return json.dumps(value)
