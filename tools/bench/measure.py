#!/usr/bin/env python3
"""Runs the rows on a node that is up and writes the results. tools/bench/run brings the node up; start that."""
import argparse
import datetime
import json
import pathlib
import signal
import sys

from facts import capacity, machine
from figures import for_json
from plot import svg
from rows import ROWS, Bench
from sampler import Missing, Sampler
from table import markdown


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: text.split(","), required=True)
    for name in ("--pairs", "--boots", "--overruns", "--machine-overruns", "--settle-ms"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--out", "--source", "--build", "--guest", "--node", "--run"):
        parser.add_argument(name, type=pathlib.Path, required=True)
    parser.add_argument("--namespace", required=True)
    return parser.parse_args()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(out: pathlib.Path, results: dict) -> None:
    (out / "bench.json").write_text(json.dumps(for_json(results), indent=1) + "\n")
    (out / "bench.md").write_text(markdown(results))
    (out / "bench.svg").write_text(svg(results))


def _measure(arguments: argparse.Namespace, sampler: Sampler) -> dict:
    node = capacity(arguments.build, arguments.run)
    bench = Bench(build=arguments.build, node=arguments.node, guest=arguments.guest, run=arguments.run, namespace=arguments.namespace,
                  image=(arguments.node / "image").read_text().strip(), lanes=node["lanes"], sampler=sampler, pairs=arguments.pairs,
                  boots=arguments.boots, overruns=arguments.overruns, machine_overruns=arguments.machine_overruns,
                  settle_s=arguments.settle_ms / 1000)
    facts = machine(arguments.build, arguments.source, arguments.node, arguments.run)
    results = {"format": "cellrun-bench/1", "started": _now(), "settleMs": arguments.settle_ms,
               "machine": facts | {"accel": node["accel"] or "none: no row of this run needs one"}, "rows": []}
    for name in arguments.rows:
        row = {"id": name, "name": ROWS[name].name, "what": ROWS[name].what}
        try:
            row |= ROWS[name].measure(bench)
        except Missing as missing:
            row["missing"] = str(missing)
        results["rows"].append(row)
        results["finished"] = _now()
        _write(arguments.out, results)  # after each row: an interrupted run keeps what it has
    return results


def main() -> int:
    arguments = _arguments()
    # An end in order: the sample that is being taken is finished, so that no peer is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sampler = Sampler(arguments.build, arguments.node, arguments.run)
    try:
        results = _measure(arguments, sampler)
    finally:
        sampler.close()
    print((arguments.out / "bench.md").read_text(), end="")
    print(f"\nwritten to {arguments.out}", file=sys.stderr)
    unmeasured = [row for row in results["rows"] if "missing" in row]
    for row in unmeasured:
        print(f"bench: {row['id']} was not measured: missing: {row['missing']}", file=sys.stderr)
    return 1 if unmeasured else 0


if __name__ == "__main__":
    sys.exit(main())
