"""Times as other people write them. Knows nothing of what happened then."""

from datetime import UTC, datetime


def moment(value: object) -> datetime | None:
    """A time with its zone, from text in ISO format or seconds, milliseconds or nanoseconds since 1970; None where it is no time."""
    if isinstance(value, str) and value.strip().isdigit() and len(value.strip()) >= 9:
        value = int(value)  # seconds or less since 1970, as text
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
            while abs(seconds) > 1e11:
                seconds /= 1000
            return datetime.fromtimestamp(seconds, UTC)
        found = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
