"""A view of a run whose verbs act on rank 0 alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from notata.parameters import Params
from notata.places import Place
from notata.verbs import Verbs


class RootView(Verbs):
    """A view of a run whose verbs act on rank 0 alone and do nothing elsewhere.

    Arrays go straight to the run's `data/`, as whole arrays.

    Example:
        >>> log.root.info("step 100")
        >>> log.root.json("metrics", {"energy": 0.5})

    Ranks: every verb may be called on all ranks or on some.
    """

    def __init__(
        self,
        place: Place,
        params: Params,
        meta: Callable[..., None],
        mark_failed: Callable[[str], None],
    ) -> None:
        super().__init__(place)
        self._params = params
        self._meta = meta
        self._mark_failed = mark_failed

    def params(self, ext: str = "yaml", **values: Any) -> None:
        """Add parameters, as `Logbook.params` does.

        Ranks: root only.
        """
        if self._place.active:
            self._params(ext=ext, **values)

    def meta(self, **fields: Any) -> None:
        """Put fields into the metadata, as `Logbook.meta` does.

        Ranks: root only.
        """
        if self._place.active:
            self._meta(**fields)

    def mark_failed(self, reason: str) -> None:
        """Mark the run as failed, as rank 0 does with `Logbook.mark_failed`.

        Ranks: root only.
        """
        if self._place.active:
            self._mark_failed(reason)
