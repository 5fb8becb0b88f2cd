#!/usr/bin/env bash
# The shim under a containerd of its own, driven by `ctr`: what a user of io.containerd.cellrun.v2 sees, and what is left
# afterwards (nothing).
#
#   CELLRUN_BUILD      build folder (default: build)
#   CELLRUN_GUEST_DIR  folder with vmlinux and initrd (shim/guest/make-image)
#   CELLRUN_TEST_ONLY  run only the cases whose name matches this pattern
#
# Exit: 0 all passed, 1 something failed, 77 a facility is missing (it says which).
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${CELLRUN_BUILD:-$here/../../build}" 2>/dev/null && pwd) || { echo "SKIP: no build folder"; exit 77; }
guest=${CELLRUN_GUEST_DIR:-${CELLRUN_GUEST:-$build/guest}}
only=${CELLRUN_TEST_ONLY:-.}

skip() { echo "SKIP: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
[ -r "$guest/vmlinux" ] && [ -r "$guest/initrd" ] || skip "no guest image in $guest (CELLRUN_GUEST_DIR)"
[ -x "$build/shim/containerd-shim-cellrun-v2" ] || skip "the shim is not built"
for tool in containerd ctr qemu-system-x86_64 mkfs.erofs busybox jq ip script; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done

dir=$(mktemp -d /tmp/shim-e2e-XXXXXX)
name=e2e$$   # every task, namespace and link of this run begins with it
bundles=$dir/state/io.containerd.runtime.v2.task/default
containerd_pid=
failures=0

ctr_() { ctr -a "$dir/c.sock" "$@"; }
# Until the command succeeds, at most $1 seconds.
within() {
  local seconds=$1 end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "  not within $seconds s: $*"; return 1; }
    read -r -t 0.1 <> <(:) || true
  done
}
start_containerd() {
  # One process group of its own, so that its pid is the one to kill.
  PATH=$dir/bin:$PATH CELLRUN_SHIM_CONFIG=$dir/shim.toml containerd -c "$dir/config.toml" >>"$dir/containerd.log" 2>&1 &
  containerd_pid=$!
  within 30 ctr_ version
}
vmm_pid() { cut -d' ' -f1 "$bundles/$1/cellrun-vmm.pid"; }
stopped() { ctr_ tasks ls | grep -q "^$1 .*STOPPED"; }
absent() { ! ctr_ tasks ls | grep -q "^$1 "; }
no_shim() { ! pgrep -f -- "-id $name-.* serve"; }
dead() { ! { [ -e "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status"; }; }

cleanup() {
  local id pid
  for id in $(ctr_ tasks ls -q 2>/dev/null); do
    ctr_ tasks kill -s KILL "$id" >/dev/null 2>&1; within 10 stopped "$id" >/dev/null; ctr_ tasks rm -f "$id" >/dev/null 2>&1
  done
  for id in $(ctr_ containers ls -q 2>/dev/null); do ctr_ containers rm "$id" >/dev/null 2>&1; done
  for pid in "$bundles"/*/cellrun-vmm.pid; do [ -e "$pid" ] && kill -9 "$(cut -d' ' -f1 "$pid")" 2>/dev/null; done
  [ -z "$containerd_pid" ] || { kill "$containerd_pid" 2>/dev/null; wait "$containerd_pid" 2>/dev/null; }
  ip link del "${name}h" 2>/dev/null
  ip netns del "$name" 2>/dev/null
  [ "$failures" = 0 ] || { echo "--- containerd.log"; tr -d '\0' <"$dir/containerd.log" | grep -av level=debug | tail -n 30; }
  rm -rf "$dir"
}
trap cleanup EXIT

check() {  # check WHAT EXPECTED ACTUAL
  [ "$2" = "$3" ] || { echo "  $1: expected '$2', got '$3'"; return 1; }
}
runtime=(--runtime io.containerd.cellrun.v2)
# run ID [flags] -- CMD: in the foreground
run() {
  local id=$1 flags=(); shift
  while [ "$1" != -- ]; do flags+=("$1"); shift; done; shift
  timeout 180 "${ctr[@]}" run --rm "${runtime[@]}" "${flags[@]}" "$image" "$id" "$@"
}
ctr=(ctr -a "$dir/c.sock")
detached() {
  local id=$1 flags=(); shift
  while [ "$1" != -- ]; do flags+=("$1"); shift; done; shift
  timeout 180 "${ctr[@]}" run -d "${runtime[@]}" "${flags[@]}" "$image" "$id" "$@"
}
remove() { ctr_ tasks rm "$1" >/dev/null 2>&1; ctr_ containers rm "$1"; }

mkdir -p "$dir"/{root,state,bin,shim}
ln -s "$build/shim/containerd-shim-cellrun-v2" "$dir/bin/"
cat >"$dir/config.toml" <<TOML
version = 2
root = "$dir/root"
state = "$dir/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "$dir/c.sock"
[ttrpc]
address = "$dir/c.sock.ttrpc"
TOML
cat >"$dir/shim.toml" <<TOML
kernel = "$guest/vmlinux"
initrd = "$guest/initrd"
accel = "${CELLRUN_TEST_ACCEL:-tcg}"
state_dir = "$dir/shim"
uid_range = [$((2000000000 + $$ * 100)), 100]
boot_timeout_seconds = 150
TOML
start_containerd || exit 1
image=$("$here/../../tools/demo-image" --name registry.local/e2e/busybox "$dir/image.tar") && ctr_ images import "$dir/image.tar" >/dev/null || exit 1

# ---------------------------------------------------------------------------------------------------------------------
case_output_and_exit_code() {
  local out code
  out=$(run "$name-a" -- /bin/sh -c 'echo out; echo err >&2; exit 42' 2>"$dir/err"); code=$?
  check "exit code" 42 $code && check stdout out "$out" && check stderr err "$(grep -v level= "$dir/err")"
}
case_command_not_found_is_127() {
  run "$name-b" -- /no/such/program 2>/dev/null; check "exit code" 127 $?
}
case_a_signal_is_128_and_its_number() {
  run "$name-c" -- /bin/sh -c 'kill -SEGV $$' 2>/dev/null; check "exit code" 139 $?
}
case_stdin_reaches_the_guest_and_ends() {
  local want got
  want=$(seq 1 20000 | sha256sum); got=$(seq 1 20000 | run "$name-d" -- /bin/cat | sha256sum)
  check digest "$want" "$got"
}
case_a_megabyte_of_output_arrives_whole() {
  local want got
  want=$(seq 1 200000 | sha256sum); got=$(run "$name-e" -- /bin/sh -c "seq 1 200000" | sha256sum)
  check digest "$want" "$got"
}
case_environment_folder_and_read_only_root_are_honoured() {
  local out
  out=$(run "$name-f" --env WHO=me --cwd /usr --read-only -- /bin/sh -c 'echo $WHO; pwd; touch /x 2>/dev/null || echo ro')
  check output "me /usr ro" "$(echo $out)"
}
case_the_vmm_is_confined_as_written_down() {
  local pid status
  detached "$name-g" -- /bin/sleep 1000 || return 1
  pid=$(vmm_pid "$name-g"); status=/proc/$pid/status
  check seccomp 2 "$(jq .vmm.seccomp "$bundles/$name-g/cellrun-vm.json")" &&
    check capabilities 0000000000000000 "$(awk '/^CapEff/{print $2}' "$status")" &&
    check bounding 0000000000000000 "$(awk '/^CapBnd/{print $2}' "$status")" &&
    check no_new_privs 1 "$(awk '/^NoNewPrivs/{print $2}' "$status")" &&
    check uid "$(jq .vmm.uid "$bundles/$name-g/cellrun-vm.json")" "$(awk '/^Uid/{print $2}' "$status")" &&
    check "network of its own" no "$([ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ] && echo yes || echo no)" &&
    check "root has no /etc/passwd" no "$([ -e "/proc/$pid/root/etc/passwd" ] && echo yes || echo no)" &&
    check "state file mode" 600 "$(stat -c %a "$bundles/$name-g/cellrun-vm.json")" &&
    check ps "$pid" "$(ctr_ tasks ps "$name-g" | awk 'NR==2{print $1}')"
  local result=$?
  ctr_ tasks kill -s TERM "$name-g" && within 20 stopped "$name-g" &&
    check end signaled:15 "$(jq -r '.kind + ":" + (.value|tostring)' "$bundles/$name-g/cellrun-exit.json")" &&
    remove "$name-g" && return $result
}
case_kill_ends_a_workload_and_its_vmm() {
  detached "$name-h" -- /bin/sh -c 'trap "" TERM; while :; do sleep 1; done' || return 1
  local pid; pid=$(vmm_pid "$name-h")
  ctr_ tasks kill -s KILL "$name-h" && within 20 stopped "$name-h" && within 5 dead "$pid" &&
    check value 9 "$(jq .value "$bundles/$name-h/cellrun-exit.json")" && remove "$name-h"
}
case_the_deadline_ends_it_whatever_the_guest_does() {
  local file
  detached "$name-i" --annotation dev.cellrun.active-deadline-ms=8000 --annotation dev.cellrun.grace-ms=1000 -- \
    /bin/sh -c 'trap "" TERM; while :; do sleep 1; done' || return 1
  file=$bundles/$name-i
  within 30 stopped "$name-i" || return 1
  check rungs "TERM VMM" "$(jq -r '[.ladder[] | split("@")[0]] | join(" ")' "$file/cellrun-exit.json")" &&
    check "fired at the deadline or later" true \
      "$(jq -n --slurpfile vm "$file/cellrun-vm.json" --slurpfile exit "$file/cellrun-exit.json" \
        '$exit[0].deadlineFiredBootNs >= $vm[0].deadlineBootNs and ($vm[0].deadlineBootNs - $vm[0].startedBootNs) == 8000000000')" &&
    check "killed at deadline plus grace or later" true \
      "$(jq -n --slurpfile vm "$file/cellrun-vm.json" --slurpfile exit "$file/cellrun-exit.json" \
        '$exit[0].endedBootNs >= $vm[0].deadlineBootNs + 1000000000')" && remove "$name-i"
}
case_the_deadline_needs_no_containerd() {
  local pid
  detached "$name-j" --annotation dev.cellrun.active-deadline-ms=8000 --annotation dev.cellrun.grace-ms=500 -- \
    /bin/sh -c 'trap "" TERM; while :; do sleep 1; done' || return 1
  pid=$(vmm_pid "$name-j")
  kill -STOP "$containerd_pid"
  within 30 dead "$pid"; local result=$?
  kill -CONT "$containerd_pid"
  within 30 stopped "$name-j" && remove "$name-j" && return $result
}
case_a_killed_vmm_is_reported() {
  detached "$name-k" -- /bin/sleep 1000 || return 1
  kill -9 "$(vmm_pid "$name-k")"
  within 20 stopped "$name-k" && check kind vmm_died "$(jq -r .kind "$bundles/$name-k/cellrun-exit.json")" && remove "$name-k"
}
case_a_killed_shim_takes_its_vmm_along() {
  local pid
  detached "$name-l" -- /bin/sleep 1000 || return 1
  pid=$(vmm_pid "$name-l")
  kill -9 "$(cat "$bundles/$name-l/shim.pid")"
  within 10 dead "$pid" && within 20 absent "$name-l" && ctr_ containers rm "$name-l"
}
case_a_killed_broker_takes_its_cell_along() {
  local pid
  detached "$name-zb" -- /bin/sleep 1000 || return 1
  pid=$(vmm_pid "$name-zb")
  kill -9 "$(pgrep -P "$(cat "$bundles/$name-zb/shim.pid")" -x cellrun-broker)"
  within 10 dead "$pid" && within 20 absent "$name-zb" && ctr_ containers rm "$name-zb"
}
case_the_job_survives_a_restart_of_containerd() {
  detached "$name-m" -- /bin/sh -c 'sleep 5; exit 7' || return 1
  kill -9 "$containerd_pid"; wait "$containerd_pid" 2>/dev/null
  start_containerd && within 60 stopped "$name-m" &&
    check value 7 "$(jq .value "$bundles/$name-m/cellrun-exit.json")" && remove "$name-m"
}
case_frames_reach_the_namespace_and_come_back() {
  local net out
  ip netns add "$name" && ip link add "${name}h" address 02:00:00:00:00:fe type veth peer name eth0 netns "$name" &&
    ip link set "${name}h" up && ip addr add 100.127.9.0/31 dev "${name}h" && ip -n "$name" link set eth0 up &&
    ip neigh replace 100.127.9.1 lladdr 02:00:00:00:00:01 dev "${name}h" nud permanent || return 1
  net='{"mac":"02:00:00:00:00:01","address":"100.127.9.1/31","gateway":"100.127.9.0","gatewayMac":"02:00:00:00:00:fe","mtu":1500}'
  out=$(run "$name-n" --with-ns "network:/run/netns/$name" --annotation "dev.cellrun.network=$net" -- \
    /bin/ping -c 1 -W 20 100.127.9.0)
  local result=$?
  check "tap left in the namespace" "" "$(ip -n "$name" -o link show | grep tap)" || result=1
  ip link del "${name}h"; ip netns del "$name"
  [ $result = 0 ] || { echo "$out"; return 1; }
}
case_without_a_namespace_there_is_no_network() {
  run "$name-o" -- /bin/sh -c 'ip -o -4 addr show | grep -v " lo " | wc -l; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo lo' >"$dir/out"
  check output "0 lo" "$(echo $(cat "$dir/out"))"
}
case_what_a_cell_cannot_honour_is_refused_by_name() {
  local out
  out=$(run "$name-p" --mount type=bind,src=/tmp,dst=/mnt,options=rbind:ro -- /bin/true 2>&1) && return 1
  check "bind mount" yes "$(grep -q 'shares no folder with the host' <<<"$out" && echo yes || echo "$out")" || return 1
  out=$(run "$name-q" --net-host -- /bin/true 2>&1) && return 1
  check "host network" yes "$(grep -q 'OCI spec' <<<"$out" && echo yes || echo "$out")"
}
exec_() { timeout 60 "${ctr[@]}" tasks exec "$@"; }
case_exec_joins_the_task() {
  local out code pid result=0
  detached "$name-r" --env WHO=me -- /bin/sh -c 'echo first >/tmp/here; exec sleep 1000' || return 1
  # A task runs from its first instruction on; what it writes comes later.
  out=$(exec_ --exec-id a "$name-r" /bin/sh -c 'until [ -s /tmp/here ]; do sleep 0.1; done; cat /tmp/here; echo $WHO; echo err >&2; exit 42' 2>"$dir/err"); code=$?
  check "exit code" 42 $code && check stdout "first me" "$(echo $out)" && check stderr err "$(grep -v level= "$dir/err")" || result=1
  out=$(exec_ --exec-id a "$name-r" /bin/echo again) && check "the same id once more" again "$out" || result=1
  out=$(exec_ --exec-id b "$name-r" /bin/sh -c 'kill -SEGV $$' 2>/dev/null); check "a signal" 139 $? || result=1
  out=$(exec_ --exec-id c "$name-r" /no/such/program 2>&1); code=$?
  check "a missing program" "127 yes" "$code $(grep -q 'exec /no/such/program: ENOENT (No such file' <<<"$out" && echo yes || echo "$out")" || result=1
  out=$(seq 1 20000 | exec_ --exec-id d "$name-r" /bin/cat | sha256sum)
  check "stdin to stdout" "$(seq 1 20000 | sha256sum)" "$out" || result=1
  out=$(exec_ --exec-id e "$name-r" /bin/sh -c 'seq 1 100000' | sha256sum)
  check "much output" "$(seq 1 100000 | sha256sum)" "$out" || result=1
  out=$(exec_ --exec-id f "$name-r" /bin/sh -c 'sleep 1000 & echo bye'); check "a child left behind holds nothing up" bye "$out" || result=1
  check "the task lives on" RUNNING "$(status "$name-r")" || result=1
  ctr_ tasks kill -s KILL "$name-r"; within 20 stopped "$name-r" && remove "$name-r" && return $result
}
case_execs_run_side_by_side_and_die_alone() {
  local one two result=0
  detached "$name-w" -- /bin/sleep 1000 || return 1
  exec_ --exec-id one "$name-w" /bin/sh -c 'echo up; exec sleep 1000' >"$dir/one" 2>/dev/null & one=$!
  exec_ --exec-id two "$name-w" /bin/sh -c 'echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 7' >"$dir/two" 2>/dev/null & two=$!
  within 60 log_grows "$dir/one" 0 && within 60 log_grows "$dir/two" 0 || result=1
  ctr_ tasks kill -s TERM --exec-id one "$name-w"; wait $one; check "killed alone" 143 $? || result=1
  exec_ --exec-id three "$name-w" /bin/touch /tmp/go || result=1
  wait $two; check "the other's own end" 7 $? || result=1
  check "the task lives on" RUNNING "$(status "$name-w")" || result=1
  exec_ --exec-id four "$name-w" /bin/sh -c 'echo up; exec sleep 1000' >"$dir/four" 2>/dev/null & one=$!
  within 60 log_grows "$dir/four" 0 || result=1
  ctr_ tasks kill -s KILL "$name-w"; wait $one; check "an exec ends with its task" 137 $? || result=1
  within 20 stopped "$name-w" && remove "$name-w" && return $result
}
case_an_exec_gets_no_more_than_its_task_may() {
  local own theirs result=0
  detached "$name-x" --cap-drop CAP_NET_RAW -- /bin/sleep 1000 || return 1
  own=$(exec_ --exec-id a "$name-x" /bin/sh -c "grep -E '^(Seccomp|Cap|NoNewPrivs|Uid)' /proc/self/status")
  theirs=$(exec_ --exec-id b "$name-x" /bin/sh -c \
    'for p in /proc/[0-9]*; do case $(tr "\0" " " <$p/cmdline) in "/bin/sleep "*) grep -E "^(Seccomp|Cap|NoNewPrivs|Uid)" $p/status;; esac; done')
  check "as the first process" "$theirs" "$own" || result=1
  check filtered 2 "$(awk '/^Seccomp:/{print $2}' <<<"$own")" || result=1
  ctr_ tasks kill -s KILL "$name-x"; within 20 stopped "$name-x" && remove "$name-x" && return $result
}
case_a_client_that_does_not_read_holds_up_nobody() {
  local deaf result=0
  detached "$name-B" -- /bin/sleep 1000 || return 1
  mkfifo "$dir/unread"; exec 7<>"$dir/unread"
  exec_ --exec-id deaf "$name-B" /bin/sh -c 'touch /tmp/up; exec yes' >&7 2>/dev/null & deaf=$!
  exec_ --exec-id look "$name-B" /bin/sh -c 'until [ -e /tmp/up ]; do sleep 0.1; done' || result=1
  check "another exec" hello "$(exec_ --exec-id other "$name-B" /bin/echo hello)" || result=1
  ctr_ tasks kill -s KILL --exec-id deaf "$name-B" || result=1
  check "it is gone" gone "$(exec_ --exec-id last "$name-B" /bin/sh -c 'while pidof yes >/dev/null; do sleep 0.1; done; echo gone')" || result=1
  kill $deaf; wait $deaf 2>/dev/null; exec 7>&-
  ctr_ tasks kill -s KILL "$name-B"; within 20 stopped "$name-B" && remove "$name-B" && return $result
}
# Under a terminal of script(1)'s, of 50 rows and 132 columns. Its input never ends: script(1) would type a NUL.
mkfifo "$dir/silence"; exec 9<>"$dir/silence"
with_terminal() { timeout 180 script -qec "stty rows 50 cols 132; $1" /dev/null <&9 | tr -d '\r' | grep -v 'level='; }
case_a_terminal_is_one() {
  local out
  out=$(with_terminal "ctr -a $dir/c.sock run --rm -t --runtime io.containerd.cellrun.v2 $image $name-y \
    /bin/sh -c 'tty; until [ \"\$(stty size)\" = \"50 132\" ]; do sleep 0.1; done; stty size; exit 3'; echo code \$?")
  check output "/dev/pts/0 50 132 code 3" "$(echo $out)"
}
case_an_exec_has_a_terminal_and_follows_its_size() {
  local out result=0
  detached "$name-z" -- /bin/sleep 1000 || return 1
  out=$(with_terminal "ctr -a $dir/c.sock tasks exec -t --exec-id a $name-z \
    /bin/sh -c 'tty; until [ \"\$(stty size)\" = \"50 132\" ]; do sleep 0.1; done; stty size; test -t 2 && echo all; exit 4'; echo code \$?")
  check output "/dev/pts/0 50 132 all code 4" "$(echo $out)" || result=1
  ctr_ tasks kill -s KILL "$name-z"; within 20 stopped "$name-z" && remove "$name-z" && return $result
}
case_attach_speaks_to_a_detached_terminal() {
  local attached result=0
  # Detached, ctr leaves the terminal's FIFOs behind for whoever attaches.
  script -qec "ctr -a $dir/c.sock run -d -t --runtime io.containerd.cellrun.v2 $image $name-A \
    /bin/sh -c 'while read -r line; do echo got \$line; done; exit 5'" /dev/null <&9 >/dev/null || return 1
  mkfifo "$dir/keyboard"; exec 8<>"$dir/keyboard"
  script -qec "ctr -a $dir/c.sock tasks attach $name-A" /dev/null <&8 >"$dir/attached" & attached=$!
  echo hello >&8; within 60 grep -aq 'got hello' "$dir/attached" || result=1
  printf '\004' >&8; timeout 60 tail --pid=$attached -f /dev/null || { kill $attached; result=1; }
  wait $attached; check "the workload's own end" 5 $? || result=1
  exec 8>&-
  within 20 absent "$name-A" || { ctr_ tasks kill -s KILL "$name-A"; within 20 stopped "$name-A"; ctr_ tasks rm "$name-A"; }
  ctr_ containers rm "$name-A" && return $result  # attach has deleted the task
}

metric() { ctr_ tasks metrics "$2" | awk -v key="$1" '$1 == key {print $2}'; }
status() { ctr_ tasks ls | awk -v id="$1" '$1 == id {print $3}'; }
log_grows() { [ "$(wc -c <"$1")" -gt "$2" ]; }
case_a_paused_cell_stands_still_and_goes_on() {
  local before after end
  run "$name-s" -- /bin/sh -c 'while :; do echo tick; sleep 0.2; done' >"$dir/ticks" 2>/dev/null &
  within 120 log_grows "$dir/ticks" 0 && ctr_ tasks pause "$name-s" || return 1
  check state PAUSED "$(status "$name-s")" || return 1
  ctr_ tasks pause "$name-s" 2>/dev/null && { echo "  paused twice"; return 1; }
  # What was on its way when the processors stopped arrives now; after that nothing more.
  sleep 1; before=$(wc -c <"$dir/ticks"); sleep 3; after=$(wc -c <"$dir/ticks")
  check "output while paused" "$before" "$after" && ctr_ tasks resume "$name-s" &&
    check state RUNNING "$(status "$name-s")" && within 20 log_grows "$dir/ticks" "$after"
  end=$?
  ctr_ tasks kill -s KILL "$name-s"; wait $!; return $end
}
case_a_paused_cell_can_be_killed() {
  local pid
  detached "$name-t" -- /bin/sleep 1000 || return 1
  pid=$(vmm_pid "$name-t")
  ctr_ tasks pause "$name-t" && ctr_ tasks kill -s KILL "$name-t" && within 5 dead "$pid" && within 20 stopped "$name-t" &&
    check end signaled:9:VMM "$(jq -r '[.kind, .value, (.ladder[0] | split("@")[0])] | map(tostring) | join(":")' \
      "$bundles/$name-t/cellrun-exit.json")" && remove "$name-t"
}
case_the_deadline_goes_on_while_paused() {
  local pid file=$bundles/$name-u
  detached "$name-u" --annotation dev.cellrun.active-deadline-ms=4000 --annotation dev.cellrun.grace-ms=1000 -- /bin/sleep 1000 || return 1
  pid=$(vmm_pid "$name-u")
  ctr_ tasks pause "$name-u" && within 20 dead "$pid" && within 20 stopped "$name-u" &&
    check rungs "TERM VMM" "$(jq -r '[.ladder[] | split("@")[0]] | join(" ")' "$file/cellrun-exit.json")" && remove "$name-u"
}
case_metrics_tell_memory_and_processor_time() {
  local cpu
  detached "$name-v" --memory-limit 134217728 -- /bin/sh -c 'while :; do :; done' || return 1
  cpu=$(metric cpu.usage_usec "$name-v")
  within 20 eval '[ "$(metric cpu.usage_usec "$name-v")" -gt "$cpu" ]' &&
    check "some tens of megabytes" true "$([ "$(metric memory.usage "$name-v")" -gt 20000000 ] && echo true)" &&
    check "the guest's memory and the VMM's own" $((320 << 20)) "$(metric memory.usage_limit "$name-v")" &&
    check "threads of the VMM" true "$([ "$(metric pids.current "$name-v")" -ge 2 ] && echo true)"
  local result=$?
  ctr_ tasks kill -s KILL "$name-v"; within 20 stopped "$name-v" && remove "$name-v" && return $result
}

for test in $(declare -F | awk '$3 ~ /^case_/{print $3}'); do
  [[ $test =~ $only ]] || continue
  if "$test"; then echo "ok   ${test#case_}"; else echo "FAIL ${test#case_}"; failures=$((failures + 1)); fi
done

# What is left: no VMM, no shim, no bundle, no socket, no cgroup.
left=$(ls "$bundles" 2>/dev/null; ls "$dir/root/io.containerd.runtime.v2.task/default" 2>/dev/null
  pgrep -f "guest=$name-" || true; find /sys/fs/cgroup -maxdepth 4 -type d -name "$name-*"
  find "$dir/shim" -maxdepth 1 -name 'rootfs*')
within 10 no_shim || left+=" a shim"
if [ -n "$left" ]; then echo "FAIL nothing is left: $left"; failures=$((failures + 1)); else echo "ok   nothing_is_left"; fi
[ "$failures" = 0 ]
