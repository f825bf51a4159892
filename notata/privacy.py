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
    "sig",
)
_NAMES = r"""(?x) secret | passw | passphrase | passcode | credential | signature(?![a-z])
    | (token | jwt | apikey)(?![a-z])            # but not tokenizer, max_tokens
    | (?<![a-z])(keys? | pass | pw | pat | o?auth(orization)? | bearer | cookies?)(?![a-z])
    | (api | access | private | ssh | auth | license | signing | master | account)_?key(?![a-z])
    """
# Secrets in addresses and connection strings. As a variable PWD is a folder, and sig a number.
_IN_PAIRS = ("pwd", "sig")
_NUMBER = r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?"
_SUSPECT = (
    r"[A-Za-z0-9]{12}|^(?=.*[0-9])(?=.*[A-Z])[\w+/=-]{20}"
    r"|://[^/\s]*@|-----BEGIN|[Bb](earer|asic)\s|glpat-|xox|sk-|pypi-"
)
_VALUES = r"""(?x) \b(gh[pousr]|hf|npm|sk_live|rk_live)_[A-Za-z0-9]{12,}
    | \b(github_pat_|dckr_pat_|glpat-|xox[a-z]-|sk-|pypi-)[\w-]{12,}
    | \b(AKIA|ASIA)[A-Z0-9]{16}\b                # Amazon
    | \bAIza[\w-]{30,}                          # Google
    | \beyJ[\w-]{8,}\.[\w.-]{8,}                # a JSON web token
    | -----BEGIN[ A-Z]*PRIVATE [\s\S]*?(-----END[^\n]*|\Z)
    | \b([Bb]earer|[Bb]asic)\s+[\w.~+/=-]{12,}
    """
_PASSWORD_IN_URL = r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)"
_HEX = r"""(?x) (?<![0-9A-Za-z]) (?=[a-fA-F]*[0-9]) (?=[0-9]*[a-fA-F])
    ([0-9a-f]{32,} | [0-9A-F]{32,}) (?![0-9A-Za-z])"""
_RUN = r"[A-Za-z0-9]{20,}"
_UUID = r"(?i)\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_WORD = r"[A-Za-z0-9_+/=-]{20,}"  # of base64; it has fewer / than a path
_BETWEEN = r"[_+/=-]"
_KINDS = r"[a-z]+|[A-Z]+|[0-9]+"
# The commonest pairs of letters in English words and names of programs: four of five there, and
# one of four in what is random.
_USUAL = """
ab ac ad ag ai al am an ap ar as at au ay ba be bi bl bo ca ce ch ci ck cl co ct da de di do ea ec
ed ee ef eg ei el em en ep er es et ev ex fe fi fo fr ge gi gr ha he hi ho ia ib ic id ie ig il im
in io ir is it iv ke ki la le li ll lo lt lu ma me mi mo mp na nc nd ne ng ni no ns nt oc od ol om
on oo op or os ot ou ov ow pa pe pl po pr pt qu ra rd re ri rm ro rr rs rt ru ry sa sc se sh si sk
so sp ss st su ta te th ti to tr ts tt tu ty ue ul um un ur us ut va ve vi wa wi yp
"""
_OPTION = r"(?s)(-{0,2}[A-Za-z_][\w.+-]*)(=|:(?!//))(.*)"
# A name, its value, and what is part of the value if that is a password.
_PAIR = r"""(?x) ([A-Za-z][\w.-]*) (["']?\s*[=:](?!//)\s*) ("[^"]*"?|'[^']*'?|[^\s"',;&)}]+)
    """
