"""The public names, their parameters, and what their docstrings promise."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulated import answer

import notata
from notata import Experiment, ExperimentReader, Logbook, LogReader
from notata.rankreader import RankReader
from notata.rootview import RootView

# Gives each public callable of a notata: its parameters' names, kinds and defaults.
SIGNATURES = """
import inspect, json
from notata.experiment import Experiment
from notata.logbook import Logbook
from notata.reader import ExperimentReader, LogReader

def told(function):
    return [
        [p.name, p.kind.name, None if p.default is p.empty else repr(p.default)]
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]

found = {}
for cls in (Logbook, Experiment, LogReader, ExperimentReader):
    found[cls.__name__] = told(cls.__init__)
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        if inspect.isfunction(member) and (not name.startswith("_") or name == "__getitem__"):
            found[f"{cls.__name__}.{name}"] = told(member)
        elif isinstance(member, property) and not name.startswith("_"):
            found[f"{cls.__name__}.{name}"] = "property"
if found.get("Logbook.params") == "property":
    from notata.parameters import Params
    found["Logbook.params"] = told(Params.__call__)
print(json.dumps(found))
"""


def test_all_is_pinned() -> None:
    assert notata.__all__ == [
        "Experiment",
        "ExperimentReader",
        "LogReader",
        "Logbook",
        "NotataError",
        "RankFailed",
        "__version__",
        "merge",
    ]
    for name in notata.__all__:
        assert getattr(notata, name) is not None
    assert dir(notata) == sorted(notata.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Logbok'"):
        _ = notata.Logbok  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def signatures(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("signatures")
    return answer(SIGNATURES, folder, peer=True), answer(SIGNATURES, folder)


def test_every_callable_of_the_published_library_is_there(
    signatures: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    theirs, ours = signatures
    assert len(theirs) > 30
    assert sorted(theirs.keys() - ours.keys()) == []


def test_parameters_of_the_published_library_are_there_in_their_order(
    signatures: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    theirs, ours = signatures
    compared = 0
    for name, wanted in theirs.items():
        if wanted == "property":
            assert ours[name] == "property", name
            continue
        named = [p for p in wanted if not p[1].startswith("VAR_")]
        old_names = {p[0] for p in named}
        kept = [p for p in ours[name] if p[0] in old_names and not p[1].startswith("VAR_")]
        assert [[n, d] for n, _, d in kept] == [[n, d] for n, _, d in named], name
        # By position too: ours come behind theirs, or by name alone.
        positional = [p[0] for p in ours[name] if p[1] == "POSITIONAL_OR_KEYWORD"]
        assert positional[: len(named)] == [p[0] for p in named], name
        assert {p[1] for p in wanted if p[1].startswith("VAR_")} <= {p[1] for p in ours[name]}, name
        compared += 1
    assert compared > 25


@pytest.mark.parametrize(
    ("alias", "verb"),
    [
        ("save_array", "array"),
        ("save_numpy", "array"),
        ("save_arrays", "arrays"),
        ("save_plot", "plot"),
        ("save_text", "text"),
        ("save_json", "json"),
        ("save_pickle", "pickle"),
        ("save_bytes", "bytes"),
    ],
)
def test_names_that_the_documentation_also_uses(alias: str, verb: str) -> None:
    assert getattr(Logbook, alias) is getattr(Logbook, verb)


def test_modules_stay_where_they_were() -> None:
    import notata.experiment
    import notata.logbook
    import notata.reader

    assert notata.logbook.Logbook is Logbook
    assert notata.experiment.Experiment is Experiment
    assert notata.reader.LogReader is LogReader
    assert notata.reader.ExperimentReader is ExperimentReader


def test_types_are_shipped() -> None:
    assert Path(notata.__file__).with_name("py.typed").is_file()


def documented() -> Iterator[tuple[str, str | None]]:
    """Every public callable of the public classes, with its docstring."""
    for cls in (Logbook, RootView, LogReader, RankReader, ExperimentReader, Experiment):
        yield cls.__name__, cls.__doc__
        for name, member in inspect.getmembers_static(cls):
            if name.startswith("_") and name != "__getitem__":
                continue
            if isinstance(member, property) or inspect.isfunction(member):
                yield f"{cls.__name__}.{name}", member.__doc__
    yield "merge", notata.merge.__doc__


@pytest.mark.parametrize(("name", "text"), [pytest.param(*d, id=d[0]) for d in documented()])
def test_each_docstring_says_what_ranks_may_do(name: str, text: str | None) -> None:
    assert text is not None, name
    said = re.search(r"^ *Ranks: +\S", text, re.MULTILINE)
    assert said is not None, f"{name} has no line that begins with 'Ranks:'"


def test_no_property_begins_with_a_colon_that_sphinx_takes_for_a_type() -> None:
    first_lines = {
        f"{cls.__name__}.{name}": (member.__doc__ or "").partition("\n")[0]
        for cls in (Logbook, RootView, LogReader, RankReader, ExperimentReader, Experiment)
        for name, member in inspect.getmembers_static(cls)
        if isinstance(member, property | functools.cached_property) and not name.startswith("_")
    }
    assert len(first_lines) > 30
    assert {name: line for name, line in first_lines.items() if ":" in line} == {}


def test_every_error_is_of_the_library_and_a_builtin() -> None:
    from notata import errors

    for name, cls in vars(errors).items():
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls is not notata.NotataError:
            builtin = [base for base in cls.__mro__ if base.__module__ == "builtins"]
            assert issubclass(cls, notata.NotataError), name
            assert builtin[0] is not Exception, f"{name} is no builtin exception"
            assert name in (errors.__doc__ or ""), f"{name} is not in the tree of errors"
