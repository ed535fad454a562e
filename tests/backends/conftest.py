"""onnxruntime reports home unless told otherwise before it is imported."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
