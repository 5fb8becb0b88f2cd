# Shared by the end-to-end tests: a private node in a folder of its own, driven by the real programs.
# A test sources this file, calls node_up, and ends with `finish`. Whatever happens, the exit trap stops what was started,
# by pid, removes what was made, and lets cellsweep look for the rest.
#
# Environment: CELLRUN_BUILD (meson build folder), CELLRUN_GUEST_DIR (folder of vmlinux and initrd), TMPDIR.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${CELLRUN_BUILD:-$here/build/test}
guest=${CELLRUN_GUEST_DIR:-$here/build/guest}
node='' daemon_pid='' failures=0 checks=0

skip() { [ "${failures:-0}" = 0 ] || exit 1; echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
[ -x "$build/runtime/daemon/cellrund" ] || skip "needs a build in $build"
for tool in jq nft containerd mkfs.erofs busybox; do command -v "$tool" >/dev/null || skip "needs $tool (tools/packages)"; done
needs_guest() {
  [ -r "$guest/vmlinux" ] && [ -r "$guest/initrd" ] || skip "needs a guest image in $guest (shim/guest/make-image)"
  command -v qemu-system-x86_64 >/dev/null || skip "needs qemu-system-x86_64"
}

# The guest's image with PROGRAM as /init, which then becomes the real one, /cell-init. A later archive replaces files of an earlier.
taken_over_guest() { # PROGRAM
  command -v cpio >/dev/null || skip "needs cpio"
  local own=$build/tests/guests/with-${1##*/}
  rm -rf "$own" && mkdir -p "$own/initrd.d"
  (cd "$own/initrd.d" && cpio --quiet -id init <"$guest/initrd" && mv init cell-init)
  cp "$1" "$own/initrd.d/init"
  { cat "$guest/initrd"; (cd "$own/initrd.d" && printf 'cell-init\ninit\n' | cpio --quiet -o -H newc); } >"$own/initrd"
  ln -s "$guest/vmlinux" "$own/vmlinux"
  cp "$guest/manifest.json" "$own/manifest.json"
  guest=$own
}

say() { printf '%s  %s\n' "$(date -u +%H:%M:%S)" "$*"; }
check() { # DESCRIPTION COMMAND...
  local what=$1; shift
  checks=$((checks + 1))
  if "$@"; then say "ok    $what"; else say "FAIL  $what"; failures=$((failures + 1)); fi
}
equal() { [ "$1" = "$2" ] || { echo "      expected: $2"; echo "      got:      $1"; return 1; }; }
matches() { [[ "$1" =~ $2 ]] || { echo "      expected to match: $2"; echo "      got:               $1"; return 1; }; }

cellrun() { "$build/tools/cellrun/cellrun" "$@"; }

start_daemon() {
  "$build/runtime/daemon/cellrund" --config "$node/etc/config.toml" >>"$node/cellrund.log" 2>&1 </dev/null &
  daemon_pid=$!
  local i
  for i in $(seq 1 400); do
    cellrun capacity >/dev/null 2>&1 && return 0
    [ -d "/proc/$daemon_pid" ] || break
    read -r -t 0.25 <> <(:) || true
  done
  tail -n 20 "$node/cellrund.log"
  echo "cellrund did not come up"
  return 1
}
stop_daemon() {
  [ -n "$daemon_pid" ] || return 0
  kill -TERM "$daemon_pid" 2>/dev/null || true
  timeout 90 tail --pid="$daemon_pid" -f /dev/null || { echo "cellrund does not stop"; kill -KILL "$daemon_pid"; return 1; }
  wait "$daemon_pid" 2>/dev/null || true
  daemon_pid=''
}

node_up() { # [extra configuration, TOML sections]
  node=$(mktemp -d "${TMPDIR:-/tmp}/cellrun-e2e.XXXXXX")
  trap node_down EXIT
  mkdir -p "$node/libexec" "$node/etc/trust.d" "$node/state" "$node/run"
  ln -s "$build/shim/containerd-shim-cellrun-v2" "$build/runtime/daemon/keeper/cellrun-keeper" \
    "$build/runtime/image/cellrun-unpack" "$build/runtime/cell/cellrun-collect" "$build/netpolicy/cellrun-resolver" "$build/shim/guest/cell-init" "$build/tools/cellrun/cellrun-image" "$node/libexec/"
  # Every program of this test reads this configuration through the environment, so that no flag can be forgotten.
  export CELLRUN_PATHS_STATE=$node/state CELLRUN_PATHS_RUN=$node/run CELLRUN_PATHS_TRUST=$node/etc/trust.d
  export CELLRUN_PATHS_NODE_KEY=$node/etc/node.key CELLRUN_PATHS_NODE_PUB=$node/etc/node.pub
  export CELLRUN_PATHS_SHIM=$node/libexec CELLRUN_PATHS_GUEST=$guest
  # Uids that no other node of this host uses: each would take the other's VMMs for residue.
  export CELLRUN_LANES_UID_BASE=${CELLRUN_LANES_UID_BASE:-$((2000000 + $$ % 400 * 10000))}
  printf '[lanes]\nallow_emulated_tier2 = true\n%s\n' "${1:-}" >"$node/etc/config.toml"
  # A boot probe costs seconds; its answer holds for this boot and guest, so the tests of one run share it.
  mkdir -p "$build/e2e-probe" "$node/state/shim" && cp -a "$build/e2e-probe/." "$node/state/shim/" 2>/dev/null || true
  cellrun keygen "$node/etc/node" >/dev/null
  cellrun keygen "$node/etc/job" >/dev/null
  cellrun trust add "$node/etc/job.pub" --namespace test --min-tier 0 --max-concurrent 64 >/dev/null
  start_daemon
  "$here/tools/demo-image" "$node/demo.tar" >/dev/null
  image=$(cellrun image import "$node/demo.tar" | tail -n 1)
}

node_down() {
  local status=$?
  trap - EXIT
  set +e
  if [ -n "$node" ]; then
    [ "$status" = 0 ] || { echo "--- cellrund.log"; tail -n 40 "$node/cellrund.log"; }
    stop_daemon || status=1
    # While containerd still answers: a source that cannot be read makes the sweep UNKNOWN.
    if ! "$build/tools/cellsweep/cellsweep" --run-dir "$node/run" --state-dir "$node/state" >"$node/sweep.log" 2>&1; then
      cat "$node/sweep.log"
      echo "FAIL  cells left residue"
      status=1
    fi
    "$build/runtime/daemon/keeper/cellrun-keeper" --stop --run-dir "$node/run" || status=1
    "$build/runtime/daemon/cellrund" --config "$node/etc/config.toml" --remove-node || status=1
    if grep -F "$node" /proc/self/mountinfo || pgrep -af "$node"; then
      echo "FAIL  the node left mounts or processes"
      status=1
    fi
    cp -a "$node/state/shim/." "$build/e2e-probe/" 2>/dev/null
    rm -rf --one-file-system "$node"
  fi
  exit "$status"
}

# A jobspec on stdout. spec NAME COMMAND-AS-SH-TEXT [jq filter that changes it]
spec() {
  local now later
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  later=$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%SZ)
  jq -n --arg name "$1" --arg sh "$2" --arg image "$image" --arg now "$now" --arg later "$later" --arg uid "$(cellrun keygen --uuid)" \
    '{apiVersion: "cellrun.dev/v1", kind: "Job",
      metadata: {name: $name, uid: $uid, namespace: "test", issuedAt: $now, expiresAt: $later},
      spec: {minTier: 2, lane: "microvm", container: {image: $image, command: ["/bin/sh", "-c"], args: [$sh]},
        resources: {limits: {cpu: "1", memory: "128Mi", pids: 64}}, activeDeadlineSeconds: 60, startDeadlineSeconds: 120}}' |
    jq -c "${3:-.}"
}
process_lane='.spec.lane = "process" | .spec.minTier = 0'

