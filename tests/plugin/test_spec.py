"""The grammar of specs."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnopt_cli import UsageError
from nnopt_cli.plugin.spec import Spec, parse, write

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,4})?", fullmatch=True)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("adam", "adam", {}),
        ("sgd:momentum=0.9,nesterov=true", "sgd", {"momentum": "0.9", "nesterov": "true"}),
        ("a: k = v , l=w", "a", {"k": "v", "l": "w"}),
        ("a:betas=[0.9, 0.999],eps=1e-8", "a", {"betas": [0.9, 0.999], "eps": "1e-8"}),
        ('a:t={"name": "b", "x": [1, 2]}', "a", {"t": {"name": "b", "x": [1, 2]}}),
        ('a:path="x, y.txt",k=v', "a", {"path": "x, y.txt", "k": "v"}),
        (r"a:s='it\'s, \\ it'", "a", {"s": "it's, \\ it"}),
        ("a:url=http://x:80/y=z", "a", {"url": "http://x:80/y=z"}),
        ("a:who=o'brien", "a", {"who": "o'brien"}),
        ("a:k=,l=null,m='null'", "a", {"k": "", "l": None, "m": "null"}),
        ('a:s=["],", "}"]', "a", {"s": ["],", "}"]}),
    ],
)
def test_reading(text, name, options):
    assert parse(text) == Spec(name, options)


@pytest.mark.parametrize(
    ("text", "module", "attribute", "options"),
    [
        ("code:my_loss.py:Focal", "my_loss.py", "Focal", {}),
        ("code:/a b/c.d/e.py:F:gamma=2", "/a b/c.d/e.py", "F", {"gamma": "2"}),
        ("code:pkg.mod:Name", "pkg.mod", "Name", {}),
        ("code:pkg:Name:x=[1]", "pkg", "Name", {"x": [1]}),
    ],
)
def test_references_to_code(text, module, attribute, options):
    spec = parse(text)
    assert (spec.module, spec.attribute, spec.options) == (module, attribute, options)
    assert spec.name == f"code:{module}:{attribute}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:", "is not key=value"),
        ("a:k", "'k' is not key=value"),
        ("a:k=1,", "is not key=value"),
        ("a:=1", "is not key=value"),
        ("a:1k=1", "is not key=value"),
        ("a:k=1,k=2", "'k' is given twice"),
        ("a:k=[1,2", "] is missing"),
        ("a:k='x", "' is missing"),
        ("a:k=[1,}", "] is missing"),
        ("a:k=[x]", "not a JSON list"),
        ('a:k="x"y', "follows the closing quote"),
        ("code:nothing", "not a reference to code"),
        ("code:a.py", "not a reference to code"),
        ("code:a.py:1x", "not a reference to code"),
    ],
)
def test_mistakes_are_shown(text, told):
    with pytest.raises(UsageError, match=told.replace("[", r"\[")) as caught:
        parse(text)
    assert repr(text) in caught.value.message


@given(NAMES, st.dictionaries(KEYS, JSON, max_size=4))
def test_writing_and_reading_again(name, options):
    back = parse(write({"name": name, **options}))
    assert back.name == name
    assert list(back.options) == list(options)
    for key, value in options.items():
        got = back.options[key]
        if isinstance(value, bool):
            assert got == str(value).lower()
        elif isinstance(value, (int, float)):
            assert math.isclose(float(got), value, rel_tol=0, abs_tol=0) or float(got) == value
        else:
            assert got == value


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(UsageError):
        parse(text)
