"""P5a: the filter's own time for one packet, by BPF_PROG_TEST_RUN. A sample is as long as a million packets take, so that its
milliseconds read as nanoseconds for one."""
import functools
import json
import pathlib
import statistics
import subprocess
from collections.abc import Callable

from figures import ratio_of_medians
from sampler import Missing

ENTRIES = (10, 1_000, 100_000)
CASES = {"established": "nop", "hit": "nop-once", "miss": "nop"}  # each over the empty program that is timed in the same way


def _run(build: pathlib.Path, case: str, entries: int) -> dict:
    done = subprocess.run([build / "tools/bench/bench-filter", case, str(entries)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"bench-filter: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return json.loads(done.stdout)


def name(case: str, entries: int) -> str:
    return f"{case}, {entries:,} entries"


def sides(build: pathlib.Path) -> dict[str, Callable[[], dict]]:
    measured = {name(case, entries): functools.partial(_run, build, case, entries) for case in CASES for entries in ENTRIES}
    return measured | {empty: functools.partial(_run, build, empty, 1) for empty in sorted(set(CASES.values()))}


def filter_ns(times: dict[str, list[float]]) -> dict[str, float]:
    """Nanoseconds that the filter adds to a packet, medians."""
    return {name(case, entries): statistics.median(times[name(case, entries)]) - statistics.median(times[empty])
            for case, empty in CASES.items() for entries in ENTRIES}


def growth(times: dict[str, list[float]]) -> list[dict]:
    """The largest policy over the smallest, the empty program's time taken off each."""
    out = []
    for case, empty in CASES.items():
        most, least = ([a - b for a, b in zip(times[name(case, entries)], times[empty])] for entries in (ENTRIES[-1], ENTRIES[0]))
        out.append({"of": name(case, ENTRIES[-1]), "over": name(case, ENTRIES[0]), **ratio_of_medians(most, least)})
    return out
