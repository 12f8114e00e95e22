"""Training steps of any code, timed, and what the parent process reads of them."""

import json
import resource
import sys
import time
from collections.abc import Callable


def report(step: Callable[[int], float], count: int, parameters: int) -> None:
    """Do `count` steps, each of which returns its loss; JSON on standard output."""
    seconds, loss = [], 0.0
    for number in range(count):
        begin = time.perf_counter()
        loss = step(number)
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sys.stdout.write(json.dumps({"seconds": seconds, "parameters": parameters, "loss": loss, "memory_gb": peak}) + "\n")
