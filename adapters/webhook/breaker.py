"""When an endpoint that keeps failing is left alone, and when it is tried again. Pure."""

from __future__ import annotations


class Breaker:
    """Counts failures in a row; all instants are monotonic seconds."""

    def __init__(self, *, broken_after: int, trial_every_s: float) -> None:
        """Broken after so many failures in a row; then one trial per `trial_every_s`."""
        self._broken_after = broken_after
        self._trial_every_s = trial_every_s
        self._failures = 0
        self._next_trial = 0.0

    @property
    def broken(self) -> bool:
        """Whether it is left alone but for trials."""
        return self._failures >= self._broken_after

    def admits(self, now: float) -> bool:
        """Whether an attempt may be made; of a broken endpoint this is the next trial."""
        if not self.broken:
            return True
        if now < self._next_trial:
            return False
        self._next_trial = now + self._trial_every_s
        return True

    def succeeded(self) -> None:
        """It answered: whole again."""
        self._failures = 0

    def failed(self, now: float) -> bool:
        """It did not; True when it broke by that."""
        was = self.broken
        self._failures += 1
        if self.broken and not was:
            self._next_trial = now + self._trial_every_s
        return self.broken and not was
