"""Secrets that come by file, as containers get them. Imports nothing of ours."""

from pathlib import Path


def read_secret(variable: str, file: Path) -> str:
    """Return the file's text without the line feed at its end; ValueError names variable and file."""
    try:
        found = file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"{variable} is {file}, which cannot be read: {reason}") from error
    if not found:
        raise ValueError(f"{variable} is {file}, which is empty: write the secret into it")
    return found
