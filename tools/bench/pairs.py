"""Interleaving. A round is one run of every side; the next round goes backwards, so that each two rounds read A B B A and
a machine that slowly becomes slower disturbs all sides alike. The first side runs at both ends of a round, as two series
of the same thing: their ratio is what this run cannot tell from 1."""
import sys
import time
from collections.abc import Callable

AGAIN = "cellrun again"  # the second series of the first side


def interleaved(sides: dict[str, Callable[[], dict]], pairs: int, settle_s: float, label: str) -> dict[str, list[dict]]:
    """Samples by side, in order of the rounds; one more of each comes first and is thrown away."""
    first = next(iter(sides))
    order = [*sides, AGAIN]
    calls = sides | {AGAIN: sides[first]}
    for name in sides:
        calls[name]()
    taken = {name: [] for name in order}
    for number in range(pairs):
        for name in order if number % 2 == 0 else reversed(order):
            # What a side leaves to be done in the background must not be paid by the next.
            time.sleep(settle_s)
            taken[name].append(calls[name]())
        print(f"\r{label}: {number + 1} of {pairs} pairs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return taken
