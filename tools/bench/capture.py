"""The raw boot's plan, taken from a live cell: the command line that the product really runs, read from /proc, with the
same files behind the same descriptor numbers, and the workload that its OCI spec stands for."""
import json
import pathlib
import re
import subprocess
import time
from collections.abc import Callable

from jobs import ARGS, EXPECTED, spec
from sampler import Missing

BOOT_LIMIT_S = 60  # lanes.boot_timeout_seconds of the node: both sides give up after the same time
_STARTS = 3        # an emulated guest sometimes does not come up


class _Node:
    def __init__(self, build: pathlib.Path, run: pathlib.Path):
        self._cellrun = build / "tools/cellrun/cellrun"
        self._socket = run / "cellrund.sock"

    def run(self, *argv: str | pathlib.Path, may_fail: bool = False) -> str:
        done = subprocess.run([self._cellrun, *argv, "--socket", self._socket], capture_output=True, text=True, check=False)
        if done.returncode != 0 and not may_fail:
            raise Missing(f"cellrun {argv[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def state(self, uid: str) -> str:
        return json.loads(self.run("inspect", uid, "--json"))["state"]


def _running_cell(node: _Node, submit: Callable[[], str], limit_s: int) -> str:
    """The uid of a job that has come to RUNNING and stays there for a while."""
    for _ in range(_STARTS):
        uid = submit()
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            state = node.state(uid)
            if state == "RUNNING":
                return uid
            if state in ("FAILED", "TIMED_OUT", "LOST", "CANCELLED"):
                break
            time.sleep(0.1)
    raise Missing("a guest that comes up: see cellrund.log")


def _number(argv: list[str], pattern: str) -> int:
    for word in argv:
        if found := re.search(pattern, word):
            return int(found[1])
    raise Missing(f"a descriptor like {pattern} in the command line of the product's QEMU")


def _disk_numbers(argv: list[str]) -> dict[str, int]:
    """Name of each block device: the descriptor number that QEMU is given it as."""
    found = {}
    for word in argv:
        if match := re.match(r"driver=raw,node-name=(\w+),.*/dev/fdset/(\d+)", word):
            found[match[1]] = int(match[2])
    return found


def _files(vmm: pathlib.Path, argv: list[str], node_dir: pathlib.Path, guest: pathlib.Path) -> list[dict]:
    """What stands behind each descriptor: the same files, and for the two empty disks sparse ones of the same size. QEMU
    moves the descriptors of its disks, so that they are known by what they are open on."""
    opened = {str(fd.readlink()): fd for fd in (vmm / "fd").iterdir()}

    def behind(start: str) -> tuple[str, pathlib.Path]:
        for target, fd in opened.items():
            if target.startswith(start):
                return target, fd
        raise Missing(f"a descriptor of {start} in the product's QEMU")

    def empty(name: str, like: pathlib.Path) -> str:
        path = node_dir / f"raw-{name}"
        with path.open("wb") as disk:
            disk.truncate(like.stat().st_size)
        return str(path)

    numbers = _disk_numbers(argv)
    image, _ = behind(f"{node_dir}/state/images/")
    return [{"fd": _number(argv[argv.index("-kernel") + 1:], r"^/dev/fd/(\d+)$"), "path": str(guest / "vmlinux"), "writable": False},
            {"fd": _number(argv[argv.index("-initrd") + 1:], r"^/dev/fd/(\d+)$"), "path": str(guest / "initrd"), "writable": False},
            {"fd": numbers["rootfs"], "path": image, "writable": False},
            {"fd": numbers["inputs"], "path": empty("inputs", behind("/memfd:inputs")[1]), "writable": False},
            {"fd": numbers["scratch"], "path": empty("scratch", behind(f"{node_dir}/state/shim/")[1]), "writable": True}]


def _workload(config: dict) -> dict:
    process, network = config["process"], json.loads(config["annotations"]["dev.cellrun.network"])
    address, prefix = network.pop("address").split("/")
    return {"args": ARGS, "env": process["env"], "cwd": process["cwd"], "hostname": config["hostname"],
            "uid": process["user"]["uid"], "gid": process["user"]["gid"], "pids": config["linux"]["resources"]["pids"]["limit"],
            "network": network | {"address": address, "prefix": int(prefix)}}


def boot_plan(build: pathlib.Path, node_dir: pathlib.Path, run_dir: pathlib.Path, guest: pathlib.Path, image: str,
              sign: Callable[[dict], str]) -> pathlib.Path:
    """Writes the plan and returns its path. `sign` turns a jobspec into the path of a fresh envelope."""
    node = _Node(build, run_dir)
    sleeper = spec(image, "microvm", ["/bin/sleep", "50"])
    uid = _running_cell(node, lambda: node.run("submit", "-d", sign(sleeper)).strip(), 2 * BOOT_LIMIT_S)
    bundles = run_dir / "containerd/state/io.containerd.runtime.v2.task"
    bundle = next(bundles.glob(f"*/*-{uid}"))
    vmm = pathlib.Path("/proc") / (bundle / "cellrun-vmm.pid").read_text().split()[0]
    argv = (vmm / "cmdline").read_text().rstrip("\0").split("\0")
    plan = {"argv": argv, "qmp": _number(argv, r"^socket,id=qmp,fd=(\d+)$"), "agent": _number(argv, r"^socket,id=agent,fd=(\d+)$"),
            "tap": _number(argv, r"^tap,id=net0,.*fd=(\d+)$"), "files": _files(vmm, argv, node_dir, guest), "expected": EXPECTED,
            "workload": _workload(json.loads((bundle / "config.json").read_text())), "limitMs": BOOT_LIMIT_S * 1000}
    node.run("cancel", uid)
    node.run("wait", uid, may_fail=True)  # leaves with the code of a cancelled job
    path = node_dir / "boot-plan.json"
    path.write_text(json.dumps(plan))
    return path
