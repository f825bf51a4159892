"""What is done when the interpreter ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated import program

from notata import exits


def said(code: str, tmp_path: Path) -> list[str]:
    done = program(code, tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_newest_comes_first_and_the_last_ones_last(tmp_path: Path) -> None:
    code = """
        from notata import exits
        exits.add("abort", lambda: print("abort"), last=True)
        exits.add("a", lambda: print("a"))
        exits.add("b", lambda: print("b"))
    """
    assert said(code, tmp_path) == ["b", "a", "abort"]


def test_a_step_takes_the_place_of_an_earlier_one_of_its_key(tmp_path: Path) -> None:
    code = """
        from notata import exits
        def older(): print("older")
        def newer(): print("newer")
        exits.add("run", older)
        exits.add("run", newer)
        exits.remove("run", older)  # is gone already: the newer one stays
    """
    assert said(code, tmp_path) == ["newer"]


def test_what_a_step_raises_keeps_no_other_from_its_turn(tmp_path: Path) -> None:
    code = """
        from notata import exits
        exits.add("a", lambda: print("a"))
        exits.add("bad", lambda: 1 / 0)
    """
    done = program(code, tmp_path)
    assert done.stdout == "a\n"
    assert "ZeroDivisionError" in done.stderr


def test_an_exit_by_a_signal_s_handler_keeps_no_step_from_its_turn(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from notata import exits
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        exits.add("last", lambda: print("last"), last=True)
        exits.add("waits", lambda: os.kill(os.getpid(), signal.SIGTERM))
        exits.add("interrupted", lambda: os.kill(os.getpid(), signal.SIGINT))
    """
    assert program(code, tmp_path).stdout == "last\n"


def test_a_process_that_was_forked_off_does_nothing_of_its_parent_s(tmp_path: Path) -> None:
    code = """
        import os, sys
        from notata import exits
        exits.add("a", lambda: print("parent" if os.getpid() == parent else "child", flush=True))
        parent = os.getpid()
        if child := os.fork():
            os.waitpid(child, 0)
    """
    assert said(code, tmp_path) == ["parent"]


def test_without_any_step_there_is_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []
    monkeypatch.setattr(exits, "_steps", {})
    monkeypatch.setattr("atexit.register", hooks.append)
    monkeypatch.setattr("atexit.unregister", hooks.remove)
    exits.add("a", print)
    exits.add("b", print)
    assert len(hooks) == 1
    exits.remove("a")
    assert len(hooks) == 1
    exits.remove("b", print)
    assert hooks == []


def test_a_step_may_add_another_one(tmp_path: Path) -> None:
    code = """
        from notata import exits
        def first():
            print("first")
            exits.add("abort", lambda: print("abort"), last=True)
        exits.add("a", lambda: print("a"))
        exits.add("first", first)
    """
    assert said(code, tmp_path) == ["first", "a", "abort"]
