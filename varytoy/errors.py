"""What errors have in common."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
