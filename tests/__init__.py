"""Tests of the package and of all that stands beside it."""

import os

# Before PyTorch is loaded, here and in the processes that tests start: its threads wait for each
# other without spinning, which takes several times as long where processes share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
