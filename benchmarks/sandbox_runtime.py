"""Start, round trip, figure, memory and throughput of the sandbox beside its peers, in one run.

The same table as `pyvision-rl sandbox bench`.
"""

from pyvision_rl.sandbox.bench import BenchConfig, bench

if __name__ == "__main__":
    print(bench(BenchConfig()))