_MORE, _MORE_BEFORE_SEMICOLON = r"""[,)}][^\s"';&]*""", r"""[,)}&\s][^"';]*"""
_HEADER = r"""(?i)(authorization["']?\s*[=:]\s*["']?)[^"'\r\n]+"""
_BEARER = r"(?i)\b(bearer\s+)[^\s\"']+"
_SCHEMES = ("bearer", "basic", "token")
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

    Besides known forms, that is a long run of hexadecimal digits, or of letters and digits that
    changes between capitals, small letters and digits as often, and has as few of the usual pairs
    of letters, as random ones do.

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
    word = value.rstrip("=")
    if re.fullmatch(_WORD, word) and 7 * len(re.findall(_BETWEEN, word)) <= len(word):
        runs.append(re.sub(_BETWEEN, "", word))
    return any(map(_is_random, runs))


def _is_random(run: str) -> bool:
    changes = (len(re.findall(_KINDS, run)) - 1) / len(run)
    if run == run.lower():
        return changes >= 0.4  # packages' folders have names of small letters and digits
    pairs = [run[at : at + 2].lower() for at in range(len(run) - 1) if run[at : at + 2].isalpha()]
    usual = (sum(pair in _USUAL for pair in pairs) + 1.5) / (len(pairs) + 2)
    if run == run.upper():  # a protein is a long run of capitals, too, without digits
        return changes > 0.1 and changes - usual > -0.3
    return changes > 0.25 and changes - usual > -0.2


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
    if "earer" in value.lower() or "uthorization" in value.lower():
        value = re.sub(_BEARER, rf"\1{HIDDEN}", re.sub(_HEADER, rf"\1{HIDDEN}", value))
    if "=" in value or ":" in value:
        between_semicolons = ";" in value and "?" not in value  # as pairs of an address are not
        more = _MORE_BEFORE_SEMICOLON if between_semicolons else _MORE
        value = _with_masked_pairs(value, more)
    return HIDDEN if looks_secret(value) else value


def masked_text(text: str) -> str:
    """A text that somebody may have to read, such as an error's, without passwords and tokens.

    What only may be a secret stays here, as in `token=parser.next()` of a traceback.

    Example:
        >>> masked_text("no answer from https://ada:lovelace@example.org/x: key=3")
        'no answer from https://***@example.org/x: key=3'

    Ranks: independent.
    """
    if not re.search(_SUSPECT, text):
        return text
    text = re.sub(_HEADER, rf"\1{HIDDEN}", re.sub(_PASSWORD_IN_URL, HIDDEN, text))
    # Without a digit it is a word, as in "basic regularization".
    return re.sub(_VALUES, lambda found: HIDDEN if re.search("[0-9]", found[0]) else found[0], text)


def _with_masked_pairs(text: str, more: str) -> str:
    """A text without the passwords of its pairs; `more` matches what is part of one besides."""
    kept, end = [], 0
    pairs, mores = re.compile(_PAIR), re.compile(more)
    while pair := pairs.search(text, end):
        name, between, value = pair.groups()
        kept.append(text[end : pair.start()])
        end = pair.end()
        if is_secret_name(name) or _is_secret_pair(name, value):
            rest = mores.match(text, end)
            kept.append(f"{name}{between}{HIDDEN}{_closing(rest[0] if rest else '')}")
            end = rest.end() if rest else end
        else:
            kept.append(pair[0])
    return "".join((*kept, text[end:]))


def _is_secret_pair(name: str, value: str) -> bool:
    return name.lower() in _IN_PAIRS and re.fullmatch(_NUMBER, value) is None


def _closing(more: str) -> str:
    """The brackets that close what a password stands in."""
    return more if re.fullmatch(r"[)}]*", more) else ""


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
        elif option is not None and (
            is_secret_name(option[1]) or _is_secret_pair(option[1].lstrip("-"), option[3])
        ):
            kept.append(f"{option[1]}{option[2]}{HIDDEN}")
        else:
            kept.append(masked("", argument))
        scheme = argument.lower() in _SCHEMES and (hide_next or argument.lower() == "bearer")
        hide_next = scheme or (
            flag is not None and (is_secret_name(argument) or argument.lstrip("-") == "pwd")
        )
    return kept
