"""Broken, hostile and good plugins, each a package that pip installed, loaded by the real command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from packages import HEAD, Site, install, package

HOOK = "@hookimpl\ndef nnopt_components():\n    return [{}]\n"
GOOD_PASS = """
class {cls}(Pass):
    '''A pass that changes nothing.'''
    {options}
    def run(self, model, run):
        return model
"""


def a_pass(cls: str, options: str = "") -> str:
    return HEAD + GOOD_PASS.format(cls=cls, options=options) + HOOK.format(cls)


PACKAGES = {
    "good": a_pass("Polish", "rounds: int = option(3, help='How often.', ge=1)"),
    "raises": "raise RuntimeError('no license found')",
    "exits": "import sys\nsys.exit(0)",
    "cancels": "import asyncio\nraise asyncio.CancelledError",
    "missing": "import a_library_that_is_not_installed",
    "misspelt": HEAD + "@hookimpl\ndef nnopt_component():\n    return []",
    "unmarked": "def nnopt_components():\n    return []",
    "hookless": "",
    "hook-raises": HEAD + "@hookimpl\ndef nnopt_components():\n    return [1 / 0]",
    "wants-args": HEAD + "@hookimpl\ndef nnopt_components(everything):\n    return []",
    "garbage": HEAD + HOOK.format("object(), 3"),
    "not-a-list": HEAD + "@hookimpl\ndef nnopt_components():\n    return None",
    "abstract": HEAD + "class Empty(Pass):\n    '''Lacks run.'''\n" + HOOK.format("Empty"),
    "kindless": HEAD + "class Lost(Component):\n    '''Of no kind.'''\n" + HOOK.format("Lost"),
    "odd-name": a_pass("Odd", "name = 'Odd Name!'"),
    "flag-clash": a_pass("Clash", "force: bool = option(False, help='Mine.')"),
    "short-clash": a_pass("Brief", "often: int = option(1, help='Mine.', short='-o')"),
    "untyped": "from __future__ import annotations\n" + a_pass("Vague", "x: Lost = option(1, help='Mine.')"),
    "hides": a_pass("Hides", "spec: int = option(1, help='Mine.')"),
    "own-filter": a_pass("Sieve", "include: str = option('', help='Mine.')"),
    "takes-prune": a_pass("Prune"),
    "takes-command": a_pass("Inspect"),
    "zz-takes-polish": a_pass("Other", "name = 'polish'"),
    "half": HEAD + GOOD_PASS.format(cls="Fine", options="") + GOOD_PASS.format(cls="Env", options="")
    + HOOK.format("Fine, Env"),
    "noisy": "import os, subprocess\nprint('hello from the plugin')\nos.write(1, b'and below Python\\n')\n"
    "subprocess.run(['echo', 'and from a child'])\n" + a_pass("Noisy"),
}  # fmt: skip
ALONE = ("good", "raises", "exits", "misspelt", "flag-clash", "takes-prune", "zz-takes-polish", "noisy")
BROKEN = {  # what the reason must tell
    "raises": "RuntimeError: no license found (__init__.py, line 1)",
    "exits": "SystemExit: 0",
    "cancels": "CancelledError",
    "missing": "No module named 'a_library_that_is_not_installed'",
    "misspelt": "unknown hook 'nnopt_component'",
    "unmarked": "is nnopt_components marked with @nnopt_cli.hookimpl?",
    "hookless": "it has no hook nnopt_components()",
    "hook-raises": "ZeroDivisionError: division by zero (__init__.py, line 4)",
    "wants-args": "everything",
    "garbage": "not a component class",
    "not-a-list": "returned NoneType, not a list",
    "abstract": "Empty is abstract: it lacks run",
    "kindless": "extend a kind, such as Pass or Criterion",
    "odd-name": "'Odd Name!'",
    "flag-clash": "Clash: --force: flags that all commands share",
    "short-clash": "Brief: -o: flags that all commands share",
    "untyped": "Vague: the type of an option is not importable",
    "hides": "Hides: the option 'spec' hides what every component has",
    "own-filter": "Sieve: --include: flags that all commands share",
    "takes-prune": "the pass 'prune' is taken: plugin 'prune' has it",
    "takes-command": "the name 'inspect' is taken: it is a command of nnopt",
    "zz-takes-polish": "the pass 'polish' is taken: plugin 'good' has it",
    "half": "the name 'env' is taken: it is a command of nnopt",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """All of them in one environment."""
    root = tmp_path_factory.mktemp("plugins")
    folders = [package(root / "src", name, {name: PACKAGES[name]}) for name in ALONE]
    rest = {name: source for name, source in PACKAGES.items() if name not in ALONE}
    install(root / "site", [*folders, package(root / "src", "others", rest)])
    return Site(root / "site")


@pytest.fixture(scope="module")
def listed(site: Site) -> dict[str, dict[str, object]]:
    """`nnopt plugins --json`, by name."""
    result = site.nnopt("plugins", "--json")
    assert result.code == 0, result.stderr
    return {plugin["name"]: plugin for plugin in result.json["plugins"]}


def test_every_plugin_is_listed_once(listed):
    assert set(PACKAGES) <= set(listed)
    broken = {name for name, plugin in listed.items() if plugin["state"] == "broken"}
    assert broken == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_says_why_and_provides_nothing(listed, name):
    assert BROKEN[name] in listed[name]["why"]
    assert "\n" not in listed[name]["why"]
    assert listed[name]["components"] == []


def test_good_ones_are_untouched_by_broken_neighbours(site, listed):
    assert [c["name"] for c in listed["good"]["components"]] == ["polish"]
    assert listed["good"]["distribution"] == "good"
    assert listed["half"]["distribution"] == "others"
    assert listed["good"]["version"] == "1.2.3"
    assert listed["good"]["builtin"] is False
    assert listed["prune"]["builtin"] is True
    result = site.nnopt("--help")
    assert result.code == 0
    assert "polish" in result.stdout
    assert "fine" not in result.stdout.split()  # the other component of a plugin with a clash


def test_options_are_listed_with_their_schema(listed):
    (component,) = listed["good"]["components"]
    rounds = component["options"]["properties"]["rounds"]
    assert rounds == {
        "default": 3, "description": "How often.", "minimum": 1, "title": "Rounds", "type": "integer"
    }  # fmt: skip


def test_one_line_on_stderr_for_each_broken_plugin(site):
    result = site.nnopt("--version")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: plugin")]
    assert len(warnings) == len(BROKEN)
    for name in BROKEN:
        assert sum(f"plugin {name!r} was left out" in line for line in warnings) == 1


def test_what_a_plugin_prints_never_reaches_stdout(site):
    result = site.nnopt("plugins", "--json")
    json.loads(result.stdout)
    assert "hello" not in result.stdout
    for said in ("hello from the plugin", "and below Python", "and from a child"):
        assert said in result.stderr


def test_a_plugin_that_imports_torch_at_its_top_is_named_slow(listed, tmp_path):
    assert listed["good"]["slow"] == []
    sources = {
        "heavy": "import torch\n" + a_pass("Heavy"),
        "later": "import torch.nn as nn\n" + a_pass("Later"),
    }
    install(tmp_path / "site", [package(tmp_path / "src", "big", sources)])
    result = Site(tmp_path / "site").nnopt("plugins", env={"COLUMNS": "200"})
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "slow: imports torch" in lines["heavy"]
    assert "slow: imports torch" in lines["later"]  # although torch was in memory before it
    assert "slow" not in lines["prune"]


@pytest.mark.parametrize("place", ["before", "after", "equals"])
def test_a_blocked_plugin_is_not_even_imported(site, place):
    args = {
        "before": ["--no-plugin", "noisy", "plugins", "--json"],
        "after": ["plugins", "--json", "--no-plugin", "noisy"],
        "equals": ["plugins", "--no-plugin=noisy", "--json"],
    }[place]
    result = site.nnopt(*args, env={"NNOPT_PLUGINS": "noisy,good"})
    states = {plugin["name"]: (plugin["state"], plugin["why"]) for plugin in result.json["plugins"]}
    assert states["noisy"] == ("off", "left out by --no-plugin")
    assert states["good"][0] == "loaded"
    assert "hello" not in result.stderr


def test_blocking_can_be_repeated_and_takes_built_in_ones(site):
    blocked = ("--no-plugin", "good", "--no-plugin", "prune")
    result = site.nnopt("plugins", "--json", *blocked, env={"NNOPT_PLUGINS": "good"})
    states = {plugin["name"]: plugin["state"] for plugin in result.json["plugins"]}
    assert states["good"] == states["prune"] == "off"
    assert states["loaders"] == "loaded"


def test_a_blocked_name_that_is_not_installed_is_a_usage_error(site):
    result = site.nnopt("plugins", "--no-plugin", "nosy")
    assert result.code == 2
    assert "Did you mean 'noisy'" in result.stderr
    assert site.nnopt("plugins", "--no-plugin").code == 2


def test_allow_list(site):
    def loaded(value: str) -> set[str]:
        result = site.nnopt("plugins", "--json", env={"NNOPT_PLUGINS": value})
        assert "warning" not in result.stderr
        return {p["name"] for p in result.json["plugins"] if p["state"] == "loaded" and not p["builtin"]}

    assert loaded("") == set()
    assert loaded("good") == {"good"}
    assert loaded(" good , noisy ") == {"good", "noisy"}


def test_an_allowed_name_that_is_not_installed_is_told(site):
    result = site.nnopt("plugins", "--json", env={"NNOPT_PLUGINS": "good,goood"})
    assert "'goood' was left out: NNOPT_PLUGINS names it, but it is not installed" in result.stderr


def test_strict_mode(site, tmp_path):
    strict = {"NNOPT_STRICT_PLUGINS": "1"}
    only_good = {**strict, "NNOPT_PLUGINS": "good"}
    result = site.nnopt("env", env={**strict, "NNOPT_PLUGINS": "good,raises"})
    assert result.code == 1
    assert "broken plugins: raises" in result.stderr
    assert site.nnopt("env", env=only_good).code == 0
    shown = site.nnopt("plugins", "--json", env={**strict, "NNOPT_PLUGINS": "raises"})
    assert shown.code == 1
    assert shown.json["plugins"]  # one document, the table that explains it


def test_ctrl_c_while_a_plugin_is_imported_ends_the_program(tmp_path):
    folder = package(tmp_path / "src", "stops", {"stops": "raise KeyboardInterrupt"})
    install(tmp_path / "site", [folder])
    result = Site(tmp_path / "site").nnopt("plugins")
    assert result.code == 130
    assert "Traceback" not in result.stderr


def test_the_same_name_from_two_packages(tmp_path):
    """The first distribution wins where components clash, and both are listed."""
    twin = {"twin": a_pass("Same")}
    folders = [package(tmp_path / "src", name, twin) for name in ("one-twin", "two-twin")]
    install(tmp_path / "site", folders)
    result = Site(tmp_path / "site").nnopt("plugins", "--json", "--no-plugin", "prune")
    states = {p["distribution"]: p["state"] for p in result.json["plugins"]}
    assert (states["one-twin"], states["two-twin"]) == ("loaded", "broken")


def test_the_packages_are_real(site):
    found = [path.name for path in Path(site.path).glob("*.dist-info")]
    assert len(found) == len(ALONE) + 1
    assert sys.prefix not in str(site.path)
