"""The rows: what is run on which side, and where each side's clock stops."""
import contextlib
import dataclasses
import math
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator

import capture
import egress_filter
import jobs
import overrun
import peers
from facts import load
from figures import ratio_of_medians, stages, summary
from pairs import AGAIN, interleaved
from sampler import Missing, Sampler, flood, hostile_starts, milliseconds, path, raw_boot

JOB_LIMIT_S = 240  # above the start deadline, the active deadline and a teardown together: the node ends a job first
# How long a guest may take to come up, and its command to run: whatever takes longer hangs.
STAGE_LIMIT_S = {"STARTING": capture.BOOT_LIMIT_S, "RUNNING": jobs.ACTIVE_LIMIT_S}
PATH_DATAGRAMS = 1_000_000
PROCESS_STARTS_PER_BOOT = 10  # of P5c
FLOOD_TRANSFER = 512 << 20  # bytes: some tenths of a second without a flood
FIRST_BYTE, END = "firstByteNs", "endNs"
Side = Callable[[], dict]


@dataclasses.dataclass
class Bench:
    """One run of the benchmark: a node that is up, and how much is to be measured on it."""
    build: pathlib.Path
    node: pathlib.Path  # its folder on disk
    run: pathlib.Path
    guest: pathlib.Path
    namespace: str
    image: str
    lanes: list[str]
    sampler: Sampler
    pairs: int
    boots: int
    overruns: int
    machine_overruns: int
    settle_s: float

    def job(self, lane: str) -> Side:
        spec = jobs.spec(self.image, lane)
        return lambda: self.sampler.job(spec, jobs.EXPECTED, JOB_LIMIT_S)

    def ctr(self) -> peers.Ctr:
        return peers.Ctr(self.sampler, self.node, self.run, self.namespace)

    def submit(self) -> peers.Submit:
        return peers.Submit(self.sampler, self.build, self.node, self.run, jobs.spec(self.image, "process"))

    def needs_machines(self) -> None:
        for name in ("vmlinux", "initrd"):
            if not (self.guest / name).is_file():
                raise Missing(f"{self.guest / name} (shim/guest/make-image {self.guest} {self.build}/shim/guest/cell-init)")
        if "microvm" not in self.lanes:
            raise Missing("the microvm lane, which this node could not open: its log says why")


def _paired(bench: Bench, row: str, until: str, ours: dict[str, Side], theirs: dict[str, Side]) -> dict:
    """Each of ours over each of theirs; the first of ours beside itself."""
    before = load()
    taken = interleaved(ours | theirs, bench.pairs, bench.settle_s, row)
    times = {name: [milliseconds(sample, until) for sample in samples] for name, samples in taken.items()}
    first = next(iter(ours))
    result = {"unit": "ms", "until": until, "load": [before, load()],
              "sides": [{"name": name, **summary(times[name]), "ms": times[name], "samples": taken[name]} for name in taken],
              "ratios": [{"of": of, "over": over, **ratio_of_medians(times[of], times[over])} for over in theirs for of in ours],
              "again": {"of": AGAIN, "over": first, **ratio_of_medians(times[AGAIN], times[first])},
              "stages": stages(taken[first] + taken[AGAIN])}
    for name, samples in taken.items():
        if all(math.isinf(ms) for ms in times[name]):
            result["missing"] = f"a run of {name} that succeeds: {samples[0]['failure']}"
    return result


def cold_overhead(bench: Bench) -> dict:
    bench.needs_machines()
    plan = capture.boot_plan(bench.build, bench.node, bench.run, bench.guest, bench.image, bench.submit().sign)
    return _paired(bench, "P1", FIRST_BYTE, {"cellrun": bench.job("microvm")}, {"raw QEMU": lambda: raw_boot(bench.build, plan)})


def control(bench: Bench) -> dict:
    return _paired(bench, "P1b", FIRST_BYTE, {"cellrun": bench.job("process"), "cellrun submit": bench.submit()},
                   {"ctr + runc": bench.ctr(), "runc": peers.Runc(bench.sampler, bench.node, bench.namespace)})


