"""What looks like a secret, and is never stored: passwords, tokens, keys.

Rather one word too many is hidden than one too few: who needs the word knows where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"

# Patterns are compiled where they are used: most runs need few of them, and each costs as much time
# as the rest of a run's beginning. What can't match is sorted out before.
_HINTS = (
    "secret",
    "pass",
    "credential",
    "token",
    "jwt",
    "key",
    "pw",
    "pat",
    "auth",
    "bearer",
    "cookie",
)
_NAMES = r"""(?x) secret | passw | passphrase | passcode | credential
    | (token | jwt | apikey)(?![a-z])            # but not tokenizer, max_tokens
    | (?<![a-z])(keys? | pass | pw | pat | o?auth(orization)? | bearer | cookies?)(?![a-z])
    | (api | access | private | ssh | auth | license | signing | master | account)_?key(?![a-z])
    """
_SUSPECT = r"[A-Za-z0-9]{12}|://[^/\s]*@|-----BEGIN|[Bb](earer|asic)\s|glpat-|xox|sk-|pypi-"
_VALUES = r"""(?x) \b(gh[pousr]|hf|npm|sk_live|rk_live)_[A-Za-z0-9]{12}
    | \b(github_pat_|dckr_pat_|glpat-|xox[a-z]-|sk-|pypi-)[\w-]{12}
    | \b(AKIA|ASIA)[A-Z0-9]{16}\b                # Amazon
    | \bAIza[\w-]{30}                           # Google
    | \beyJ[\w-]{8,}\.[\w-]{8,}                 # a JSON web token
    | -----BEGIN[ A-Z]*PRIVATE
    | \b([Bb]earer|[Bb]asic)\s+[\w.~+/=-]{12}
    """
_PASSWORD_IN_URL = r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)"
_HEX = r"(?<![0-9A-Za-z])(?=[a-f]*[0-9])(?=[0-9]*[a-f])[0-9a-f]{32,}(?![0-9A-Za-z])"
_RUN = r"[A-Za-z0-9]{20,}"
_UUID = r"(?i)\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_WORD = r"[A-Za-z0-9][A-Za-z0-9_+/=-]{23,}"  # of base64; a path begins with / or .
_KINDS = r"[a-z]+|[A-Z]+|[0-9]+"
_OPTION = r"(?s)(-{0,2}[A-Za-z_][\w.+-]*)(=|:(?!//))(.*)"
_PAIR = r"""([A-Za-z][\w.-]*)(["']?\s*[=:](?!//)\s*)("[^"]*"?|'[^']*'?|[^\s"',;&)}]+)"""
_FLAG = r"--?[A-Za-z][\w.-]*"


def is_secret_name(name: str) -> bool:
    """Whether a variable or option of this name holds a secret.

    Example:
        >>> [is_secret_name(name) for name in ("API_KEY", "db-password", "max_tokens", "kappa")]
        [True, True, False, False]

    Ranks: independent.
    """
    small = name.lower()
    if not any(hint in small for hint in _HINTS):
        return False
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()  # apiKey has two words
    return re.search(_NAMES, words) is not None


def looks_secret(value: str) -> bool:
    """Whether a value looks like a token, a key or a password in an address.

    Besides known forms, that is a long run of letters and digits that changes between capitals,
    small letters and digits as often as random ones do, or of hexadecimal digits.

    Example:
        >>> looks_secret("ghp_16C7e42F292c6912E7710c838347Ae178B4a")
        True
        >>> looks_secret("/scratch/ReynoldsNumber10000TurbulentFlow/run_0001")
        False

    Ranks: independent.
    """
    if not re.search(_SUSPECT, value):
        return False
    if any(re.search(pattern, value) for pattern in (_VALUES, _PASSWORD_IN_URL, _HEX)):
        return True
    value = re.sub(_UUID, "", value)  # of a device or a data set, as a rule
    runs = re.findall(_RUN, value)
    if re.fullmatch(_WORD, value):
        runs.append(re.sub("[_+/=-]", "", value))
    return any(map(_is_random, runs))


def _is_random(run: str) -> bool:
    return len(re.findall(_KINDS, run)) - 1 >= 0.4 * len(run)


def masked(name: str, value: str) -> str:
    """A value as it may be stored.

    Args:
        name: What it is the value of; empty if it has no name.
        value: The value.

    Example:
        >>> masked("WANDB_API_KEY", "1234"), masked("OMP_NUM_THREADS", "4")
        ('***', '4')
        >>> masked("DATA", "https://ada:lovelace@example.org/x?token=abc")
        'https://***@example.org/x?token=***'

    Ranks: independent.
    """
    if is_secret_name(name):
        return HIDDEN
    if "://" in value:
        value = re.sub(_PASSWORD_IN_URL, HIDDEN, value)
    if "=" in value or ":" in value:
        value = re.sub(_PAIR, _masked_pair, value)
    return HIDDEN if looks_secret(value) else value


def _masked_pair(pair: re.Match[str]) -> str:
    name, between, value = pair.groups()
    return f"{name}{between}{HIDDEN if is_secret_name(name) else value}"


def masked_command(arguments: Sequence[str]) -> list[str]:
    """A command line as it may be stored.

    Args:
        arguments: The words of the command.

    Example:
        >>> masked_command(["sim.py", "--api-key=abc", "--password", "x y", "--steps", "10"])
        ['sim.py', '--api-key=***', '--password', '***', '--steps', '10']

    Ranks: independent.
    """
    kept: list[str] = []
    hide_next = False
    for argument in arguments:
        option = re.fullmatch(_OPTION, argument)
        flag = re.fullmatch(_FLAG, argument)
        if hide_next and flag is None:
            kept.append(HIDDEN)
        elif option is not None and is_secret_name(option[1]):
            kept.append(f"{option[1]}{option[2]}{HIDDEN}")
        else:
            kept.append(masked("", argument))
        hide_next = flag is not None and is_secret_name(argument)
    return kept
