"""Every benchmark, then all ratios in one table: `python benchmarks [NAME ...]`, or `make bench`.

A script prints what it measured, and a line `RATIO | what | peer | number` for each comparison:
what the peer needs over what we need in the same run, so that above 1 is better than the peer.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MARK = "RATIO | "


def run(script: Path) -> tuple[int, list[str]]:
    """Run a script, showing what it prints; its exit code and its lines with ratios."""
    print(f"== {script.name}", flush=True)
    command = [sys.executable, str(script)]
    ratios = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith(MARK):
                ratios.append(line.removeprefix(MARK).rstrip())
            else:
                print(line, end="", flush=True)
    return process.returncode, ratios


def main() -> int:
    names = sys.argv[1:]
    scripts = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    chosen = [script for script in scripts if not names or script.stem in names]
    results = {script.stem: run(script) for script in chosen}
    print(f"\n{'ours is better by':<52}{'beside':<30}{'ratio':>6}")
    for _, ratios in results.values():
        for what, peer, ratio in (line.split(" | ") for line in ratios):
            print(f"{what:<52}{peer:<30}{ratio:>6}")
    failed = [name for name, (code, _) in results.items() if code]
    for name in failed:
        print(f"{name}: failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
