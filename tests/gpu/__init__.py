"""What only a CUDA device can show. Deselected by default: ``pytest -m gpu`` on a machine with one."""
