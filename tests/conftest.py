"""Settings of every test process."""

from __future__ import annotations

import os

# before torch is imported anywhere: several threads collapse when the machine is shared
os.environ.setdefault("OMP_NUM_THREADS", "1")
