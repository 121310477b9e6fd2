"""`check_component`: what every component must hold, whoever wrote it."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import ValidationError

from nnopt_cli.plugin.component import Component, plain
from nnopt_cli.plugin.explain import explain
from nnopt_cli.plugin.fields import schema_of
from nnopt_cli.plugin.kinds import Criterion, Grouping, Pass, Pattern
from nnopt_cli.plugin.training import Initializer, LearningRateSchedule, Optimizer, Regularizer


def check_component(cls: type[Component], **options: object) -> None:
    """Check a component class against all the rules of its kind.

    Args:
        cls: the class.
        options: values for its options, at least for those that have no default.

    Raises:
        AssertionError: the first rule that it breaks, in words.
    """
    from nnopt_cli.plugin import behaviour, training_behaviour

    _check_declaration(cls)
    component = cls(**options)
    _check_round_trips(cls, component)
    _check_light_import(cls)
    checks: tuple[tuple[type[Component], Callable[[Any], None]], ...] = (
        (Pass, behaviour.check_pass),
        (Criterion, behaviour.check_criterion),
        (Grouping, behaviour.check_grouping),
        (Pattern, behaviour.check_pattern),
        (Optimizer, training_behaviour.check_optimizer),
        (LearningRateSchedule, training_behaviour.check_schedule),
        (Regularizer, training_behaviour.check_regularizer),
        (Initializer, training_behaviour.check_initializer),
    )
    for base, check in checks:
        if isinstance(component, base):
            check(component)


def _check_declaration(cls: type[Component]) -> None:
    from nnopt_cli.plugin.manager import component_fault

    assert not (fault := component_fault(cls)), fault
    assert (cls.__dict__.get("__doc__") or "").strip(), (
        f"{cls.__name__} needs a docstring: it is the help text"
    )
    assert cls.model_config.get("frozen"), f"{cls.__name__} must stay frozen"
    assert cls.model_config.get("extra") == "forbid", f"{cls.__name__} must refuse unknown options"
    for name, info in cls.model_fields.items():
        assert info.description, f"option {name!r} needs a help sentence: {name}: … = option(…, help=…)"
        assert info.annotation not in (Any, object, inspect.Parameter.empty), f"option {name!r} needs a type"


def _check_round_trips(cls: type[Component], component: Component) -> None:
    from nnopt_cli.plugin.manager import Wanted, load_plugins

    registry = load_plugins(Wanted.read(os.environ))
    if cls not in registry.all(cls.kind):
        registry.add([cls], "the class under test")
    table = component.table()
    again = registry.build(cls.kind, json.loads(json.dumps(table, allow_nan=False)), allow_code=True)
    assert again == component, f"its table {table} builds {again!r}, not {component!r}"
    again = registry.build(cls.kind, component.spec(), allow_code=True)
    assert again == component, f"its spec {component.spec()!r} builds {again!r}, not {component!r}"
    whole = {name: plain(getattr(component, name)) for name in cls.model_fields}
    try:
        again = cls.model_validate(json.loads(json.dumps(whole)), context={"registry": registry})
    except ValidationError as error:
        raise AssertionError(f"a default is not valid: {explain(error, cls, flags=False)}") from error
    assert again == component, f"its defaults do not pass its own validation: {again!r} from {whole}"
    schema = schema_of(cls)
    json.dumps(schema)
    assert set(schema.get("properties", {})) == set(cls.model_fields), "its JSON schema lacks options"


def _check_light_import(cls: type[Component]) -> None:
    """Importing the module must not import torch or numpy: every `nnopt --help` would wait for it."""
    if cls.__module__.rpartition(".")[2].startswith(("test_", "conftest", "__main__")):
        return  # made up for a test, not part of a plugin
    heavy = _heavy_imports(cls.__module__)
    assert not heavy, f"{cls.__module__} imports {heavy} at its top; import it inside the methods"


@cache
def _heavy_imports(module: str) -> str:
    from nnopt_cli.plugin.manager import HEAVY

    code = (
        "import importlib, sys\n"
        f"sys.path[:0] = {[path for path in sys.path if path]!r}\n"
        "importlib.import_module(sys.argv[1])\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules], sep=', ')"
    )
    done = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True)
    assert done.returncode == 0, f"importing {module} fails in a fresh process:\n{done.stderr}"
    return done.stdout.strip()
