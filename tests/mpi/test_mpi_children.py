"""Children of ranks: MPI knows their parents alone."""

import ast

from notata import LogReader


def test_a_forked_child_has_a_run_of_its_own_and_no_part_in_mpi(launch, tmp_path):
    done = launch(2, "children", tmp_path / "out")
    assert len(done.told) == 2
    for told in done.told.values():
        place, given, agreed = ast.literal_eval(told["said"])
        assert place == (0, 1)
        assert given.startswith("ValueError: comm is a communicator of the process that forked")
        assert agreed.startswith("RanksMissingError: ")
        assert "in a forked child" in agreed
        assert told["pooled"] == [[0, 1]] * 2
        assert (told["agreed"], told["status"]) == (True, "complete")
    names = ["child_0", "child_1", *(f"pool_{i}" for i in range(4))]
    for name in names:
        run = LogReader(tmp_path / "out" / f"log_{name}")
        assert run.meta["status"] == "complete"
        assert run.load_array("x").tolist() == [1]
    assert LogReader(tmp_path / "out" / "log_main").meta["parallel"]["size"] == 2
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == sorted(["log_main", *(f"log_{name}" for name in names)])
