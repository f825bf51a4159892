"""What looks like a secret is never stored."""

from __future__ import annotations

import json
import secrets
import string
from pathlib import Path

import pytest
from simulated import program

from notata import Experiment, Logbook
from notata.privacy import is_secret_name, looks_secret, masked, masked_command

SECRET_NAMES = (
    *("API_KEY", "apiKey", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "authToken"),
    *("--password", "db-passwd", "PGPASSWORD", "SLURM_JWT", "ssh_key", "--key", "SSH_AUTH_SOCK"),
    *(
        "client.secret",
        "Authorization_Bearer",
        "MY_CREDENTIALS",
        "session-cookie",
        "gpg_passphrase",
    ),
)
PLAIN_NAMES = (
    *("OMP_NUM_THREADS", "PATH", "PWD", "max_tokens", "--tokenizer", "monkey", "keyboard", "kappa"),
    *(
        "compass",
        "author",
        "XAUTHORITY",
        "pattern",
        "salt",
        "SLURM_JOB_ID",
        "hockey_stick",
        "--steps",
    ),
)
SECRETS = (
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "glpat-Xy7_zz81LmQ3aB",
    "xoxb-1234-5678-abcdef",
    "hf_abcDEFghijKLM",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
    "Authorization: Bearer abcdefghijkl",
    "postgres://ada:lovelace@db/x",
    "0123456789abcdef0123456789abcdef01234567",
)
PLAIN = (
    "/scratch/ada/ReynoldsNumber10000TurbulentFlow/run_0001",
    "/opt/spack/linux/gcc-12/python-3.11.6-abcdefghijklmnopqrst2uvwxyz12345/bin/python3",
    "Experiment_A_with_kappa_1_and_omega_2",
    "sweep_kappa_0.01_steps_100_seed_7",
    "3.141592653589793238462643383279",
    "6f1e2c3d-0a1b-4c5d-8e9f-001122334455",
    "2026-11-25T21:44:08",
    "hf_high_frequency_run_01",
    "sk-learn",
    "a basic test",
    "",
)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)
    assert masked(name, "1234") == "***"


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_other_names_are_not(name: str) -> None:
    assert not is_secret_name(name)
    assert masked(name, "1234") == "1234"


@pytest.mark.parametrize("value", SECRETS)
def test_values_that_look_like_secrets_are_hidden(value: str) -> None:
    assert looks_secret(value)
    assert value not in masked("NAME", value)


@pytest.mark.parametrize("value", PLAIN)
def test_other_values_are_kept(value: str) -> None:
    assert masked("NAME", value) == value


def test_nearly_all_random_tokens_are_seen() -> None:
    letters = string.ascii_letters + string.digits
    tokens = ["".join(secrets.choice(letters) for _ in range(32)) for _ in range(1000)]
    tokens += [secrets.token_urlsafe(32) for _ in range(1000)]
    assert sum(map(looks_secret, tokens)) > 1900


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["x.py", "--api-key=abc def", "--n", "3"], ["x.py", "--api-key=***", "--n", "3"]),
        (["x.py", "--token", "abc", "in.nc"], ["x.py", "--token", "***", "in.nc"]),
        (["x.py", "--use-token", "--n", "3"], ["x.py", "--use-token", "--n", "3"]),
        (["x.py", "password=abc", "n=3"], ["x.py", "password=***", "n=3"]),
        (["x.py", '{"n": 1, "password": "a b"}'], ["x.py", '{"n": 1, "password": ***}']),
        (["x.py", "https://a:b@c/d?token=e&n=3"], ["x.py", "https://***@c/d?token=***&n=3"]),
        (["x.py", SECRETS[0]], ["x.py", "***"]),
        (["python", "-c", "f(token='abc')"], ["python", "-c", "f(token=***)"]),
    ],
)
def test_secrets_on_a_command_line_are_hidden(given: list[str], kept: list[str]) -> None:
    assert masked_command(given) == kept


def test_no_secret_comes_into_the_files_of_a_run(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "open-sesame")
    monkeypatch.setenv("MY_DATA", f"s3://bucket?x={SECRETS[0]}")
    monkeypatch.setenv("MY_THREADS", "4")
    with Logbook("run", base, env=("MY_TOKEN", "MY_DATA", "MY_THREADS", "MY_NOTHING")):
        pass
    written = b"".join(p.read_bytes() for p in base.rglob("*") if p.is_file()).decode()
    assert "open-sesame" not in written
    assert SECRETS[0] not in written
    meta = json.loads((base / "log_run" / "metadata.json").read_text())
    kept = {"MY_TOKEN": "***", "MY_DATA": "***", "MY_THREADS": "4"}
    assert meta["provenance"]["environment"] == kept


def test_the_runs_of_an_experiment_keep_what_it_names(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_THREADS", "4")
    exp = Experiment("s", base, env=["MY_THREADS"])
    logs = [exp.add(k=1), *exp.sweep({"k": [2, 3]})]
    for log in logs:
        assert log is not None
        log.mark_complete()
        meta = json.loads((log.path / "metadata.json").read_text())
        assert meta["provenance"]["environment"] == {"MY_THREADS": "4"}


def test_the_environment_is_not_kept_unasked(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_HARMLESS", "a-word-of-mine")
    with Logbook("run", base):
        pass
    written = b"".join(p.read_bytes() for p in base.rglob("*") if p.is_file())
    assert b"a-word-of-mine" not in written


def test_the_command_line_of_a_program_is_kept_without_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "sim.py").write_text("from notata import Logbook\nwith Logbook('run'): pass\n")
    done = program(
        """
        import subprocess, sys
        command = [sys.executable, "sim.py", "--steps", "10", "--db-password=open-sesame"]
        subprocess.run(command, check=True)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "outputs" / "log_run" / "metadata.json").read_text()
    assert "open-sesame" not in text
    command = json.loads(text)["provenance"]["command"]
    assert command[1:] == ["sim.py", "--steps", "10", "--db-password=***"]
