#!/usr/bin/env bash
# The files of a job: /task for reading, /workspace as a private copy, in both lanes; and what is refused on the way there.
. "$(dirname "$0")/lib.sh"
needs_guest
command -v python3 >/dev/null || skip "needs python3"
node_up $'\n[inputs]\nmax_archive_bytes = 1048576'
store=$node/state/inputs

mkdir -p "$node/task/sub" "$node/seed/sub"
echo 'the task' >"$node/task/data.txt"
printf '#!/bin/sh\necho "from a program, as $(id -u)"\n' >"$node/task/sub/run.sh"; chmod 0755 "$node/task/sub/run.sh"
ln -s data.txt "$node/task/link"
echo 'the seed' >"$node/seed/a.txt"; chmod 0600 "$node/seed/a.txt"
echo 'deeper' >"$node/seed/sub/b.txt"

# with_files NAME COMMAND JQ-FILTER FLAGS...: as submit, with flags of `cellrun submit` more.
with_files() {
  spec "$1" "$2" "$3" >"$node/$1.json"
  uid=$(jq -r .metadata.uid "$node/$1.json")
  code=0
  cellrun submit "$node/$1.json" --key "$node/etc/job.key" "${@:4}" >"$node/$1.out" 2>"$node/$1.err" || code=$?
  out=$(cat "$node/$1.out") err=$(cat "$node/$1.err")
  load_record "$uid"
}
both=(--task "$node/task" --workspace "$node/seed")

try_lane() { # NAME JQ-FILTER
  with_files "$1-use" 'cat /task/data.txt /task/link; /task/sub/run.sh; touch /task/new 2>/dev/null || echo "task is read-only"
    cat /workspace/a.txt; echo changed >/workspace/a.txt; rm /workspace/sub/b.txt; touch /workspace/new; cat /workspace/a.txt
    ls /workspace; ls /workspace/sub | wc -l; pwd' "$2 | .spec.container.workingDir = \"/workspace\"" "${both[@]}"
  check "$1: the job succeeds" equal "$code $err" '0 '
  check "$1: /task is what was given, /workspace starts from the seed and can be changed" equal "$out" \
    $'the task\nthe task\nfrom a program, as 65534\ntask is read-only\nthe seed\nchanged\na.txt\nnew\nsub\n0\n/workspace'
  check "$1: CLEAN" is_clean
  check "$1: the record names the archives" equal "$(field '.inputs | [.task, .workspace] | map(test("^sha256:[0-9a-f]{64}$")) | all')" true
  check "$1: and the very image" equal "$(field .inputs.imageDigest)" "sha256:$(sha256sum "$store"/images/*.erofs | cut -d' ' -f1 | grep -F "$(field '.inputs.imageDigest | ltrimstr("sha256:")')")"
  check "$1: the spec was signed with them" equal "$(cellrun evidence export "$uid" | jq -r '.payload' | base64 -d | jq -r .predicate.inputs.task)" "$(task_digest)"
  with_files "$1-again" 'cat /workspace/a.txt; ls /workspace /workspace/sub; wc -c </workspace/sub/b.txt' "$2" --workspace "$node/seed"
  check "$1: another job sees the seed, and nothing of the first one" equal "$out" $'the seed\n/workspace:\na.txt\nsub\n\n/workspace/sub:\nb.txt\n7'
  check "$1: and no /task" equal "$(field .inputs.task)" null
  with_files "$1-full" 'dd if=/dev/zero of=/workspace/big bs=64k count=64 2>/dev/null || echo full; ls -l /task | head -n 1 >/dev/null' \
    "$2 | .spec.volumes.scratch.size = \"1Mi\"" "${both[@]}"
  check "$1: /workspace holds as much as scratch.size says" equal "$out" full
  with_files "$1-mounts" 'cut -d" " -f2 /proc/mounts; echo --; cat /proc/mounts' "$2" "${both[@]}"
  check "$1: only declared mounts" equal "$(sed '/^--$/,$d' <<<"$out" | grep -vE '^/(proc|sys|dev)(/|$)' | sort)" $'/\n/scratch\n/task\n/workspace'
  check "$1: none of them names a path of the host" equal "$(sed '1,/^--$/d' <<<"$out" | grep -cE "$node|/var/lib|/run/cellrun|containerd|docker" || true)" 0
}
task_digest() { cellrun sign "$node/plain.json" --key "$node/etc/job.key" --task "$node/task" | jq -r .payload | base64 -d | jq -r .spec.volumes.task.digest; }
spec plain true >"$node/plain.json"
try_lane process "$process_lane"
try_lane microvm .

with_files root 'touch /task/new || echo no; mount -o remount,rw /task 2>/dev/null; touch /task/new || echo still no; ls /dev | grep -c vd' \
  '.spec.container.securityContext = {runAsUser: 0, capabilities: ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]}' "${both[@]}"
check "not even the guest's root writes to /task" equal "$out" $'no\nstill no\n0'
check "and the job was no failure" is_clean

