"""The results for people, as Markdown."""
import collections
import math

WHEN = {"firstByteNs": "first byte", "endNs": "end"}


def _ms(value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(found: dict) -> str:
    if found["ratio"] is None:
        return "means nothing"
    value, low, high = ("∞" if math.isinf(v) else f"{v:.3f}" for v in (found["ratio"], *found["ci95"]))
    return f"{value} [{low}, {high}]"


def _figures(row: dict) -> list[str]:
    lines = [f"| side (ms to {WHEN[row['until']]}) | n | failed | p50 | p95 | p99 | max |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {s['name']} | {s['n']} | {s['failures']} | {_ms(s['p50'])} | {_ms(s['p95'])} | {_ms(s['p99'])} | {_ms(s['max'])} |"
              for s in row["sides"]]
    return lines


def _ratios(row: dict) -> list[str]:
    if "ratios" not in row:
        return []
    lines = ["", "| ratio of medians | [95 % interval] | pairs |", "|---|---|---|"]
    lines += [f"| {r['of']} / {r['over']} | {_ratio(r)} | {r['pairs']} |" for r in row["ratios"]]
    lines.append(f"| A/A: {row['again']['of']} / {row['again']['over']} | {_ratio(row['again'])} | {row['again']['pairs']} |")
    return lines


def _stages(row: dict) -> list[str]:
    spent = [f"{state} {_ms(value)}" for state, value in row["stages"].items()]
    return ["", f"A job's time by state, medians in ms: {', '.join(spent)}."] if spent else []


def _filter(row: dict) -> list[str]:
    added = [f"{name} {value:.0f}" for name, value in row.get("filterNs", {}).items()]
    return ["", f"The filter adds, in ns a packet: {'; '.join(added)}."] if added else []


def _failures(row: dict) -> list[str]:
    lines = []
    for side in row["sides"]:
        whys = collections.Counter(sample["failure"] for sample in side["samples"] if sample["failure"])
        lines += [f"- {side['name']}: {count} × {why}" for why, count in whys.most_common(5)]
    return ["", "Failures:", "", *lines] if lines else []


def _boot(failure: dict) -> str:
    kind = "hang" if failure["hang"] else "failure"
    return f"- boot {failure['boot']}: {kind} at {failure['stage']} after {failure['stageMs']} ms: {failure['why']}"


def _boots(row: dict) -> list[str]:
    if "boots" not in row:
        return []
    others = len(row["failures"]) - row["hangs"]
    lines = [f"{row['ok']} of {row['boots']} boots reached user code; {row['hangs']} hung, {others} failed otherwise.", ""]
    return [*lines, *map(_boot, row["failures"]), *([""] if row["failures"] else [])]


def _starts(row: dict) -> list[str]:
    asked = ", ".join(f"{count} {lane}" for lane, count in row["starts"].items())
    return [f"Starts: {asked}. What arrived, in packets:", "", *[f"- {line}" for line in row["arrived"]]]


def _early(row: dict) -> list[str]:
    return ["", f"{row['early']} ended before their deadline."] if "early" in row else []


def markdown(results: dict) -> str:
    machine = results["machine"]
    lines = ["# Benchmark of the control path", "", f"{results['started']} to {results['finished']}", "", "| machine | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in machine.items()]
    for row in results["rows"]:
        lines += ["", f"## {row['id']} {row['name']}", "", row["what"] + ".", ""]
        if "missing" in row:
            lines += [f"**Not measured.** Missing: {row['missing']}", ""]
        if "starts" in row:
            lines += _starts(row)
        if "sides" not in row:
            continue
        lines += _boots(row) + _figures(row) + _ratios(row) + _filter(row) + _early(row) + _stages(row) + _failures(row)
        lines += ["", f"Load before and after: {row['load'][0]}, {row['load'][1]}."]
        if "unmeasurable" in row:
            lines += ["", f"Not measurable with this version: {row['unmeasurable']}."]
    return "\n".join(lines) + "\n"
