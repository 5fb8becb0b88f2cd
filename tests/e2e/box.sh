#!/usr/bin/env bash
# The VMM's box is read from the kernel by the daemon before user code runs: it stands in the record, and a job whose box is not
# as declared ends before its first instruction.
. "$(dirname "$0")/lib.sh"
needs_guest
node_up

submit proven 'echo in a box'
check "the job succeeds" equal "$code" 0
vmm() { field ".lane.vmm.$1"; }
check "the daemon looked before START" equal "$(field '.timeline[] | select(.state == "RUNNING") | .bootTimeNs' | head -n 1 | awk -v at="$(vmm checkedAt.bootTimeNs)" '{ print (at > 0 && at < $1) }')" 1
check "every thread counts" [ "$(vmm threads)" -ge 2 ]
check "no capability, not even in the bounding set" equal "$(vmm effectiveCapabilities) $(vmm boundingCapabilities)" "0000000000000000 0000000000000000"
check "seccomp and no_new_privs" equal "$(vmm seccomp) $(vmm noNewPrivileges)" "2 true"
for kind in mnt pid net ipc uts; do
  check "its $kind namespace is not the host's" [ "$(vmm "namespaces.$kind")" != "$(stat -L -c %d:%i "/proc/$daemon_pid/ns/$kind")" ]
done
check "its network namespace is the cell's" equal "$(vmm namespaces.net)" "$(field '.teardown.created[] | select(.kind == "netns") | .identity' | head -n 1 | cut -d: -f1,2)"
check "its cgroup is the cell's" matches "$(vmm 'cgroups | join(" ")')" "/$uid"
check "its root is its own" [ "$(vmm root)" != "$(stat -c %d:%i /)" ]
check "no open file is a block device" equal "$(vmm 'openFiles | map(select(test("/dev/(sd|vd|nvme|loop|dm-)"))) | length')" 0
check "its command line has a digest" matches "$(vmm argvDigest)" '^sha256:[0-9a-f]{64}$'

# The shim parses what the guest says without a capability; what needs one stays with its broker, which parses nothing.
start shim 'sleep 30'
shim=$(jq -r .shim.pid "$node"/run/containerd/state/io.containerd.runtime.v2.task/cellrun/*"$uid"/cellrun-vm.json)
broker=$(pgrep -P "$shim" -x cellrun-broker)
status() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"; }
capabilities() { echo "$(status "$1" CapPrm) $(status "$1" CapEff) $(status "$1" CapBnd) $(status "$1" CapInh) $(status "$1" CapAmb)"; }
none=0000000000000000 two=0000000000000024  # CAP_KILL, CAP_DAC_READ_SEARCH
check "the shim has no capability" equal "$(capabilities "$shim")" "$none $none $none $none $none"
check "its broker can kill and search, no more" equal "$(capabilities "$broker")" "$two $two $two $none $none"
for pid in "$shim" "$broker"; do
  check "$(cat "/proc/$pid/comm") is under seccomp, with no_new_privs" equal "$(status "$pid" Seccomp) $(status "$pid" NoNewPrivs)" "2 1"
done
cellrun cancel "$uid" >/dev/null
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "and ends its cell as ever" is_clean
check "no broker is left" [ ! -e "/proc/$broker" ]

# Somebody moves a process of theirs into the cell's cgroup while the machine is being made.
tail --pid=$$ -f /dev/null >/dev/null 2>&1 & intruder=$!
spec intruded 'echo user code ran' >"$node/intruded.json"
uid=$(jq -r .metadata.uid "$node/intruded.json")
( for _ in $(seq 1 3000); do
    for procs in /sys/fs/cgroup/*/cellrun/*/"$uid"/cgroup.procs /sys/fs/cgroup/cellrun/*/"$uid"/cgroup.procs; do
      [ -e "$procs" ] && echo "$intruder" >"$procs" 2>/dev/null && exit 0
    done
    read -r -t 0.01 <> <(:) || true
  done; exit 1 ) & watcher=$!
code=0; out=$(cellrun submit "$node/intruded.json" --key "$node/etc/job.key" 2>"$node/intruded.err") || code=$?
check "the intruder was in the cgroup" wait "$watcher"
load_record "$uid"
check "the job does not run" equal "$code/$(field .exit.reason)" "125/VmmStartFailed"
check "no user code ran" equal "$out" ''
check "the message names the property" matches "$(field .exit.message)" 'not as declared: it is not alone in cgroup'
check "and nothing is left" is_clean
kill "$intruder" 2>/dev/null || true
wait "$intruder" 2>/dev/null || true
finish
