"""What files are called, and which names are refused."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from notata import layout, spelling, writers
from notata.errors import UnsafeNameError


def experiment_id(**params: object) -> str:
    plain = {key: writers.plain(value, key) for key, value in params.items()}
    return layout.experiment_run_id("exp", plain, writers.digest)


@pytest.mark.parametrize("run_id", ["a", "catalog_1", "log_a", "x y", "ö", "a.b", "..", "-"])
def test_a_run_folder_gives_its_id_back(run_id: str) -> None:
    assert layout.run_id_of(layout.run_dir(run_id)) == run_id


@pytest.mark.parametrize("run_id", ["", "a/b", "a\nb", "a\x00", "a\x7f", "ö" * 126])
def test_a_run_id_that_is_none(run_id: str) -> None:
    with pytest.raises(UnsafeNameError, match="run id"):
        layout.run_dir(run_id)


def test_the_longest_run_id_can_be_made(tmp_path: Path) -> None:
    longest = "x" * (layout.NAME_BYTES - len(layout.RUN_PREFIX))
    (tmp_path / layout.run_dir(longest)).mkdir()
    with pytest.raises(UnsafeNameError, match="256 bytes"):
        layout.run_dir(longest + "x")


@pytest.mark.parametrize(
    ("rank", "folder"), [(0, "rank_00000"), (12, "rank_00012"), (123456, "rank_123456")]
)
def test_rank_folders(rank: int, folder: str) -> None:
    assert layout.rank_dir(rank) == f"ranks/{folder}"
    assert layout.rank_of(folder) == rank


@pytest.mark.parametrize("folder", ["rank_1", "rank_", "rank_0000x", "xrank_00001", ".notata-1"])
def test_other_folders_are_no_ranks(folder: str) -> None:
    assert layout.rank_of(folder) is None


@pytest.mark.parametrize("name", ["T", "states/T_step100", "a.b", "..a", "a:b", "ü", "x" * 251])
def test_names_that_stay_inside(name: str, tmp_path: Path) -> None:
    file = layout.inside(name, ".npy")
    assert file == f"{name}.npy"
    path = Path(os.path.normpath(tmp_path / file))
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "a/../b",
        "./a",
        "a/",
        "a//b",
        "a\nb",
        "a\x00b",
        "a\ud800b",
        ".notata-0123.tmp",
        "a/.notata-x/b",
        "x" * 252,
        "y" * 256 + "/x",
    ],
)
def test_names_that_do_not(name: str) -> None:
    with pytest.raises(UnsafeNameError, match=r"^(a )?name"):
        layout.inside(name, ".npy")


@pytest.mark.parametrize("name", [None, 3, b"T", Path("T")])
def test_a_name_is_a_string(name: object) -> None:
    with pytest.raises(UnsafeNameError, match="must be a string"):
        layout.inside(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *(("T", "T"), ("./x", "x"), ("a//x", "a/x"), ("a/../b", "b"), ("a/./b/", "a/b")),
        *(("", ""), (".", ""), ("./", ""), ("a/..", ""), ("..", ".."), ("a/../../b", "../b")),
        *(("/x", "/x"), ("//x", "//x"), ("..a", "..a"), ("a\x00/../b", "a\x00/../b")),
        *((5, "5"), (-3, "-3"), (0.5, "0.5"), (np.int64(7), "7"), (np.float32(2.5), "2.5")),
        *((Path("x/y"), "x/y"), (Path("../x"), "../x"), (Path(), "")),
    ],
)
def test_a_name_has_one_spelling(name: spelling.Name, plain: str) -> None:
    assert spelling.spelled(name) == plain


@pytest.mark.parametrize("name", [None, b"T", ("a", "b"), np.arange(2), 1j, True, np.False_])
def test_what_has_no_spelling(name: object) -> None:
    with pytest.raises(UnsafeNameError, match="must be a string, a number or a path, not "):
        spelling.spelled(name)  # type: ignore[arg-type]


def test_temporary_names_differ_and_can_not_be_given_by_users() -> None:
    names = {layout.temporary() for _ in range(1000)}
    assert len(names) == 1000
    with pytest.raises(UnsafeNameError):
        layout.inside(names.pop())


@pytest.mark.parametrize(
    ("params", "run_id"),
    [
        ({"dt": 0.01}, "exp_dt_0.01"),
        ({"dt": 0.5, "n": 3}, "exp_dt_0.5_n_3"),
        ({"omega": 2.0}, "exp_omega_2"),
        ({"scheme": "rk4"}, "exp_scheme_rk4"),
        ({"periodic": True, "seed": None}, "exp_periodic_True_seed_None"),
        ({"dt": -1e-9}, "exp_dt_-1e-09"),
        ({"my_long_key": 1}, "exp_my_long_key_1"),
    ],
)
def test_an_exact_id_stays_readable(params: dict[str, object], run_id: str) -> None:
    assert experiment_id(**params) == run_id


@pytest.mark.parametrize(
    "params",
    [
        {"dt": 0.0123456789},
        {"path": "a/b"},
        {"path": "a b"},
        {"name": "ü"},
        {"n": "3"},
        {"flag": "True"},
        {"x": math.nan},
        {"grid": [3, 4]},
        {"sub": {"a": 1}},
        {"x": "y" * 400},
        {"x" * 400: 1},
        {"x": "\n"},
        {"x": "..", "y": "."},
        {"x": "abc-0123abcd4567"},
    ],
)
def test_an_id_that_is_not_exact_gets_a_digest(params: dict[str, object], tmp_path: Path) -> None:
    run_id = experiment_id(**params)
    plain = {key: writers.plain(value, key) for key, value in params.items()}
    assert run_id.endswith("-" + writers.digest(plain)[:12])
    assert run_id == experiment_id(**params)
    (tmp_path / layout.run_dir(run_id)).mkdir()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"dt": 0.0123456}, {"dt": 0.0123461}),
        ({"p": "a/b"}, {"p": "a_b"}),
        ({"p": "a b"}, {"p": "a_b"}),
        ({"n": 1}, {"n": "1"}),
        ({"n": True}, {"n": "True"}),
        ({"n": None}, {"n": "None"}),
        ({"n": 1}, {"n": True}),
        ({"a": 1, "b": 2}, {"a": "1_b_2"}),
        ({"a_b": "c"}, {"a": "b_c"}),
        ({"a": "", "b": 1}, {"a_b": 1}),
        ({"a": []}, {"a": {}}),
        ({"a": [1, 2]}, {"a": "[1, 2]"}),
        ({"a": {"x": {1: 0}}}, {"a": {"x": {"1": 0}}}),
        ({"a": "y" * 200 + "1"}, {"a": "y" * 200 + "2"}),
        ({"a": ["y" * 200, {1: 0}]}, {"a": ["y" * 200, {"1": 0}]}),
        ({"a": ["y" * 200, {None: 0}]}, {"a": ["y" * 200, {"null": 0}]}),
        ({}, {"": ""}),
    ],
)
def test_different_parameters_have_different_ids(
    one: dict[str, object], other: dict[str, object]
) -> None:
    assert experiment_id(**one) != experiment_id(**other)


def test_the_order_of_parameters_does_not_matter() -> None:
    assert experiment_id(a=1, b=0.123456789) == experiment_id(b=0.123456789, a=1)
