"""What a loop asks its run: how long is left, and whether to go on."""

from __future__ import annotations

from notata import deadline
from notata.leaving import Part


class Steering:
    """The verbs with which a program leaves its loop in time.

    Ranks: each says of itself.
    """

    _session: Part
    _margin: float

    def time_left(self) -> float:
        """Seconds until the job's time is up, below 0 after that; infinite where nobody says.

        Newer versions of Slurm say so (`SLURM_JOB_END_TIME`, as the job was started; a limit that
        was changed since is not seen), 22.05 does not. There, and elsewhere, a batch script can:
        `export NOTATA_END_TIME=$(date +%s -d "$(squeue -h -j "$SLURM_JOB_ID" -o %e)")`.

        Raises:
            SettingError: If `NOTATA_END_TIME` is not a number of seconds since 1970.

        Example:
            >>> log.time_left()
            inf

        Ranks: independent.
        """
        return deadline.seconds_left()

    @property
    def should_stop(self) -> bool:
        """Whether it is time to save and leave, after a warning signal, or close to the time limit.

        Ranks may see it in different steps; `agree` lets them leave in the same one.

        Example:
            >>> log.should_stop
            False

        Ranks: independent.
        """
        return self._session.notices.warned or self.time_left() < self._margin

    def agree(self, flag: object) -> bool:
        """Whether the flag is true on any rank: the same answer on all of them.

        A rank waits here for the others, for an hour at most (or `grace`, if that is longer), and
        rank 0 says so on standard error after `grace` seconds. A rank that fails meanwhile ends the
        job after `grace` seconds, as if the others were in a collective call of the program.

        Raises:
            RanksMissingError: If some rank did not come (a `TimeoutError`).
            NoCommunicatorError: In a run of several ranks without a communicator.

        Example:
            >>> for step in range(1000):
            ...     if log.agree(log.should_stop):
            ...         break

        Ranks: collective: called by all ranks, equally often.
        """
        return self._session.agree(bool(flag))
