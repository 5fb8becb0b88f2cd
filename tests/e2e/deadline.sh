#!/usr/bin/env bash
# A cell is dead at its deadline plus grace plus at most one second: whatever the guest does, with the daemon dead, and with
# containerd stopped. Times are the kernel's: boot time of START in the shim's report against the VMM's exit.
. "$(dirname "$0")/lib.sh"
needs_guest
node_up

short='.spec.activeDeadlineSeconds = 3 | .spec.terminationGracePeriodSeconds = 2'
for kind in ignores spins stops; do
  case $kind in
    ignores) may='' sh='trap "" TERM; while :; do sleep 1; done' filter=$short ;;
    spins) may='' sh='trap "" TERM; (while :; do :; done) & (while :; do :; done) & while :; do :; done' filter="$short | .spec.resources.limits.cpu = \"2\"" ;;
    stops) may=or-earlier sh='kill -STOP 1 $PPID 2>/dev/null; kill -STOP $$; sleep 1000' filter="$short | .spec.container.securityContext = {runAsUser: 0, runAsGroup: 0}" ;;
  esac
  start "$kind" "$sh" "$filter"
  late=$(overrun_ms "$(vmm_pid "$uid")" "$(deadline_of "$uid")")
  check "a job that $kind is dead in time ($late ms)" in_time "$late" "$may"
  code=0; cellrun wait "$uid" >/dev/null 2>&1 || code=$?
  load_record "$uid"
  check "$kind: exit code 124" equal "$code" 124
  check "$kind: DeadlineExceeded" equal "$(field .exit.reason)" DeadlineExceeded
  check "$kind: CLEAN" is_clean
done

start obeys 'trap "echo bye; exit 0" TERM; while :; do sleep 0.1; done' "$short"
code=0; cellrun wait "$uid" >/dev/null 2>&1 || code=$?
check "a job that obeys TERM is over, and still timed out" equal "$code" 124
check "it had its say" matches "$(cellrun logs "$uid")" bye

start orphan 'trap "" TERM; while :; do sleep 1; done' "$short"
vmm=$(vmm_pid "$uid") deadline=$(deadline_of "$uid")
kill -KILL "$daemon_pid"; wait "$daemon_pid" 2>/dev/null || true; daemon_pid=''
late=$(overrun_ms "$vmm" "$deadline")
check "the deadline holds while cellrund is dead ($late ms)" in_time "$late"
start_daemon
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "the restarted daemon seals it" equal "$(field .exit.reason)" DaemonRestarted
check "with CLEAN" is_clean

start frozen 'trap "" TERM; while :; do sleep 1; done' "$short"
vmm=$(vmm_pid "$uid") deadline=$(deadline_of "$uid")
containerd_pid=$(jq -r .pid "$node/run/containerd.json")
kill -STOP "$containerd_pid"
late=$(overrun_ms "$vmm" "$deadline")
check "the deadline holds while containerd is stopped ($late ms)" in_time "$late"
kill -CONT "$containerd_pid"
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "frozen: DeadlineExceeded" equal "$(field .exit.reason)" DeadlineExceeded
check "frozen: CLEAN" is_clean
finish
