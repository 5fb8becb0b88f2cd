"""The peers on the host: runc by itself, and runc through containerd's own client. Both get the node's image and the
node's own containerd, and less to do than a job has: no signature, no network, no record, no limits."""
import datetime
import json
import os
import pathlib
import shutil
import subprocess

from jobs import ARGS, EXPECTED
from sampler import Missing, Sampler

LIMIT_S = 60


def _tool(name: str) -> str:
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise Missing(f"{name} is not installed (tools/packages)")
    return path


def _run(*argv: str | pathlib.Path, cwd: pathlib.Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{os.path.basename(argv[0])} {argv[1]}: {done.stderr.strip()[-300:]}")
    return done.stdout


class Ctr:
    """`ctr run --rm` with runc, in a namespace of the bench's own, which tools/bench/node.sh removes with the node."""

    def __init__(self, sampler: Sampler, node: pathlib.Path, run: pathlib.Path, namespace: str):
        self._sampler = sampler
        self._ctr = [_tool("ctr"), "--address", str(run / "containerd/containerd.sock"), "--namespace", namespace]
        self._namespace = namespace
        self._number = 0
        _tool("runc")
        _run(*self._ctr, "images", "import", node / "demo.tar")
        self._image = _run(*self._ctr, "images", "ls", "-q").split()[0]

    def __call__(self) -> dict:
        self._number += 1
        return self._sampler.command(
            [*self._ctr, "run", "--rm", self._image, f"{self._namespace}-{self._number}", *ARGS], EXPECTED, LIMIT_S)


class Runc:
    """`runc run` of an unpacked root file system."""

    def __init__(self, sampler: Sampler, node: pathlib.Path, prefix: str):
        self._sampler = sampler
        self._runc = [_tool("runc"), "--root", str(node / "runc")]
        self._prefix = prefix
        self._number = 0
        self._bundle = node / "bundle"
        if not self._bundle.exists():
            self._unpack(node)

    def _unpack(self, node: pathlib.Path) -> None:
        layout, rootfs = node / "layout", self._bundle / "rootfs"
        layout.mkdir()
        rootfs.mkdir(parents=True)
        _run("/bin/tar", "-xf", node / "demo.tar", cwd=layout)
        index = json.loads((layout / "index.json").read_text())
        blobs = layout / "blobs/sha256"
        manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
        for layer in manifest["layers"]:
            _run("/bin/tar", "-xzf", blobs / layer["digest"].removeprefix("sha256:"), cwd=rootfs)
        _run(*self._runc, "spec", cwd=self._bundle)
        path = self._bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"] |= {"terminal": False, "args": ARGS}
        path.write_text(json.dumps(config))

    def __call__(self) -> dict:
        self._number += 1
        return self._sampler.command([*self._runc, "run", f"{self._prefix}-{self._number}"], EXPECTED, LIMIT_S,
                                     cwd=str(self._bundle))


class Submit:
    """`cellrun submit` as a command: what a user's shell waits for, the client's own start included."""

    def __init__(self, sampler: Sampler, build: pathlib.Path, node: pathlib.Path, run: pathlib.Path, spec: dict):
        self._sampler = sampler
        self._cellrun = str(build / "tools/cellrun/cellrun")
        self._node = node
        self._socket = str(run / "cellrund.sock")
        self._spec = spec

    def __call__(self) -> dict:
        # Signed beforehand: `ctr` signs nothing either.
        return self._sampler.command(
            [self._cellrun, "submit", self.sign(self._spec), "--socket", self._socket], EXPECTED, LIMIT_S)

    def sign(self, spec: dict) -> str:
        """The path of an envelope of this spec with a uid and times of its own."""
        now = datetime.datetime.now(datetime.timezone.utc)
        times = {"issuedAt": now, "expiresAt": now + datetime.timedelta(hours=1)}
        metadata = spec["metadata"] | {"uid": _run(self._cellrun, "keygen", "--uuid").strip()}
        metadata |= {key: time.strftime("%Y-%m-%dT%H:%M:%SZ") for key, time in times.items()}
        path, envelope = self._node / "spec.json", self._node / "envelope.json"
        path.write_text(json.dumps(spec | {"metadata": metadata}))
        envelope.write_text(_run(self._cellrun, "sign", path, "--key", self._node / "etc/job.key"))
        return str(envelope)
