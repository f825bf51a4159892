"""Simple YAML is written and read as PyYAML does it, and all else is left to PyYAML."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notata import flatyaml, jsontext, writers

SETTINGS = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
WORDS = [
    "yes",
    "No",
    "TRUE",
    "off",
    "null",
    "y",
    "n",
    "e5",
    "_",
    "rk4",
    "a-b",
    "x" * 100,
    "x" * 101,
]
NUMBERS = [0, -0.0, 1e16, 1e-5, -1e300, 5e-324, 10**30, -(10**120), 0.1, math.inf, math.nan]
names = st.one_of(st.sampled_from(WORDS), st.from_regex(r"[A-Za-z_.~<=-][\w -]{0,6}"), st.text())
values = st.one_of(
    names, st.sampled_from(NUMBERS), st.floats(), st.integers(), st.booleans(), st.none()
)


def pyyaml(given: dict[str, Any]) -> bytes:
    """What PyYAML writes of it."""
    options: Any = {"sort_keys": True, "allow_unicode": True, "default_flow_style": False}
    return yaml.safe_dump(given, **options, width=math.inf, encoding="utf-8")


@settings(SETTINGS, max_examples=166)
@given(st.dictionaries(names, values, min_size=1))
def test_it_is_written_as_by_pyyaml_and_comes_back(given: dict[str, Any]) -> None:
    data = flatyaml.written(given)
    if data is not None:
        assert data == pyyaml(given)
        assert repr(flatyaml.parsed(data)) == repr(yaml.safe_load(data))


@settings(SETTINGS, max_examples=333)
@given(st.lists(st.tuples(names, st.one_of(names, values.map(str))), min_size=1))
def test_it_is_read_as_by_pyyaml(lines: list[tuple[str, str]]) -> None:
    data = "".join(f"{key}: {value}\n" for key, value in lines).encode("utf-8", "replace")
    found = flatyaml.parsed(data)
    if found is not None:
        assert repr(found) == repr(yaml.safe_load(data))


@pytest.mark.parametrize("word", WORDS)
def test_each_word_comes_back(word: str) -> None:
    kept = yaml.safe_load(writers.yaml_bytes({"a": word}))
    assert kept == {"a": word}
    assert yaml.safe_load(writers.yaml_bytes({word: 1})) == {word: 1}


@pytest.mark.parametrize("value", ["1.5", "017", "1_0", "2026-11-23", " 1", "b c", "+1", "1e5"])
@pytest.mark.parametrize("text", ["a: 1\n\n", "on: 1\n", "a:\n  b: 1\n", "", "a"])
def test_what_is_not_that_simple_is_left_alone(text: str, value: str) -> None:
    assert flatyaml.parsed(text.encode()) is None
    assert flatyaml.parsed(f"a: {value}{'' if value == '1.5' else chr(10)}".encode()) is None


def test_most_parameters_are_that_simple() -> None:
    """Neither they nor their reader take the time to load PyYAML."""
    params = {"dt": 1e-3, "steps": 1000, "scheme": "rk4", "adaptive": True, "seed": None}
    data = flatyaml.written(params)
    assert data is not None
    assert flatyaml.parsed(data) == params


json_values = st.recursive(
    st.one_of(values, st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=20,
)


@settings(SETTINGS, max_examples=100)
@given(json_values)
def test_json_is_indented_as_by_the_standard_library(value: Any) -> None:
    ready = writers.json_ready(value, "x")
    expected = json.dumps(ready, indent=2, sort_keys=True, ensure_ascii=False)
    assert jsontext.indented(ready).decode() == expected
