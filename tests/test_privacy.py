"""What looks like a secret is never stored."""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from simulated import program

from notata import Experiment, Logbook
from notata.privacy import is_secret_name, looks_secret, masked, masked_command, masked_text

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
    "20261125T214408_job4711",
    "HasSlotsAndNothingElse",
    "TestDataFrameSetItemSlicing",
    "zlib-1.2.13-k6p3smhqmbmtm3ykyyt7uk2egrpcnyvv",
    "ACGTTAGCCATGGACTTACGATCGATTACGCC",
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ",
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


LETTERS = string.ascii_letters + string.digits
Token = Callable[[random.Random], str]


def of_letters(length: int) -> Token:
    return lambda chance: "".join(chance.choices(LETTERS, k=length))


def of_bytes(size: int, encode: Callable[[bytes], bytes]) -> Token:
    return lambda chance: encode(chance.randbytes(size)).decode()


@pytest.mark.parametrize(
    ("token", "most"),
    [
        (of_letters(20), 30),
        (of_letters(24), 20),
        (of_letters(32), 5),
        (of_letters(40), 2),
        (of_bytes(16, base64.urlsafe_b64encode), 75),
        (of_bytes(24, base64.urlsafe_b64encode), 30),
        (of_bytes(32, base64.urlsafe_b64encode), 5),
        (of_bytes(30, base64.b64encode), 5),  # a secret key of Amazon
        (of_bytes(32, base64.b64encode), 5),  # a signature of Azure
        (of_bytes(64, base64.b64encode), 0),  # a key of Azure
        (of_bytes(16, base64.b16encode), 0),
        (of_bytes(20, binascii.hexlify), 0),
        (lambda chance: f"{of_letters(14)(chance)}.atlasv1.{of_letters(67)(chance)}", 0),
    ],
)
def test_nearly_all_random_tokens_are_seen(token: Token, most: int) -> None:
    """Of 5,000 of each shape, so many may be missed that look like words by chance."""
    chance = random.Random(4711)
    missed = [text for text in (token(chance) for _ in range(5000)) if not looks_secret(text)]
    assert len(missed) <= most, missed[:5]


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("https://a.blob.core.windows.net/c/b?sv=2022-11-02&sp=r&sig=aB%2Fc%3D&se=x", "aB%2Fc%3D"),
        ("SharedAccessSignature=sv=2022&sig=aB%2Fc", "aB%2Fc"),
        ("Server=tcp:db,1433;User ID=ada;Pwd=o,p)en}s&ame;Encrypt=yes", "o,p)en}s&ame"),
        ("Server=db;Password=open-sesame;", "open-sesame"),
        ("Server=db;Pwd=open sesame;Encrypt=yes", "open sesame"),
        ("Server=db;Password='open sesame';", "open sesame"),
        ("AccountName=ada;AccountKey=b3Blbg==;EndpointSuffix=core", "b3Blbg=="),
        ("Endpoint=sb://x/;SharedAccessKeyName=all;SharedAccessKey=b3Blbg=", "b3Blbg="),
        ("host=db user=ada pass=sesame", "sesame"),
        ("Authorization: Bearer abc", "abc"),
        ("Authorization: token abc", "abc"),
        ("{'authorization': 'Bearer abc'}", "abc"),
        ("curl -H 'bearer abc'", "abc"),
        ("x=1,token=abc", "abc"),
        ("https://x/y?X-Amz-Credential=AK/2026&X-Amz-Signature=0f0f", "0f0f"),
    ],
)
def test_secrets_in_addresses_and_connection_strings_are_hidden(value: str, secret: str) -> None:
    for kept in (masked("NAME", value), masked_command(["sim.py", value])[1]):
        assert all(part not in kept for part in re.split(r"[\W_]+", secret) if len(part) > 2)
        assert "***" in kept


@pytest.mark.parametrize(
    "value", ["sig=0.3", "--sig=1e-3", "design=7", "signal=SIGTERM", "n=3,(k=2)", "f(a=1, b={c:2})"]
)
def test_pairs_that_hold_no_secret_are_kept(value: str) -> None:
    assert masked("NAME", value) == value
    assert masked_command(["sim.py", value]) == ["sim.py", value]


def test_a_value_may_be_of_thousands_of_pairs(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [f"k{n}=v{n}" for n in range(5000)]
    monkeypatch.setenv("MY_PAIRS", ",".join(pairs))
    monkeypatch.setenv("MY_PAIRS_AND_ONE", ",".join((*pairs, "password=open,sesame")))
    with Logbook("run", base, env=["MY_PAIRS", "MY_PAIRS_AND_ONE"]) as log:
        pass
    meta = json.loads((log.path / "metadata.json").read_text())
    assert meta["provenance"]["environment"] == {
        "MY_PAIRS": ",".join(pairs),
        "MY_PAIRS_AND_ONE": ",".join((*pairs, "password=***")),
    }


@pytest.mark.parametrize("value", ['a=b,password="open sesame"', "a=b,password = open"])
def test_a_secret_is_hidden_whose_pair_is_cut_by_a_quote_or_a_space(value: str) -> None:
    assert "open" not in masked("NAME", value)


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
        (["x.py", "--pwd", "abc", "--sig=aB3"], ["x.py", "--pwd", "***", "--sig=***"]),
        (["x.py", "--auth", "Bearer", "abc", "3"], ["x.py", "--auth", "***", "***", "3"]),
        (["x.py", "bearer", "abc", "3"], ["x.py", "bearer", "***", "3"]),
        (["x.py", "--header", "token=abc"], ["x.py", "--header", "token=***"]),
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


ANSWER = f"401 from https://ada:lovelace@example.org/x?y=1, Authorization: Bearer {SECRETS[0]}"


def test_no_password_of_an_error_comes_into_the_files_of_a_run(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = Experiment("sweep", base)
    with pytest.raises(ValueError, match="lovelace"), exp.add(k=1):
        raise ValueError(ANSWER)
    log = exp.add(k=2)
    assert log is not None
    log.mark_failed(f"no answer to {SECRETS[0]}")
    monkeypatch.setenv("NOTATA_RANK", "1")
    monkeypatch.setenv("NOTATA_SIZE", "2")
    with pytest.raises(ValueError, match="lovelace"), Logbook("run", base):
        raise ValueError(ANSWER)
    written = {p: p.read_text() for p in base.rglob("*") if p.is_file() and p.suffix != ".bloom"}
    for text in written.values():
        assert "lovelace" not in text
        assert SECRETS[0] not in text
    reasons = [row["failure_reason"] for row in exp.rows()]
    assert reasons == [
        "401 from https://***@example.org/x?y=1, Authorization: ***",
        "no answer to ***",
    ]
    rank = json.loads((base / "log_run/ranks/rank_00001/rank.json").read_text())
    assert rank["traceback"].splitlines()[-1] == f"ValueError: {reasons[0]}"


@pytest.mark.parametrize(
    "text",
    [
        "basic regularization failed: key=3, token 'EOF' unexpected, password policy of step 4",
        '  File "/home/ada/sk-learn-estimators/fit.py"\n    token = parser.next(key=2)',
        "commit 0123456789abcdef0123456789abcdef01234567 has no mesh",
        "the bearer of step 12 is gone; see https://example.org/a@b",
    ],
)
def test_what_an_error_says_is_kept(text: str) -> None:
    assert masked_text(text) == text


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
