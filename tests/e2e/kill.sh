#!/usr/bin/env bash
# SIGKILL of the shim, of QEMU and of containerd in mid-job: no QEMU is left, the record has the right reason, CLEAN.
# Also: cancellation, also before START and with containerd stopped, and a frozen VMM.
. "$(dirname "$0")/lib.sh"
needs_guest
node_up

bundle() { echo "$node"/run/containerd/state/io.containerd.runtime.v2.task/cellrun/*"$1"; }
ended() { # UID REASON VMM
  local code=0
  timeout 60 "$build/tools/cellrun/cellrun" wait "$1" >/dev/null 2>&1 || code=$?
  load_record "$1"
  check "$2: reason" equal "$(field .exit.reason)" "$2"
  check "$2: CLEAN" is_clean
  check "$2: no QEMU is left" [ ! -d "/proc/$3" ]
  check "$2: exit code $4" equal "$code" "$4"
}

for victim in shim vmm containerd; do
  start "$victim" 'sleep 1000'
  vmm=$(jq -r .vmm.pid "$(bundle "$uid")/cellrun-vm.json")
  [ "$victim" != shim ] || check "the shim's parent, which reaps it, is the keeper" equal \
    "$(ps -o ppid= -p "$(jq -r .shim.pid "$(bundle "$uid")/cellrun-vm.json")" | tr -d ' ')" "$(jq -r .pid "$node/run/keeper.lock")"
  case $victim in
    shim) kill -KILL "$(jq -r .shim.pid "$(bundle "$uid")/cellrun-vm.json")"; ended "$uid" ShimDied "$vmm" 125 ;;
    vmm) kill -KILL "$vmm"; ended "$uid" VmmCrashed "$vmm" 125 ;;
    containerd) kill -KILL "$(jq -r .pid "$node/run/containerd.json")"; ended "$uid" RuntimeDied "$vmm" 125 ;;
  esac
done

submit after 'echo still here'
check "the node works on with the restarted containerd" equal "$out" "still here"

start frozen 'sleep 1000' '.spec.activeDeadlineSeconds = 3 | .spec.terminationGracePeriodSeconds = 1'
vmm=$(jq -r .vmm.pid "$(bundle "$uid")/cellrun-vm.json")
kill -STOP "$vmm"
ended "$uid" DeadlineExceeded "$vmm" 124

start cancelled 'trap "" TERM; while :; do sleep 1; done' '.spec.terminationGracePeriodSeconds = 1'
vmm=$(jq -r .vmm.pid "$(bundle "$uid")/cellrun-vm.json")
cellrun cancel "$uid" >/dev/null
cellrun cancel "$uid" >/dev/null
ended "$uid" CancelledByUser "$vmm" 122
check "cancelling after the end changes nothing" cellrun cancel "$uid"

# Before START: the job does not wait for its guest, and what exists by then is killed.
starting() { # NAME: returns while the cell is being started. Sets uid.
  spec "$1" 'sleep 1000' '.spec.startDeadlineSeconds = 600' >"$node/$1.json"
  uid=$(cellrun submit -d "$node/$1.json" --key "$node/etc/job.key")
  wait_state "$uid" STARTING
}
never_ran() { equal "$(cellrun inspect "$uid" --json | jq -c '[.timeline[].state] | index("RUNNING")')" null; }
no_qemu() { ! pgrep -f "qemu-system.*$uid" >/dev/null; }
for moment in at-once later; do
  starting "starting-$moment"
  [ "$moment" = at-once ] || read -r -t 1 <> <(:) || true
  cellrun cancel "$uid" >/dev/null
  ended "$uid" CancelledByUser none 122
  check "cancelled while starting, $moment: it never ran" never_ran
  check "cancelled while starting, $moment: no QEMU" no_qemu
done

containerd=$(jq -r .pid "$node/run/containerd.json")
kill -STOP "$containerd"
starting deaf
cellrun cancel "$uid" >/dev/null
check "cancelled while containerd is stopped: the job is being ended" wait_state "$uid" TEARING_DOWN
kill -CONT "$containerd"
ended "$uid" CancelledByUser none 122
check "cancelled while containerd is stopped: it never ran" never_ran

starting shutdown
stop_daemon
start_daemon
ended "$uid" NodeShutdown none 122
check "the node ended while starting: it never ran" never_ran
finish