# Refused before anything is accepted.
with_files missing true . --task "$node/nowhere"
check "a folder that is not there: 64" equal "$code" 64
check "it is named" matches "$err" "$node/nowhere"
mkdir "$node/odd"; mkfifo "$node/odd/pipe"
with_files fifo true . --task "$node/odd"
check "a FIFO in the folder: 64" equal "$code" 64
check "it is named, and why" matches "$err" 'odd/pipe: a FIFO'
mkdir "$node/large"; head -c 2000000 /dev/zero >"$node/large/file"
with_files large true . --task "$node/large"
check "too large for the node: not accepted" [ "$code" != 0 ]
check "it says which setting" matches "$err" 'inputs.max_archive_bytes'
wrong=sha256:$(printf '0%.0s' $(seq 64))
with_files other true ".spec.volumes.task.digest = \"$wrong\"" --task "$node/task"
check "another digest in the spec than the folder has: 64" equal "$code" 64
check "both are told" matches "$err" "$(task_digest).*$wrong"
spec signed true >"$node/signed.json"
cellrun sign "$node/signed.json" --key "$node/etc/job.key" --out "$node/signed.dsse"
code=0; err=$(cellrun submit "$node/signed.dsse" --task "$node/task" 2>&1 >/dev/null) || code=$?
check "files for a signed spec that names none: 64" equal "$code" 64
check "it says what to do" matches "$err" 'cellrun sign --task'
with_files gone true ".spec.volumes.task.digest = \"$wrong\""
check "content that nobody uploaded: 77" equal "$code" 77
check "InputsNotFound, and how to bring it" matches "$err" 'InputsNotFound(.|'$'\n'')*--task'
check "the refusal is on record" equal "$(field .exit.reason)" InputsNotFound

# An upload that ends early.
ls "$store/sha256" >"$node/before"
python3 - "$node/run/cellrund.sock" "$wrong" <<'PY'
import socket, struct, sys
def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128]); n >>= 7
    return out + bytes([n])
def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data
def piece(offset, data):
    body = field(1, sys.argv[2].encode()) + varint(2 << 3) + varint(100000) + varint(3 << 3) + varint(offset) + field(4, data)
    return field(20, body)
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
for offset, data in ((0, b""), (0, b"x" * 30000), (30000, b"x" * 30000)):
    request = piece(offset, data)
    s.sendall(struct.pack(">I", len(request)) + request)
    assert len(s.recv(65536)) > 4
s.close()
PY
check "the daemon still answers" cellrun capacity >/dev/null
ls "$store/sha256" >"$node/after"
check "an interrupted upload leaves no file" equal "$(cat "$node/after")" "$(cat "$node/before")"
check "nor an open one" equal "$(find "/proc/$daemon_pid/fd" -lname "$store/*deleted*" | wc -l)" 0

# Refused before the cell starts.
archive=$store/sha256/$(task_digest | cut -d: -f2)
rm -f "$store"/images/*
printf 'x' | dd of="$archive" bs=1 seek=512 conv=notrunc 2>/dev/null
with_files tampered 'echo ran' . --task "$node/task"
check "changed bytes on the node: the start is refused" equal "$code $out" '125 '
check "InputsDigestMismatch" equal "$(field .exit.reason)" InputsDigestMismatch
check "no lane was started" equal "$(field .lane)" null
check "CLEAN all the same" equal "$(field '.teardown.verdict // "CLEAN"')" CLEAN
with_files healed 'cat /task/data.txt' "$process_lane" --task "$node/task"
check "the next upload brings the right ones" equal "$out" 'the task'
image_file=$(ls "$store"/images/*.erofs | head -n 1)
chmod 0600 "$image_file"; printf 'x' | dd of="$image_file" bs=1 seek=4200 conv=notrunc 2>/dev/null
with_files rebuilt 'cat /task/data.txt' "$process_lane" --task "$node/task"
check "a changed image is made again" equal "$out" 'the task'

python3 - "$node" <<'PY'
import io, sys, tarfile
def tar(name, *entries):
    with tarfile.open(f"{sys.argv[1]}/{name}.tar", "w") as out:
        for info, data in entries:
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
def entry(name, kind=tarfile.REGTYPE, mode=0o644, **more):
    info = tarfile.TarInfo(name); info.type = kind; info.mode = mode
    for key, value in more.items():
        setattr(info, key, value)
    return info
tar("device", (entry("disk", tarfile.BLKTYPE, devmajor=8), b""))
tar("climb", (entry("../up"), b"x"))
tar("fifo", (entry("pipe", tarfile.FIFOTYPE), b""))
tar("good", (entry("./.wh.name"), b"plain\n"), (entry("suid", mode=0o4755, uid=12345, gid=12345), b"x"))
PY
for bad in device climb fifo; do
  with_files "bad-$bad" true "$process_lane" --task "$node/$bad.tar"
  check "an archive with a $bad: InputsInvalid" equal "$code $(field .exit.reason)" '125 InputsInvalid'
done
with_files good 'cat /task/.wh.name; ls -ln /task/suid | cut -c 1-10; stat -c %u /task/suid' \
  "$process_lane | .spec.container.securityContext = {runAsUser: 70000, runAsGroup: 70000}" --task "$node/good.tar"
check "a plain archive is taken: names are names, owners and setuid bits do not count" equal "$out" $'plain\n-rwxr-xr-x\n70000'
finish
