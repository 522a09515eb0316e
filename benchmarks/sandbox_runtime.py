"""Start, round trip, figure, memory and throughput of the sandbox beside its peers, in one run.

The same table as `pyvision-rl sandbox bench`.
"""

from pyvision_rl.sandbox.bench import BenchConfig, measure, table


def main() -> None:
    rows, notes = measure(BenchConfig())
    print(table(rows, notes))
    for row in rows:
        for peer, value in (("worker process", row.multiprocessing), ("Jupyter", row.jupyter)):
            if value is not None and row.sandbox:
                print(f"RATIO | sandbox: {row.what} | {peer} | {value / row.sandbox:.2f}")


if __name__ == "__main__":
    main()
