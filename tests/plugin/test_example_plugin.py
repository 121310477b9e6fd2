"""The example of a third-party plugin installs on its own, passes its tests and works."""

from __future__ import annotations

from pathlib import Path

import pytest
from packages import Site, install

from nnopt_cli.testing import run_command, small_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example") / "site"
    install(folder, [EXAMPLE])
    return Site(folder)


def test_its_own_tests_pass(site):
    done = site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE)
    assert done.code == 0, done.stdout + done.stderr


def test_what_its_readme_shows(site, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(site.path)
    monkeypatch.chdir(tmp_path)
    small_file("model.pt")
    listed = {p["name"]: p for p in run_command("plugins", "--json").json["plugins"]}
    assert listed["roundoff"]["distribution"] == "nnopt-roundoff"
    lines = [line for line in (EXAMPLE / "README.md").read_text().splitlines() if line.startswith("nnopt ")]
    assert len(lines) == 3
    for line in lines:
        result = run_command(*line.split()[1:])
        assert result.code == 0, result.stderr


def test_it_is_light(site):
    listed = {p["name"]: p for p in site.nnopt("plugins", "--json").json["plugins"]}
    assert (listed["roundoff"]["state"], listed["roundoff"]["slow"]) == ("loaded", [])
