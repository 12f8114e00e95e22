"""Run a command and print as JSON its wall seconds, peak resident memory and exit code.

A program of its own: a process begins with the memory of the one it was forked from on its account, so only a small
parent (this one imports nothing) sees the true peak of its child.
"""

import json
import os
import sys
import time

if __name__ == "__main__":
    begin = time.perf_counter()
    child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
    _, status, usage = os.wait4(child, 0)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    sys.stderr.write(
        json.dumps(
            {
                "seconds": time.perf_counter() - begin,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_gb": usage.ru_maxrss * unit / 1e9,
                "code": os.waitstatus_to_exitcode(status),
            }
        )
        + "\n"
    )
