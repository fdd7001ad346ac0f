"""Shared by all tests: one thread for numerical libraries, and nobody's progress is touched."""

import os
import tempfile

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

os.environ["DPKIT_PROGRESS"] = os.path.join(tempfile.mkdtemp(prefix="dpkit-"), "progress.json")
