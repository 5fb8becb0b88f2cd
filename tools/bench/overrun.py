"""How long a cell outlives its deadline: from the deadline on record to the moment at which the kernel says that its cgroup
holds no task any more. The command ignores SIGTERM and spins, there is no grace period, and as soon as the cells run, four
times as many hogs as there are processors run beside them. The clock is this process's, at real-time priority: how late it
is woken is part of each figure."""
import contextlib
import glob
import json
import math
import os
import pathlib
import select
import subprocess
import time
from collections.abc import Iterator

import jobs
from sampler import Missing

HOGS_PER_PROCESSOR = 4
SPIN = ["/bin/sh", "-c", "trap '' TERM; while :; do :; done"]
ACTIVE_S = {"process": 20, "microvm": 30}  # longer than it takes to start a batch
BATCH = {"process": 8, "microvm": 2}
START_LIMIT_S, END_LIMIT_S, CLOSE_LIMIT_S = 240, 60, 120
_LEASH = ["setpriv", "--pdeathsig", "KILL"]


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def _first_in_line() -> Iterator[None]:
    kept = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    except PermissionError as error:
        raise Missing(f"real-time priority for the clock: {error}") from error
    try:
        yield
    finally:
        os.sched_setscheduler(0, *kept)


@contextlib.contextmanager
def _hogs() -> Iterator[None]:
    # SCHED_RESET_ON_FORK is not set: what is started here gives the priority back first.
    command = [*_LEASH, "chrt", "--other", "0", "/bin/sh", "-c", "while :; do :; done"]
    running = [subprocess.Popen(command) for _ in range(HOGS_PER_PROCESSOR * os.cpu_count())]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()
        for hog in running:
            hog.wait()


def _populated(file) -> bool | None:
    """None once the group is gone, which it is only after its last task."""
    try:
        file.seek(0)
        return "populated 1" in file.read()
    except OSError:
        return None


class Overrun:
    def __init__(self, cellrun: pathlib.Path, socket: pathlib.Path, image: str, sign):
        self._cellrun, self._socket, self._image, self._sign = str(cellrun), str(socket), image, sign

    def _ask(self, *argv: str, limit_s: int = 60) -> str:
        done = subprocess.run([self._cellrun, *argv, "--socket", self._socket], capture_output=True, text=True, check=False, timeout=limit_s)
        return done.stdout.strip()

    def _spec(self, lane: str) -> dict:
        spec = jobs.spec(self._image, lane, SPIN)
        spec["spec"] |= {"activeDeadlineSeconds": ACTIVE_S[lane], "terminationGracePeriodSeconds": 0, "startDeadlineSeconds": START_LIMIT_S}
        return spec

    def _running(self, uids: list[str]) -> dict:
        """The open cgroup.events of each cell, once all of them run. One that is over by then is left out."""
        tree = next((place for place in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{place}/cgroup.controllers")), None)
        if tree is None:
            raise Missing("a cgroup v2 tree on this host, whose cgroup.events tells of the last task")
        events, waiting, until = {}, set(uids), time.monotonic() + START_LIMIT_S
        while waiting and time.monotonic() < until:
            for uid in set(uids) - set(events):
                for path in glob.glob(f"{tree}/cellrun/*/{uid}/cgroup.events"):
                    with contextlib.suppress(FileNotFoundError):
                        events[uid] = open(path, encoding="ascii")
            listed = json.loads(self._ask("ps", "-a", "--json") or '{"jobs": []}')["jobs"]
            waiting -= {job["uid"] for job in listed if job["state"] not in ("ACCEPTED", "QUEUED", "PREPARING", "STARTING")}
        return events

    def _deaths(self, events: dict) -> dict[str, int]:
        # A cell that is over before the clock runs has no time that was seen.
        events = {uid: file for uid, file in events.items() if _populated(file)}
        died: dict[str, int] = {}
        poll = select.poll()
        for file in events.values():
            poll.register(file, select.POLLPRI)
        until = time.monotonic() + END_LIMIT_S
        with _first_in_line(), _hogs():
            while len(died) < len(events) and time.monotonic() < until:
                at = now_ns()
                for uid, file in events.items():
                    if uid not in died and not _populated(file):
                        died[uid] = at
                        poll.unregister(file)
                if len(died) < len(events):
                    poll.poll(1000)
        return died

    def batch(self, lane: str, count: int) -> list[dict]:
        """One sample a cell: startNs is its deadline, endNs its last task's end."""
        uids = [self._ask("submit", "-d", self._sign(self._spec(lane))) for _ in range(count)]
        samples = []
        events = self._running(uids)
        died = self._deaths(events)
        for uid in uids:
            self._ask("wait", uid, limit_s=CLOSE_LIMIT_S)
            record = json.loads(self._ask("evidence", "show", uid, "--json") or "{}")
            samples.append(_sample(uid, record.get("predicate", record), died.get(uid)))
        for file in events.values():
            file.close()
        return samples


def _sample(uid: str, predicate: dict, died: int | None) -> dict:
    end = predicate.get("exit", {})
    deadline = end.get("deadline", {}).get("set", {}).get("bootTimeNs", 0)
    failure = ""
    if end.get("reason") != "DeadlineExceeded":
        failure = f"{end.get('reason', 'no record')}: {end.get('message', '')}"
    elif died is None:
        failure = "it was not dead in time, or over before the clock ran"
    elif predicate.get("teardown", {}).get("verdict") != "CLEAN":
        failure = "the teardown was not CLEAN"
    return {"uid": uid, "startNs": deadline, "endNs": died or 0, "failure": failure}


def overruns(run: Overrun, lane: str, count: int, tell) -> list[dict]:
    samples: list[dict] = []
    while len(samples) < count:
        samples += run.batch(lane, min(BATCH[lane], count - len(samples)))
        tell(lane, len(samples), count)
    return samples


def early(samples: list[dict]) -> int:
    return sum(1 for s in samples if not s["failure"] and s["endNs"] < s["startNs"])


def figures(samples: list[dict]) -> list[float]:
    return [math.inf if s["failure"] else (s["endNs"] - s["startNs"]) / 1e6 for s in samples]
