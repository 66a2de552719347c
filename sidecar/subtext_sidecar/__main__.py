"""``python -m subtext_sidecar`` runs the sidecar process."""

import sys

from subtext_sidecar.commands import sidecar

sys.exit(sidecar(sys.argv[1:]))