@contextlib.contextmanager
def _stand_in(bench: Bench) -> Iterator[None]:
    """The node's shim.toml, which the shim reads for each cell, with the stand-in VMM in place of QEMU."""
    program = bench.node / "stand-in-vmm"  # a copy, since the build folder may be closed to a cell's uid
    shutil.copyfile(bench.build / "tools/bench/bench-stand-in-vmm", program)
    program.chmod(0o755)
    config = bench.run / "shim.toml"
    kept = config.read_text()
    others = [line for line in kept.splitlines() if not line.startswith("accel")]
    config.write_text("\n".join([*others, 'accel = "tcg"', f'qemu = "{program}"']) + "\n")
    try:
        yield
    finally:
        config.write_text(kept)


def containerd_path(bench: Bench) -> dict:
    bench.needs_machines()
    with _stand_in(bench):
        return _paired(bench, "P1c", FIRST_BYTE, {"cellrun": bench.job("microvm")}, {"ctr + runc": bench.ctr()})


def noop(bench: Bench) -> dict:
    result = _paired(bench, "P3", END, {"cellrun": bench.job("process"), "cellrun submit": bench.submit()},
                     {"ctr + runc": bench.ctr()})
    result["unmeasurable"] = "without network: no lane starts a cell without one (runtime/cell/lane.hpp takes a NetworkedCell)"
    return result


def filter_time(bench: Bench) -> dict:
    before = load()
    taken = interleaved(egress_filter.sides(bench.build), bench.pairs, bench.settle_s, "P5a")
    times = {name: [milliseconds(sample, END) for sample in samples] for name, samples in taken.items()}
    first = next(iter(times))
    return {"unit": "ms", "until": END, "load": [before, load()],
            "sides": [{"name": name, **summary(times[name]), "ms": times[name], "samples": taken[name]} for name in taken],
            "ratios": egress_filter.growth(times), "again": {"of": AGAIN, "over": first, **ratio_of_medians(times[AGAIN], times[first])},
            "stages": {}, "filterNs": egress_filter.filter_ns(times)}


def flood_neighbour(bench: Bench) -> dict:
    def beside(side: str) -> Side:
        return lambda: flood(bench.build, bench.run / "flood", side, FLOOD_TRANSFER)
    return _paired(bench, "P5d", END, {"beside the filter": beside("filter")}, {"beside a plain drop": beside("drop")})


def _path(bench: Bench, row: str, traffic: str, amount: int) -> dict:
    def over(side: str) -> Side:
        return lambda: path(bench.build, bench.run / "path", side, traffic, amount)
    return _paired(bench, row, END, {"filter": over("filter")}, {"nothing": over("none"), "nftables": over("nft")})


def path_flood(bench: Bench) -> dict:
    return _path(bench, "P5b", "flood", PATH_DATAGRAMS)


def path_stream(bench: Bench) -> dict:
    return _path(bench, "P5b-tcp", "stream", FLOOD_TRANSFER)


def attach_gap(bench: Bench) -> dict:
    """The end-to-end test of guests that flood from their first instruction, at the size that is asked for."""
    bench.needs_machines()
    starts = {"microvm": bench.boots, "process": PROCESS_STARTS_PER_BOOT * bench.boots}
    before = load()
    log = hostile_starts(bench.build, bench.guest, starts)
    result = {"unit": "packets", "until": END, "load": [before, load()], "starts": starts,
              "arrived": [line.split("arrived: ", 1)[1] for line in log if "arrived: " in line]}
    if failed := [line for line in log if "FAIL" in line]:
        result["missing"] = "starts without a packet that no rule allows: " + "; ".join(failed)
    return result


def boot_failure(number: int, sample: dict) -> dict | None:
    """How far a boot came that did not reach user code, and whether it was stuck there until its time was up."""
    if not sample["failure"]:
        return None
    timeline = sample.get("timeline", [])
    stage, spent, patience = "SUBMIT", sample.get("gaveUpNs", 0) - sample["startNs"], JOB_LIMIT_S
    for (state, entered), (_, left) in zip(timeline, timeline[1:]):
        if state not in ("STOPPING", "TEARING_DOWN"):
            stage, spent, patience = state, left - entered, STAGE_LIMIT_S.get(state, JOB_LIMIT_S)
    return {"boot": number, "hang": spent >= 0.95e9 * patience, "stage": stage, "stageMs": round(spent / 1e6), "why": sample["failure"]}


