"""The command `notata plot`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import HOSTILE, notata, run_of
from PIL import Image

from notata import Experiment, Logbook, LogReader, drawing, listing, merge, querying
from notata.drawing import View, picture, view
from notata.errors import DrawingError
from notata.opened import open_array
from notata.regions import parse

PICTURE = b"\x89PNG\r\n\x1a\n"


def image(path: Path) -> Image.Image:
    """A picture, read as a whole; it is not all of one colour."""
    with Image.open(path) as found:
        found.load()
    assert len(found.convert("RGB").getcolors(1 << 24) or ()) > 20
    return found


def blocks(log: Logbook) -> None:
    start = 2 * log.rank
    log.array("T", np.arange(8.0).reshape(2, 4) + start, start=(start, 0), shape=(2 * log.size, 4))


@pytest.fixture
def run(base: Path) -> Path:
    with Logbook("x", base) as log:
        log.array("line", np.sin(np.arange(100) / 9))
        log.array("field", np.arange(24.0).reshape(4, 6))
        log.array("cube", np.arange(5 * 4 * 6).reshape(5, 4, 6))
        log.array("complex", np.exp(1j * np.arange(9)))
        log.array("flags", [[True, False], [False, True]])
        log.array("nan", [[np.nan, 1], [np.inf, 2]])
        log.array("all_nan", [np.nan, np.nan])
        log.array("text", ["a", "b"])
        log.array("records", np.zeros(2, [("id", "i4")]))
        log.array("number", 5)
        log.array("empty", np.zeros((0, 3)))
        log.arrays("b", u=np.arange(3))
    return log.path


@pytest.mark.parametrize(
    ("options", "title"),
    [
        (["field"], "x: field"),
        (["field", "--region", ":2,:"], "x: field[0:2, :]"),
        (["cube"], "x: cube[2, :, :]"),
    ],
)
def test_a_title_names_a_part_but_not_the_whole(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], title: str
) -> None:
    titles = []

    def spy(found: View, text: str) -> object:
        titles.append(text)
        return picture(found, text)

    monkeypatch.setattr(drawing, "picture", spy)
    assert notata("plot", run, *options, "--out", tmp_path / "x.png").exit_code == 0
    assert titles == [title]


def seen(run: Path, name: str, region: str | None = None) -> View:
    return view(open_array(run, name), None if region is None else parse(region))


@pytest.mark.parametrize("name", ["line", "field", "cube", "complex", "flags", "nan", "b:u"])
def test_any_numbers_are_drawn(run: Path, name: str) -> None:
    result = notata("plot", run, name)
    assert result.exit_code == 0, result.stderr
    file = f"log_x_{name.replace(':', '_')}.png"
    assert result.stdout == f"{file}\n"
    image(Path(file))


@pytest.mark.parametrize(
    ("name", "region", "index", "axes"),
    [
        ("line", None, ":", (0,)),
        ("line", "10:20", "10:20", (0,)),
        ("line", "::-1", "::-1", (0,)),
        ("line", "98::-1", "98::-1", (0,)),
        ("line", "::-2", "::-2", (0,)),
        ("field", "1", "1, :", (1,)),
        ("field", "..., 2", ":, 2", (0,)),
        ("cube", None, "2, :, :", (1, 2)),
        ("cube", ":, 3", ":, 3, :", (0, 2)),
        ("cube", "1:3", "2, :, :", (1, 2)),
        ("cube", "-1, ::2, 1:5", "4, ::2, 1:5", (1, 2)),
    ],
)
def test_what_is_drawn_is_what_the_region_says(
    run: Path, name: str, region: str | None, index: str, axes: tuple[int, ...]
) -> None:
    found = seen(run, name, region)
    assert (found.region, found.axes) == (index, axes)
    whole = LogReader(run).load_array(name)
    assert np.array_equal(found.values, whole[parse(index)])


def test_pieces_and_the_merged_file_look_the_same(base: Path) -> None:
    run = run_of(3, base, blocks)
    assert notata("plot", run, "T", "--out", "pieces.png").exit_code == 0
    merge(run, prune=True)
    assert notata("plot", run, "T", "--out", "merged.png").exit_code == 0
    assert Path("pieces.png").read_bytes() == Path("merged.png").read_bytes()
    image(Path("merged.png"))


def test_long_axes_are_thinned_in_parts(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notata.drawing.SLAB", 10_000)
    monkeypatch.setattr("notata.drawing._MOST", {1: 50, 2: 40})
    with Logbook("x", base) as log:
        log.array("line", np.arange(1001))
        log.array("field", np.arange(300 * 90).reshape(300, 90))
    line, field = seen(log.path, "line"), seen(log.path, "field", "::-1")
    assert np.array_equal(line.values, np.arange(1001)[::21])
    assert line.region == "::21"
    whole = np.arange(300 * 90).reshape(300, 90)
    assert np.array_equal(field.values, whole[::-1][::8, ::3])
    assert list(field.ranges[0]) == list(range(300)[::-8])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("text", "holds <U1: no numbers to draw"),
        ("records", "with fields id: no numbers to draw"),
        ("number", "is one number there: 5"),
        ("empty", "is empty there"),
        ("nowhere", "no array 'nowhere'"),
    ],
)
def test_what_can_not_be_drawn(run: Path, name: str, why: str) -> None:
    result = notata("plot", run, name)
    assert result.exit_code == 2
    assert why in result.stderr
    assert not list(Path().iterdir())


@pytest.mark.parametrize("region", ["", "a", "1:2:0", "1:2:3:4", "9", "1,2,3", "...,...", "1;2"])
def test_wrong_regions(run: Path, region: str) -> None:
    result = notata("plot", run, "field", "--region", region)
    assert result.exit_code == 2
    assert "--region" in result.stderr


@pytest.mark.parametrize("region", ["2:2", "1, 2"])
def test_regions_with_nothing_to_draw(run: Path, region: str) -> None:
    assert notata("plot", run, "field", "--region", region).exit_code == 2


@pytest.mark.parametrize(
    ("ending", "magic"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", PICTURE)]
)
def test_other_files(run: Path, ending: str, magic: bytes) -> None:
    assert notata("plot", run, "line", "-o", f"a.{ending}").stdout == f"a.{ending}\n"
    assert Path(f"a.{ending}").read_bytes().startswith(magic)
    assert notata("plot", run, "line", "-o", "bare").stdout == "bare.png\n"


def test_files_that_can_not_be(run: Path) -> None:
    result = notata("plot", run, "line", "-o", "a.xyz")
    assert (result.exit_code, "a file .xyz can't be drawn" in result.stderr) == (2, True)
    for ending in ("pgf", "ps", "svgz", "jpg"):  # matplotlib might, or with a TeX that isn't there
        result = notata("plot", run, "line", "-o", f"a.{ending}")
        assert (result.exit_code, result.stderr) == (
            2,
            f"notata: error: a file .{ending} can't be drawn: name a .png, .pdf or .svg\n",
        )
    assert not list(Path().iterdir())
    Path("file").touch()
    result = notata("plot", run, "line", "-o", "file/a.png")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values", [[[1e308, -1e308], [0, 1]], [1e308, -1e308], [1e308 + 1e308j, 1]]
)
def test_what_diverged_is_told(base: Path, values: list[object]) -> None:
    with Logbook("x", base) as log:
        log.array("T", np.array(values))
    result = notata("plot", log.path, "T")
    assert result.exit_code == 2
    assert "these numbers can't be drawn, they may be too large: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(Path().iterdir())


def test_json(run: Path) -> None:
    told = json.loads(notata("plot", run, "cube", "--json").stdout)
    assert told == {
        "file": "log_x_cube.png",
        "array": "cube",
        "shape": [5, 4, 6],
        "drawn": "2, :, :",
    }


def test_damage_is_told(run: Path) -> None:
    file = run / "data" / "line.npy"
    file.write_bytes(file.read_bytes()[:-8])
    result = notata("plot", run, "line")
    assert result.exit_code == 2
    assert "line.npy is not a whole .npy file" in result.stderr


def test_a_run_that_is_open_right_now(base: Path) -> None:
    log = Logbook("x", base)
    log.array("T", [1, 2, 3])
    assert notata("plot", log.path, "T").exit_code == 0
    log.mark_complete()


def test_names_are_no_formulas(base: Path) -> None:
    name = "a $\\frac{$ \\ ^_%"
    with Logbook("$x_{$", base) as log:
        log.array(name, [1, 2])
    result = notata("plot", log.path, name)
    assert result.exit_code == 0, result.stderr
    image(Path(result.stdout.strip()))
    figure = picture(seen(log.path, name), f"$x_{{$: {name} {HOSTILE}")
    figure.savefig(io.BytesIO())


# ----- experiments -----


@pytest.fixture
def sweep(base: Path) -> Path:
    exp = Experiment("sweep", base)
    for k, (dt, scheme) in enumerate(
        [(0.1, "rk4"), (0.01, "rk4"), (0.1, "euler"), (0.01, "euler")]
    ):
        log = exp.add(dt=dt, scheme=scheme, n=k)
        assert log is not None
        with log:
            if k:
                log.json("metrics", {"error": dt**2 * (k + 1), "note": f"n{k}"})
    return base / "sweep"


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (["--x", "dt", "--y", "error"], 3),
        (["--x", "dt", "--y", "error", "--hue", "scheme", "--log", "xy"], 3),
        (["--x", "dt", "--y", "error", "--hue", "n"], 3),
        (["--x", "scheme", "--y", "runtime_sec"], 4),
        (["--x", "dt", "--y", "error", "--where", "scheme == 'euler'"], 2),
    ],
)
def test_a_sweep(sweep: Path, options: list[str], runs: int) -> None:
    result = notata("plot", sweep, *options, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["runs"] == runs
    image(Path(told["file"]))


def test_a_line_for_each_value_of_a_hue(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []

    def spy(*args: Any, **more: Any) -> drawing.Sweep:
        figures.append(drawn(*args, **more).figure)
        return drawn(*args, **more)

    drawn = drawing.sweep
    monkeypatch.setattr(drawing, "sweep", spy)
    call = ("--x", "dt", "--y", "error", "--hue", "scheme")
    assert notata("plot", sweep, *call, "--log", "xy").exit_code == 0
    assert notata("plot", sweep, *call, "--log", "y").exit_code == 0
    for figure, scales in zip(figures, [("log", "log"), ("linear", "log")], strict=True):
        (axes,) = figure.axes
        assert (axes.get_xscale(), axes.get_yscale()) == scales
        assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("dt", "error", "sweep")
        legend = axes.get_legend()
        assert legend.get_title().get_text() == "scheme"
        assert [text.get_text() for text in legend.get_texts()] == ["euler", "rk4"]
        points = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        assert points["rk4"] == [[0.01, pytest.approx(2e-4)]]  # the run at 0.1 left no error
        assert points["euler"] == [[0.01, pytest.approx(4e-4)], [0.1, pytest.approx(0.03)]]
        assert len({line.get_color() for line in axes.lines}) == 2


def test_a_sweep_says_what_is_left_out(sweep: Path) -> None:
    result = notata("plot", sweep, "--x", "dt", "--y", "error")
    assert result.stdout == "sweep_error_over_dt.png (3 runs; 1 have no such values)\n"


@pytest.mark.parametrize("endless", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_numbers_without_end_are_left_out(base: Path, endless: float) -> None:
    exp = Experiment("sweep", base)
    for value in (1.5, endless, 10, 2):
        log = exp.add(dt=value)
        assert log is not None
        with log:
            log.json("metrics", {"n": 5, "worst": value})
    found = querying.lines(listing.find(base / "sweep"), 0.0)
    drawn = drawing.sweep(found, "dt", "n")
    assert (drawn.shown, drawn.left_out) == (3, 1)
    (line,) = drawn.figure.axes[0].lines
    assert line.get_xdata().tolist() == [1.5, 2, 10]  # numbers in their order, no text
    drawn = drawing.sweep(found, "dt", "worst", "worst")
    assert (drawn.shown, drawn.left_out) == (3, 1)
    assert drawing.sweep(found, "n", "n", "worst").shown == 4
    result = notata("plot", base / "sweep", "--x", "dt", "--y", "n")
    assert result.stdout == "sweep_n_over_dt.png (3 runs; 1 have no such values)\n"


def test_many_values_of_a_hue_are_a_scale(base: Path) -> None:
    exp = Experiment("many", base)
    for k in range(14):
        log = exp.add(k=k)
        assert log is not None
        log.json("metrics", {"m": k % 5})
        log.mark_complete()
    assert notata("plot", base / "many", "--x", "k", "--y", "m", "--hue", "k").exit_code == 0
    image(Path("many_m_over_k_by_k.png"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--x", "dt"], "give the NAME of an array, or --x and --y"),
        (["T", "--x", "dt", "--y", "error"], "leave NAME out"),
        (["--x", "dt", "--y", "eror"], "did you mean 'error'?"),
        (["--x", "dt", "--y", "scheme"], "no run has both a value 'dt' and a number 'scheme'"),
        (["--x", "dt", "--y", "error", "--where", "dt >"], "is no expression"),
        (["--x", "dt", "--y", "error", "--log", "z"], "'z' is not one of"),
    ],
)
def test_wrong_use(sweep: Path, options: list[str], why: str) -> None:
    result = notata("plot", sweep, *options)
    assert result.exit_code == 2
    assert why in result.stderr


def test_hostile_values(base: Path) -> None:
    exp = Experiment("sweep", base)
    for k in range(2):
        log = exp.add(**{"$x$": HOSTILE * (k + 1), "k": k})
        assert log is not None
        log.mark_complete()
    result = notata("plot", base / "sweep", "--x", "$x$", "--y", "k", "--hue", "$x$", "-o", "a.svg")
    assert result.exit_code == 0, result.stderr
    assert "<script>" not in Path("a.svg").read_text()


def test_without_matplotlib(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = notata("plot", run, "line")
    assert result.exit_code == 2
    assert result.stderr == (
        "notata: error: drawing needs matplotlib: pip install 'notata[plot]'\n"
    )


def test_a_view_is_refused_by_name(run: Path) -> None:
    with pytest.raises(DrawingError, match="array 'text'"):
        seen(run, "text")


# ----- what would mislead -----


def test_values_that_a_logarithmic_scale_has_no_place_for(base: Path) -> None:
    exp = Experiment("signs", base)
    for k in (-1, 0, 1, 2):
        log = exp.add(k=k)
        assert log is not None
        log.json("metrics", {"m": k, "below": -1 - k * k})
        log.mark_complete()
    call = ("plot", base / "signs", "--x", "k", "--log")
    for log, shown in (("x", 2), ("y", 2), ("xy", 2)):
        told = notata(*call, log, "--y", "m", "--json").stdout
        assert json.loads(told)["runs"] == shown
        assert json.loads(told)["left_out"] == 2
    result = notata(*call, "y", "--y", "below", "-o", "none.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a logarithmic scale has no place for these values: none is above 0" in result.stderr
    assert not Path("none.png").exists()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (("log_x", "line", "--log", "x"), "for an experiment: --log: leave NAME out"),
        (("log_x", "line", "--hue", "z", "--where", "y"), "for an experiment: --hue, --where: "),
        (("sweep", "--x", "dt", "--y", "error", "--region", "0:3"), "--region is for an array"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    run: Path, sweep: Path, call: tuple[str, ...], told: str
) -> None:
    result = notata("plot", run.parent / call[0], *call[1:])
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_another_picture_is_another_file(run: Path, sweep: Path) -> None:
    calls = [
        (run, "line"),
        (run, "line", "--region", "2:5"),
        *((sweep, "--x", "dt", "--y", "error", *more) for more in ((), ("--log", "y"))),
        (sweep, "--x", "dt", "--y", "error", "--hue", "scheme"),
    ]
    files = [notata("plot", *call).stdout.split()[0] for call in calls]
    assert files == [
        "log_x_line.png",
        "log_x_line_2_5.png",
        "sweep_error_over_dt.png",
        "sweep_error_over_dt_log_y.png",
        "sweep_error_over_dt_by_scheme.png",
    ]
    assert all(Path(file).exists() for file in files)


def test_nothing_to_see_is_an_error(run: Path) -> None:
    result = notata("plot", run, "all_nan")
    assert result.exit_code == 2
    assert "array 'all_nan' holds no finite number there" in result.stderr
    assert not Path("log_x_all_nan.png").exists()


def test_axes_say_what_they_are(run: Path, sweep: Path) -> None:
    (axes,) = picture(seen(run, "complex"), "c").axes
    assert axes.get_ylabel() == "absolute value"
    figure = picture(seen(run, "nan"), "two by two")
    ticks = [*figure.axes[0].get_xticks(), *figure.axes[0].get_yticks()]
    assert all(tick == round(tick) for tick in ticks)
    found = querying.lines(listing.find(sweep), 0.0)
    (axes,) = drawing.sweep(found, "scheme", "error").figure.axes
    assert {line.get_linestyle() for line in axes.lines} == {"None"}
