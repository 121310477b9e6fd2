"""Writes the tables of docs/training.md from the components. Run it after changing one:

python docs/generate_training.py
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

from pydantic.fields import FieldInfo

from nnopt_cli.plugin.component import Component, plain
from nnopt_cli.plugin.manager import Wanted, load_plugins

TARGET = Path(__file__).with_name("training.md")
KINDS = {  # kind -> the flag that takes one
    "optimizer": "--optimizer",
    "learning-rate-schedule": "--schedule",
    "loss": "--loss",
    "regularizer": "--regularizer",
    "initializer": "--init",
}


def renewed(text: str) -> str:
    """The page with its tables as the components say."""
    registry = load_plugins(Wanted(allowed=frozenset()))
    for kind, flag in KINDS.items():
        rows = "\n".join(row(cls) for cls in registry.all(kind))
        head = f"| `{flag}` | what it does | formula | options | source |\n|---|---|---|---|---|"
        new = f"<!-- {kind} -->\n{head}\n{rows}\n<!-- -->"
        text, count = re.subn(rf"<!-- {kind} -->.*?<!-- -->", lambda _, new=new: new, text, flags=re.S)
        assert count == 1, f"the page has no place for the components of kind {kind}"
    return text


def row(cls: type[Component]) -> str:
    """A component as a row of its kind's table."""
    what, formula, source = sections(cls)
    options = ", ".join(f"`{name.rstrip('_')}={default(info)}`" for name, info in cls.model_fields.items())
    cells = (f"`{cls.name}`", what, f"`{formula.replace('`', '')}`", options, source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def default(info: FieldInfo) -> str:
    """An option's default as a spec has it."""
    value = plain(info.get_default(call_default_factory=True))
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def sections(cls: type[Component]) -> tuple[str, str, str]:
    """What it does, its formula and its source: the three paragraphs of its docstring."""
    paragraphs = inspect.cleandoc(cls.__dict__["__doc__"]).split("\n\n")
    assert len(paragraphs) == 3, f"{cls.__name__}: its docstring says what it does, a formula and a source"
    what, formula, source = (" ".join(each.split()) for each in paragraphs)
    return what, formula, source


if __name__ == "__main__":
    TARGET.write_text(renewed(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
