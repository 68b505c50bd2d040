"""The bench measures growth in each dimension."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_measures_each_dimension() -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--growth"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row[0].isdigit()] == [
        "20",
        "1,000",
        "1,000, over STATE_MAX_ENTRIES",
        "50",
        "100,000",
    ]
