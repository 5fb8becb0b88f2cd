"""Figures from samples. A run that failed took infinitely long: it stays in every figure and is never dropped."""
import math
import random
import statistics

RESAMPLES = 10_000
SEED = 1  # the same samples give the same interval


def percentile(values: list[float], share: float) -> float:
    """Nearest rank: a value that was measured, never one between two."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values: list[float]) -> dict:
    """What one side's samples amount to."""
    return {"n": len(values), "failures": sum(math.isinf(v) for v in values), "p50": statistics.median(values),
            "p95": percentile(values, 0.95), "p99": percentile(values, 0.99), "max": max(values)}


def ratio(mine: list[float], theirs: list[float]) -> float | None:
    """Of the medians; None when it means nothing (both infinite, or nothing to divide by)."""
    over, under = statistics.median(mine), statistics.median(theirs)
    if under == 0 or (math.isinf(over) and math.isinf(under)):
        return None
    return over / under


def ratio_of_medians(mine: list[float], theirs: list[float]) -> dict:
    """The ratio with its 95 % interval, by resampling whole pairs: what disturbed one side of a pair disturbed both."""
    draw = random.Random(SEED)
    indices = range(len(mine))
    drawn = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(indices, k=len(mine))
        value = ratio([mine[i] for i in chosen], [theirs[i] for i in chosen])
        if value is not None:
            drawn.append(value)
    drawn.sort()
    interval = [percentile(drawn, 0.025), percentile(drawn, 0.975)] if drawn else None
    return {"ratio": ratio(mine, theirs), "ci95": interval, "pairs": len(mine)}


def stages(samples: list[dict]) -> dict[str, float]:
    """Milliseconds that a job spent in each of its states, as medians over the samples that have a timeline."""
    spent: dict[str, list[float]] = {}
    for sample in samples:
        timeline = sample.get("timeline", [])
        for (state, entered), (_, left) in zip(timeline, timeline[1:]):
            spent.setdefault(state, []).append((left - entered) / 1e6)
    return {state: statistics.median(values) for state, values in spent.items()}


def for_json(value):
    """JSON has no infinity: it is written as the text "inf"."""
    if isinstance(value, dict):
        return {key: for_json(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [for_json(entry) for entry in value]
    return "inf" if isinstance(value, float) and math.isinf(value) else value
