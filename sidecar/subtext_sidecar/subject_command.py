"""The command ``subtext subject``: the subject key of an id, where the secret is.

The id comes by standard input and is in no argument, since command lines can be read by others.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from subtext_sidecar.contract.subject import subject_key, tenant_secret
from subtext_sidecar.contract.tenant import DEFAULT_TENANT, NAMES, is_tenant_name
from subtext_sidecar.plugin.secret import SecretError, read_secret

_OPTION: Final = "--secret-file"


def run(argv: Sequence[str]) -> int:
    """Write the subject key of the id that standard input holds; 1 with the reason where there is none."""
    parser = argparse.ArgumentParser(
        prog="subtext subject",
        description="Print the subject key of the id on standard input: printf %s ID | subtext subject ...",
    )
    parser.add_argument(_OPTION, type=Path, required=True, help="the engines' subject_secret_file")
    parser.add_argument(
        "--tenant", default=DEFAULT_TENANT, help="the engines' tenant (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    if not is_tenant_name(options.tenant):
        parser.error(f"--tenant: give {NAMES}")
    try:
        secret = tenant_secret(read_secret(options.secret_file, _OPTION), options.tenant)
        said = sys.stdin.buffer.read().decode().rstrip("\r\n")
        sys.stdout.write(f"{subject_key(secret, said)}\n")
    except (SecretError, UnicodeDecodeError, ValueError) as error:
        sys.stderr.write(f"subtext subject: {error}\n")
        return 1
    return 0