def boot_ok(bench: Bench) -> dict:
    bench.needs_machines()
    before, run = load(), bench.job("microvm")
    samples, failures = [], []
    for number in range(1, bench.boots + 1):
        samples.append(run())
        if failure := boot_failure(number, samples[-1]):
            failures.append(failure)
            print(f"\n{failure}", file=sys.stderr)
        print(f"\rP17: {number} of {bench.boots} boots, {len(failures)} not ok", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    times = [milliseconds(sample, FIRST_BYTE) for sample in samples]
    return {"unit": "ms", "until": FIRST_BYTE, "load": [before, load()],
            "boots": bench.boots, "ok": bench.boots - len(failures), "hangs": sum(f["hang"] for f in failures), "failures": failures,
            "stages": stages(samples), "sides": [{"name": "cellrun", **summary(times), "ms": times, "samples": samples}]}


def timeout_overrun(bench: Bench) -> dict:
    before = load()
    run = overrun.Overrun(bench.build / "tools/cellrun/cellrun", bench.run / "cellrund.sock", bench.image, bench.submit().sign)

    def tell(lane: str, done: int, count: int) -> None:
        print(f"\rP10: {lane}: {done} of {count}", end="", file=sys.stderr, flush=True)
    sides, early = [], 0
    for lane, count in (("process", bench.overruns), ("microvm", bench.machine_overruns)):
        if count == 0:
            continue
        if lane == "microvm":
            bench.needs_machines()
        samples = overrun.overruns(run, lane, count, tell)
        early += overrun.early(samples)
        times = overrun.figures(samples)
        sides.append({"name": lane, **summary(times), "ms": times, "samples": samples})
    print(file=sys.stderr)
    return {"unit": "ms", "until": END, "load": [before, load()], "early": early, "stages": {}, "sides": sides}


@dataclasses.dataclass
class Row:
    name: str
    what: str
    measure: Callable[[Bench], dict]


ROWS = {
    "P1": Row("cold_overhead", "microvm lane: submit entered to the first user byte out of the guest, over the same command line "
              "of QEMU with the same kernel, initrd and disk, started raw", cold_overhead),
    "P1b": Row("control_ms", "process lane with network, durable accept and sealed record: submit entered to the first user byte, "
               "over `ctr run --rm` with runc, and over bare `runc run` of the same root file system", control),
    "P1c": Row("containerd_path", "microvm lane with a stand-in that answers at once in place of QEMU: submit entered to the "
               "first byte, over `ctr run --rm` with runc", containerd_path),
    "P3": Row("noop_over_ctr", "process lane with network: submit entered to the sealed record in hand, teardown and scan "
              "included, over the whole of `ctr run --rm` with runc", noop),
    "P5a": Row("filter_ns", "the egress filter's time for a packet by BPF_PROG_TEST_RUN, random addresses, as milliseconds for a million, "
               "beside a program that does nothing; hit is timed one packet a call, with caches as cold as that leaves them; ratios of "
               "the largest policy over the smallest", filter_time),
    "P5b": Row("filter_pps", "a million datagrams out of a cell to 1,000 allowed addresses, as fast as it can send them, through its filter and "
               "the router's table, over the same through nothing, and through nftables with a set of the same addresses and connection "
               "tracking", path_flood),
    "P5b-tcp": Row("filter_stream", "the same for 512 MiB over one TCP connection", path_stream),
    "P5c": Row("attach_gap", "packets that reach a host behind the router and that no rule allows, from guests that flood from their first "
               "instruction; ten starts of the process lane for each boot", attach_gap),
    "P5d": Row("flood_neighbour", "a transfer of 512 MiB out of a cell while its neighbour floods at 100,000 denied packets a second, "
               "over the same beside a program that drops the flood unread", flood_neighbour),
    "P10": Row("timeout_overrun", "from a job's deadline, without grace, to the end of the last task in its cgroup, while it ignores SIGTERM "
               "and spins and four hogs a processor run beside it from the moment it runs", timeout_overrun),
    "P17": Row("boot_ok", "consecutive jobs of the microvm lane, one boot each, that reach user code; a hang is one that was "
               "stuck until its time was up", boot_ok),
}
