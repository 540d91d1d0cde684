"""The one line in which a mistake that a person can mend is reported."""


def one_line(error: BaseException, where: str = "") -> str:
    """The message of an error as ``where: file: reason``, without line breaks and without an error number."""
    reason = str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(f"{where}: {reason}".split() if where else reason.split())
