"""What was measured, as far as a plan of a deployment needs it.

All are of one machine with 2 cores and rows of 40 bytes, rounded; `benchmarks/results.json` has
what they were rounded from, and `make bench` measures them anew.
"""

from __future__ import annotations

# A key beside its value, in a file and in memory.
TABLE_BYTES_PER_KEY = 8.5
# A shard server's CPU for a request, and for each of its keys.
SEEK_REQUEST_US = 7.0
SEEK_KEY_US = 0.021
SEEK_VALUE_BYTES = 40
# A predictor's CPU for a row, in requests of 50, the search for its vectors included.
CTR_ROW_US = 12.0
# Of the tables that they write: cube-builder with two cores, servers that fetch over loopback, and
# one that reads and verifies.
BUILD_BYTES_PER_S = 150e6
SHIP_BYTES_PER_S = 650e6
LOAD_BYTES_PER_S = 1.2e9
# To notice a pass, to switch, to publish, and a change of step.
PASS_FIXED_S = 0.3

# Not of the benchmarks, but of the processes themselves, without tables.
SERVER_MIB = 80
REPLACED_MIB = 128
"""That a server may keep for versions which patches have just replaced, on top of a table's."""
CTR_WORKER_MIB = 300
