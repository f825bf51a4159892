"""Launchers whose MPI is not that of the program, and schedulers that start no ranks."""

from __future__ import annotations

import numpy as np
import pytest

from notata import LogReader

pytestmark = pytest.mark.mpi

STEP = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}


def test_open_mpi_under_mpichs_mpiexec_is_recognised(mpich, openmpi, tmp_path):
    done = mpich(3, "alone", tmp_path, "mpi", python=openmpi.flavour.python)
    assert sorted(done.told) == [0, 1, 2]
    for rank, told in done.told.items():
        error = told["opening"]["error"]
        assert {"LauncherMismatchError", "RuntimeError"} <= set(error["classes"])
        words = ("started 3 processes", f"PMI_RANK={rank}", "Open MPI", "mpiexec", "comm=None")
        assert all(word in error["message"] for word in words), error["message"]
    assert not (tmp_path / "log_alone").exists()


def test_mpich_under_open_mpis_mpiexec_opens_no_run(mpich, openmpi, tmp_path):
    # MPICH itself refuses to start there, before notata is asked.
    done = openmpi(3, "alone", tmp_path, "mpi", python=mpich.flavour.python, check=False)
    assert done.status != 0
    assert "PMI" in done.output
    assert not (tmp_path / "log_alone").exists()


@pytest.mark.parametrize("rank", [0, 3])
def test_srun_without_its_mpi_option_is_recognised(flavour, run_alone, tmp_path, rank):
    done = run_alone(
        "alone",
        tmp_path,
        "mpi",
        python=flavour.python,
        tell_rank=rank,
        SLURM_PROCID=str(rank),
        **STEP,
    )
    error = done.told[rank]["opening"]["error"]
    assert "LauncherMismatchError" in error["classes"]
    option = {"mpich": "srun --mpi=pmi2", "openmpi": "srun --mpi=pmix"}[flavour.name]
    words = (option, "started 4 processes", f"SLURM_PROCID={rank}", "comm=None")
    assert all(word in error["message"] for word in words), error["message"]
    assert not (tmp_path / "log_alone").exists()


@pytest.mark.parametrize("way", ["mpi", "launcher"])
@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(
            {"SLURM_JOB_ID": "78", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4"},
            id="batch-script",
        ),
        pytest.param(
            {
                "SLURM_JOB_ID": "78",
                "SLURM_PROCID": "0",
                "SLURM_ARRAY_JOB_ID": "77",
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "10",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_MAX": "9",
            },
            id="array-task",
        ),
        pytest.param(STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, id="step-of-one"),
    ],
)
def test_a_job_of_one_process_has_one_rank(flavour, run_alone, tmp_path, files_of, way, variables):
    done = run_alone("alone", tmp_path, way, python=flavour.python, **variables)
    told = done.told[0]
    assert told["opening"]["error"] is None
    assert (told["rank"], told["size"]) == (0, 1)
    assert files_of(tmp_path / "log_alone") == ["data/x.npy", "log.txt", "metadata.json"]


def test_sruns_ranks_are_known_without_mpi(run_alone, tmp_path):
    for rank in (2, 0, 3, 1):  # nobody waits for anybody, so they may come in any order
        done = run_alone(
            "pieces", tmp_path, "launcher", tell_rank=rank, SLURM_PROCID=str(rank), **STEP
        )
        assert (done.told[rank]["rank"], done.told[rank]["size"]) == (rank, 4)
    run = LogReader(tmp_path / "log_pieces")
    assert run.meta["parallel"]["rank_from"] == "SLURM_PROCID"
    assert list(run.load_array("line")) == list(range(17))


def test_ranks_that_the_user_numbers(run_alone, tmp_path):
    for rank in (1, 0):
        done = run_alone(
            "pieces",
            tmp_path,
            "launcher",
            tell_rank=rank,
            NOTATA_RANK=str(rank),
            NOTATA_SIZE="2",
            NOTATA_LAUNCH="first",
        )
        assert (done.told[rank]["rank"], done.told[rank]["size"]) == (rank, 2)
    run = LogReader(tmp_path / "log_pieces")
    assert run.meta["parallel"]["rank_from"] == "NOTATA_RANK"
    assert list(run.load_array("line")) == list(range(17))


@pytest.mark.parametrize("way", ["mpi", "launcher"])
def test_a_second_launch_leaves_the_first_ones_run_alone(launch, tmp_path, fingerprint, way):
    out = tmp_path / "out"
    launch(3, "alone", out, way, "first")
    before = fingerprint(out)
    done = launch(3, "alone", out, way, "second")
    for rank in range(3):
        error = done.told[rank]["opening"]["error"]
        assert error is not None
        assert {"RunExistsError", "FileExistsError"} <= set(error["classes"])
        assert "overwrite=True" in error["message"]
    assert fingerprint(out) == before


@pytest.mark.parametrize("way", ["mpi", "launcher"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_second_launch_may_replace_the_first_ones_run(launch, tmp_path, way, ranks):
    launch(3, "alone", tmp_path, way, "first")
    done = launch(ranks, "alone", tmp_path, way, "second", "overwrite")
    assert [told["opening"]["error"] for told in done.told.values()] == [None] * ranks
    run = LogReader(tmp_path / "log_alone")
    assert (run.size, run.meta["status"]) == (ranks, "complete")
    texts = [m.message for m in run.messages()]
    assert (texts.count("second"), texts.count("first")) == (ranks, 0)
    assert list(np.atleast_1d(run.load_array("x"))) == list(range(ranks))
    folders = {path.name for path in run.path.glob("ranks/rank_*")}
    assert folders == ({f"rank_{k:05d}" for k in range(ranks)} if ranks > 1 else set())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ranks_that_nobody_connects_replace_a_run_in_any_order(run_alone, tmp_path, order):
    for text, more in (("first", []), ("second", ["overwrite"])):
        for rank in order:
            done = run_alone(
                *("alone", tmp_path, "launcher", text, *more),
                tell_rank=rank,
                NOTATA_RANK=str(rank),
                NOTATA_SIZE="2",
                NOTATA_LAUNCH=text,
            )
            assert done.told[rank]["opening"]["error"] is None
    run = LogReader(tmp_path / "log_alone")
    assert (run.size, run.meta["status"]) == (2, "complete")
    texts = [m.message for m in run.messages()]
    assert (texts.count("second"), texts.count("first")) == (2, 0)
    assert list(run.load_array("x")) == [0, 1]
