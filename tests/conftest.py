"""Settings of every test process."""

from __future__ import annotations

import os
import tempfile

# before torch is imported anywhere: several threads collapse when the machine is shared
os.environ.setdefault("OMP_NUM_THREADS", "1")
# the developer's own devices are not the tests' to measure on
os.environ["EDGEOFA_CONFIG"] = f"{tempfile.gettempdir()}/edgeofa-no-config-{os.getpid()}"
