"""What the figures belong to: the machine, the versions, and how busy it was."""
import json
import os
import pathlib
import platform
import subprocess


def _output(*argv: str | pathlib.Path) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "not installed"


def _first_line(*argv: str | pathlib.Path) -> str:
    return next(iter(_output(*argv).splitlines()), "")


def _cpu() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _build_type(build: pathlib.Path) -> str:
    options = json.loads((build / "meson-info/intro-buildoptions.json").read_text())
    return ", ".join(f"{o['name']}={o['value']}" for o in options if o["name"] in ("buildtype", "b_sanitize", "b_ndebug"))


def _commit(source: pathlib.Path) -> str:
    commit = _first_line("git", "-C", source, "rev-parse", "HEAD")
    changed = _first_line("git", "-C", source, "status", "--porcelain", "--untracked-files=no")
    return commit + (" and uncommitted changes" if changed else "")


def _file_system(path: pathlib.Path) -> str:
    return _first_line("findmnt", "--noheadings", "--output=FSTYPE", "--target", path)


def load() -> float:
    """Of the last minute, in runnable processes."""
    return round(os.getloadavg()[0], 2)


def capacity(build: pathlib.Path, run: pathlib.Path) -> dict:
    """What the node says that it has: its lanes, and the accelerator that its boot probe found."""
    return json.loads(_output(build / "tools/cellrun/cellrun", "capacity", "--json", "--socket", run / "cellrund.sock"))


def machine(build: pathlib.Path, source: pathlib.Path, node: pathlib.Path, run: pathlib.Path) -> dict:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"kernel": platform.release(), "cpu": _cpu(), "cores": os.cpu_count(), "memoryMiB": memory >> 20, "load": load(),
            "stateOn": _file_system(node), "runOn": _file_system(run),
            "cellrun": _commit(source), "build": _build_type(build),
            "containerd": _first_line("containerd", "--version"), "runc": _first_line("runc", "--version"),
            "qemu": _first_line("qemu-system-x86_64", "--version")}