# submit NAME COMMAND [jq filter]: runs to the end. Sets uid, out, err, code and record (the predicate).
submit() {
  spec "$@" >"$node/$1.json"
  uid=$(jq -r .metadata.uid "$node/$1.json")
  code=0
  cellrun submit "$node/$1.json" --key "$node/etc/job.key" >"$node/$1.out" 2>"$node/$1.err" || code=$?
  out=$(cat "$node/$1.out") err=$(cat "$node/$1.err")
  load_record "$uid"
}
# start NAME COMMAND [jq filter]: returns once it runs. Sets uid.
start() {
  spec "$@" >"$node/$1.json"
  uid=$(cellrun submit -d "$node/$1.json" --key "$node/etc/job.key")
  wait_state "$uid" RUNNING
}
wait_state() { # UID STATE
  local i state
  for i in $(seq 1 600); do
    state=$(cellrun inspect "$1" --json | jq -r .state)
    [ "$state" != "$2" ] || return 0
    case $state in SUCCEEDED|FAILED|TIMED_OUT|CANCELLED|LOST|REJECTED) break ;; esac
    read -r -t 0.1 <> <(:) || true
  done
  echo "job $1 is $state, not $2"
  return 1
}
# The microvm lane: what the shim reports of a running cell, and when the kernel says that its VMM is gone.
vmm_pid() { jq -r .vmm.pid "$node"/run/containerd/state/io.containerd.runtime.v2.task/cellrun/*"$1"/cellrun-vm.json; }
deadline_of() { jq -r .deadlineBootNs "$node"/run/containerd/state/io.containerd.runtime.v2.task/cellrun/*"$1"/cellrun-vm.json; }
boot_ns() { awk '{printf "%.0f\n", $1 * 1000000000}' /proc/uptime; }
# Waits for a pid to go and prints how many milliseconds after deadline + grace that was.
overrun_ms() { # PID DEADLINE_NS [GRACE_SECONDS, 2]
  timeout 60 tail --pid="$1" -s 0.02 -f /dev/null
  echo $((($(boot_ns) - $2 - ${3:-2} * 1000000000) / 1000000))
}
# Not a second late; and, unless the job may end of itself, not early either.
in_time() { # MILLISECONDS [or-earlier]
  [ "$1" -le 1000 ] && { [ "$1" -ge -100 ] || [ "${2:-}" = or-earlier ]; } || { echo "      $1 ms after deadline + grace"; return 1; }
}
load_record() { # UID: sets record to the predicate of its sealed statement
  record=$(cellrun evidence export "$1" 2>/dev/null | jq -r .payload | base64 -d | jq -c .predicate) || record='{}'
}
field() { jq -r "$1" <<<"$record"; }
is_clean() { equal "$(field .teardown.verdict)" CLEAN || { field '.teardown.residue, .teardown.unknown'; return 1; }; }

# Everything that a node may leave behind on a host, one line a thing. For comparing before and after.
host_state() {
  local tag
  tag=$(basename "$node"/run/netns/cr-*-router) tag=${tag#cr-} tag=${tag%-router}
  echo "qemu $(pgrep -fc "qemu-system.*$node" || true)"
  echo "cgroups $(find /sys/fs/cgroup -type d -path "*/cellrun/$tag/*" 2>/dev/null | wc -l)"
  bpftool -j prog list 2>/dev/null | jq -r '[.[] | select(.name // "" | startswith("cr"))] | length'
  bpftool -j map list 2>/dev/null | jq -r '[.[] | select(.name // "" | startswith("cr"))] | length'
  nsenter --net="$(echo "$node"/run/netns/*-router)" ip -o link 2>/dev/null | wc -l
  grep -cF "$node" /proc/self/mountinfo || true
  ls "$node/run/netns" "$node/run/cells" | sort
}

# A job larger than the node, under a key that may ask for as much: the refusal is the node's. [jq filter]
check_never_fits() {
  local code=0 err
  cellrun keygen "$node/etc/big" >/dev/null
  cellrun trust add "$node/etc/big.pub" --namespace test --min-tier 0 --memory 2Ti >/dev/null
  spec huge true "${1:-.} | .spec.resources.limits.memory = \"1Ti\"" >"$node/huge.json"
  err=$(cellrun submit "$node/huge.json" --key "$node/etc/big.key" 2>&1 >/dev/null) || code=$?
  check "a job that can never fit: exit code 75" equal "$code" 75
  check "a job that can never fit: NoCapacity" matches "$err" NoCapacity
}

finish() {
  say "$checks checks, $failures failed"
  [ "$failures" = 0 ]
}
