"""The process that compiles candidates: one task a line in, one answer a line out.

A candidate that crashes the compiler, or hangs it, takes this process with it and nothing else
(see build.py, which starts it).
"""

from __future__ import annotations

import json
import os
import sys
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from edgeofa.backends.tvm.kernels import Kernel
from edgeofa.backends.tvm.machine import MACHINES
from edgeofa.tuning.subject import Subject, make_subject

_KERNEL = TypeAdapter(Kernel)


@lru_cache(maxsize=8)
def _subject(kernel: str) -> Subject:
    return make_subject(_KERNEL.validate_json(kernel))


def serve() -> None:
    """Answer tasks until the input ends."""
    # the compiler's interface imports torch where it is installed, for seconds, and needs it not
    sys.modules["torch"] = None  # type: ignore[assignment]
    # what libraries print must not get between the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            subject = _subject(json.dumps(task["kernel"]))
            library = subject.library(MACHINES[task["machine"]], task["config"])
            Path(task["path"]).write_bytes(library)
            reason = None
        except Exception as error:  # a compiler can raise anything: that candidate is out
            reason = f"{type(error).__name__}: {error}"[:500]
        answers.write(json.dumps({"reason": reason}) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
