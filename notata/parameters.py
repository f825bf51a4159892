"""The parameters of a run that is being written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from notata import layout, writers
from notata.errors import UnsupportedValueError


class Params(Mapping[str, Any]):
    """The parameters of a run: call it to add some, index it to see one."""

    def __init__(self, save: Callable[[str], None]) -> None:
        """Begin without any.

        Args:
            save: Called with the file's format once parameters were added.
        """
        self._values: dict[str, Any] = {}
        self._digested: tuple[dict[str, Any], str] | None = None
        self._save = save

    def take(self, values: Mapping[str, Any]) -> None:
        """Add parameters without saving them.

        Raises:
            UnsupportedValueError: If one can't be stored plainly; none is added then.

        Ranks: independent.
        """
        if not isinstance(values, Mapping):
            raise UnsupportedValueError(
                f"params must be a dict of names and values, not a {type(values).__name__}"
            )
        for key in values:
            if not isinstance(key, str):
                raise UnsupportedValueError(f"parameter {key!r}: a name must be a string")
        self._values = self._values | writers.each_plain(values, "parameter")

    def put_below(self, values: Mapping[str, Any]) -> None:
        """Add parameters that were saved before, where there are none of these names.

        Ranks: independent.
        """
        self._values = {**values, **self._values}

    def __call__(self, /, ext: str = "yaml", **values: Any) -> None:
        """Add parameters to those that are there, and save them.

        Args:
            ext: Format of the file, `yaml` or `json`; the other one is taken away.
            **values: The parameters.

        Raises:
            UnsupportedValueError: If one can't be stored plainly; the message names it.
            ValueError: If `ext` is neither.

        Ranks: independent; rank 0 writes.
        """
        if ext not in layout.PARAMS:
            raise ValueError(f"ext={ext!r} must be 'yaml' or 'json'")
        before = self._values
        self.take(values)
        try:
            self._save(ext)
        except BaseException:
            self._values = before
            raise

    def digest(self) -> str:
        """A short text that is the same where the parameters are equal.

        Ranks: independent.
        """
        if self._digested is None or self._digested[0] is not self._values:
            self._digested = self._values, writers.digest(self._values)
        return self._digested[1]

    def differences(self, others: Mapping[str, Any]) -> list[str]:
        """The keys that only one side has, or that have another value there.

        Ranks: independent.
        """
        return sorted(
            key
            for key in self._values.keys() | others.keys()
            if writers.digest({"": self._values.get(key, "")})
            != writers.digest({"": others.get(key, "")})
            or (key in self._values) != (key in others)
        )

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)
