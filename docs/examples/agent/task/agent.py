"""A small coding agent: edits /workspace until the tests of the task pass, and reports what it did.

It stands where yours would: it reads a task from /task, has a private copy of a project in /workspace, may run whatever it
likes there, and leaves its result in /outputs. Its ideas come from a list of small mutations instead of a model, so that the
example needs no network: it changes one operator after the other, keeps a change with which fewer tests fail, and goes on
from there.
"""
import difflib
import json
import os
import pathlib
import re
import subprocess
import sys

TASK = pathlib.Path("/task")
WORKSPACE = pathlib.Path("/workspace")
OUTPUTS = pathlib.Path("/outputs")

# What to try for an operator. Each is tried alone, at each place where it stands.
IDEAS = [("+", "-"), ("-", "+"), ("*", "//"), ("//", "*"), (">", ">="), ("<", "<="), (">=", ">"), ("<=", "<"), ("==", "!=")]


def failures(command):
    """The number of failed tests; None when they could not be run at all (a syntax error, say)."""
    run = subprocess.run(command, cwd=WORKSPACE, capture_output=True, text=True, timeout=60, check=False,
                         env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    if run.returncode == 0:
        return 0
    found = re.search(r"FAILED \((.*)\)", run.stderr)
    return sum(int(n) for n in re.findall(r"\d+", found.group(1))) if found else None


def proposals(text):
    for old, new in IDEAS:
        for place in re.finditer(rf"(?<=\s){re.escape(old)}(?=\s)", text):
            yield f"{old} to {new}", text[:place.start()] + new + text[place.end():]


def improve(path, task, best, log):
    """One round over one file. Returns the number of failures with the best version, which is left in place."""
    before = path.read_text()
    for idea, candidate in proposals(before):
        if len(log) >= task["maxAttempts"]:
            break
        path.write_text(candidate)
        now = failures(task["test"])
        log.append({"file": path.name, "change": idea, "failures": now})
        if now is not None and now < best:
            return now
    path.write_text(before)
    return best


def main():
    task = json.loads((TASK / "task.json").read_text())
    files = [WORKSPACE / name for name in task["files"]]
    originals = {path: path.read_text() for path in files}
    log = []
    first = best = failures(task["test"])
    if best is None:
        sys.exit("agent: the tests cannot be run")
    while best > 0 and len(log) < task["maxAttempts"]:
        after = best
        for path in files:
            after = improve(path, task, after, log)
        if after == best:
            break
        best = after

    patch = "".join("".join(difflib.unified_diff(text.splitlines(True), path.read_text().splitlines(True), f"a/{path.name}", f"b/{path.name}"))
                    for path, text in originals.items())
    report = {"goal": task["goal"], "failuresBefore": first, "failuresAfter": best, "attempts": len(log), "log": log}
    print(f"agent: {first} failed tests before, {best} after {len(log)} attempts")
    print(patch, end="")
    if OUTPUTS.is_dir():
        (OUTPUTS / "change.patch").write_text(patch)
        (OUTPUTS / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if best == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
