"""All measurements of the queue, one after the other: `make bench`. Each writes its own result file."""

from __future__ import annotations

import sys

from benchmarks import footprint, ingest, throughput

if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    for part in (ingest, throughput, footprint):
        part.main()
