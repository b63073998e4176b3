"""Microseconds of a null job through Python: null_jobs.py MODEL N."""

import array
import sys
import time

import vivarium

model, n = vivarium.open().load(sys.argv[1]), int(sys.argv[2])
x, times = array.array("f", [1]), []
for _ in range(n):
    begun = time.perf_counter_ns()
    with model.submit("forward", {"x": x}) as job:
        for _ in job:
            pass
    times.append(time.perf_counter_ns() - begun)
times.sort()
print(f"Python  null job: least {times[0] / 1e3:7.2f}  p50 {times[n // 2] / 1e3:7.2f} us")
