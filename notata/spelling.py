"""Names as people give them, in the one spelling that files have."""

from __future__ import annotations

import os

from notata.errors import UnsafeNameError

Name = str | os.PathLike[str] | float  # what a user may give as a name


def spelled(name: Name) -> str:
    """A name in the one spelling that files and manifests have: text without `.`, `..` and `//`.

    It is empty for the folder that names begin in. What leads out of that, or holds what no name
    can, is left for `layout.inside` to refuse.

    Raises:
        UnsafeNameError: If it is no text, path or number; True and False are none.

    Example:
        >>> [spelled(name) for name in ("./a", "a//b", "a/../b", "a/..", "../a", 5)]
        ['a', 'a/b', 'b', '', '../a', '5']

    Ranks: independent.
    """
    text = name if isinstance(name, str) else _text_of(name)
    plain = text if "\0" in text else os.path.normpath(text)  # which some Pythons cut there
    return "" if plain == "." else plain


def label(name: Name) -> str:
    """The same for the name of an array, of which a key behind a colon stays as it is.

    Example:
        >>> [label(name) for name in ("./T", "path:./x")]
        ['T', 'path:./x']

    Ranks: independent.
    """
    return name if isinstance(name, str) and ":" in name else spelled(name)


def _text_of(name: object) -> str:
    import numbers

    if isinstance(name, os.PathLike):
        return os.fsdecode(name)
    if isinstance(name, numbers.Real) and not isinstance(name, bool):  # numpy's numbers, too
        return str(name)
    kind = type(name).__name__
    raise UnsafeNameError(f"a name must be a string, a number or a path, not {kind}: {name!r}")
