"""How long a step waits for company. A step costs much whatever is in it, so two requests that come in turns take half as long again as two in one step.

Clients that wait for their answers come back at once: as many requests are expected as the last step has answered and left waiting. Where they do not come,
the patience for them dwindles; where they do, it grows back. One client alone is never kept waiting. Knows no clock.
"""

GROWS, SHRINKS = 1.15, 0.7
LEAST = 0.1  # of the patience, so that it is tried now and then


class Gathering:
    """Of one engine.

    Args:
        most: seconds.
    """

    def __init__(self, most: float) -> None:
        self._most = self._patience = most
        self._answered = 0
        self._expected = 0

    @property
    def hopes(self) -> bool:
        """Whether anybody is likely to come."""
        return self._most > 0 and self._expected > 1

    def stepped(self, answered: int, waiting: int) -> None:
        """Note that a step ran: how many requests were answered so far, and how many wait now."""
        self._expected = answered - self._answered + waiting
        self._answered = answered

    def left(self, waiting: int, waited: float) -> float:
        """How long to wait on for company, with so many there after so long."""
        if not self.hopes:
            return 0.0
        if waiting >= self._expected:
            self._patience = min(self._most, self._patience * GROWS)
            self._expected = 0
            return 0.0
        left = self._patience - waited
        if left <= 0:
            self._patience = max(LEAST * self._most, self._patience * SHRINKS)
            self._expected = 0
        return left
