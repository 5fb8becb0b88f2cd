"""The two programs that take samples, as Python calls. Times become milliseconds here; what failed becomes infinite."""
import json
import math
import os
import pathlib
import subprocess

# Ended with the runner, however that ends: nothing that was started here stays behind.
_LEASH = ["setpriv", "--pdeathsig", "KILL"]


class Missing(Exception):
    """Something that a row needs is not there. Its text says what."""


def milliseconds(raw: dict, until: str) -> float:
    if raw["failure"] or not raw[until]:
        return math.inf
    return (raw[until] - raw["startNs"]) / 1e6


class Sampler:
    """A running bench-sampler: jobs to the node, commands to the host."""

    def __init__(self, build: pathlib.Path, node: pathlib.Path, run: pathlib.Path):
        self._process = subprocess.Popen(
            [*_LEASH, build / "tools/bench/bench-sampler", run / "cellrund.sock", node / "etc/job.key", node / "etc/node.pub"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, order: dict) -> dict:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Missing("bench-sampler ended; its last words are above")
        return json.loads(line)

    def job(self, spec: dict, expected: str, limit_s: int) -> dict:
        return self._ask({"do": "job", "spec": spec, "expected": expected, "limitMs": limit_s * 1000})

    def command(self, argv: list[str], expected: str, limit_s: int, cwd: str = "") -> dict:
        return self._ask({"do": "command", "argv": argv, "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "cwd": cwd,
                          "expected": expected, "limitMs": limit_s * 1000})

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _sample_of(program: pathlib.Path, *arguments, inside: tuple = ()) -> tuple[dict, str]:
    done = subprocess.run([*_LEASH, *inside, program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{program.name}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return json.loads(done.stdout), done.stderr


def flood(build: pathlib.Path, folder: pathlib.Path, side: str, size: int) -> dict:
    """A neighbour's transfer beside a flood."""
    return _sample_of(build / "tools/bench/bench-flood", folder, side, size)[0]


def path(build: pathlib.Path, folder: pathlib.Path, side: str, traffic: str, amount: int) -> dict:
    """What stands between a cell and a host behind the router."""
    return _sample_of(build / "tools/bench/bench-path", folder, side, traffic, amount)[0]


def hostile_starts(build: pathlib.Path, guest: pathlib.Path, starts: dict[str, int]) -> list[str]:
    """The lines of tests/e2e/hostile_egress.sh, on a node of its own."""
    script = pathlib.Path(__file__).resolve().parents[2] / "tests/e2e/hostile_egress.sh"
    own = {"CELLRUN_BUILD": str(build), "CELLRUN_GUEST_DIR": str(guest), "CELLRUN_MACHINES": str(starts["microvm"]),
           "CELLRUN_PROCESSES": str(starts["process"])}
    done = subprocess.run(["bash", script], env=os.environ | own, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 and not any("FAIL" in line for line in lines):
        raise Missing(f"hostile_egress.sh: {(lines or ['said nothing'])[-1]}")
    return lines


def raw_boot(build: pathlib.Path, plan: pathlib.Path) -> dict:
    """One raw boot, in a network and a pid namespace that end with it."""
    sample, stderr = _sample_of(build / "tools/bench/bench-raw-boot", plan,
                                inside=("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"))
    if sample["failure"] and stderr:
        sample["stderr"] = stderr[-1000:]
    return sample
