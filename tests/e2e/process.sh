#!/usr/bin/env bash
# The process lane through the same pipeline: output, exit codes, deadline, network, teardown.
. "$(dirname "$0")/lib.sh"
node_up $'enabled = ["process"]'

# Capabilities, no_new_privs and seccomp are each thread's own: all of them, also those that libraries have made.
# The 19 of runtime/daemon/confine.cpp, as far as this host has them.
kept=0
for bit in 0 1 2 3 5 6 7 8 10 12 13 18 19 21 24 27 31 38 39; do kept=$((kept | 1 << bit)); done
unconfined=''
threads=0
for task in /proc/"$daemon_pid"/task/*; do
  threads=$((threads + 1))
  for set in CapInh CapPrm CapEff CapBnd CapAmb; do
    has=$((16#$(sed -n "s/^$set:\t//p" "$task/status")))
    [ $((has & ~kept)) = 0 ] || unconfined+=" ${task##*/}:$set"
  done
  grep -q '^NoNewPrivs:.1$' "$task/status" && grep -q '^Seccomp:.2$' "$task/status" || unconfined+=" ${task##*/}:seccomp"
done
check "every thread of cellrund is confined" equal "$unconfined" ''
check "and there are several" [ "$threads" -gt 3 ]

submit answer 'echo 42; echo on stderr >&2; id -u; echo $$' "$process_lane"
check "the job succeeds" equal "$code" 0
check "stdout arrives" equal "$(head -n 1 <<<"$out")" 42
check "teardown is CLEAN" is_clean
check "the record says tier 0" equal "$(field .lane.tier)" 0
submit code 'exit 7' "$process_lane"
check "the exit code arrives" equal "$code" 7
submit net 'nc -w 1 198.51.100.7 80 || echo no way out' "$process_lane"
check "nothing gets out" matches "$out" 'no way out'
check "the attempt is counted" equal "$(field '.egress.accounting | .seen + .suppressed + .lost == .counted and .counted > 0')" true
submit late 'trap "" TERM; while :; do sleep 0.1; done' "$process_lane | .spec.activeDeadlineSeconds = 1 | .spec.terminationGracePeriodSeconds = 1"
check "the deadline ends it" equal "$code" 124
check "DeadlineExceeded, CLEAN" is_clean

start orphan 'trap "" TERM; while :; do sleep 0.1; done' "$process_lane | .spec.activeDeadlineSeconds = 2 | .spec.terminationGracePeriodSeconds = 1"
kill -KILL "$daemon_pid"; wait "$daemon_pid" 2>/dev/null || true; daemon_pid=''
start_daemon
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "a restarted daemon seals what it finds" equal "$(field .exit.reason)" DaemonRestarted
check "with CLEAN" is_clean

submit stamps 'echo one; sleep 0.1; echo two >&2; sleep 0.1; printf thr; sleep 0.1; echo ee' "$process_lane"
stamped=$(cellrun logs "$uid" --timestamps 2>&1)
check "time stamps: each line has one" equal "$(grep -cE '^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z ' <<<"$stamped")" 3
check "time stamps: in order of arrival, lines whole" equal "$(cut -d ' ' -f 2 <<<"$stamped" | tr '\n' ' ')" 'one two three '
check "time stamps: they rise" equal "$stamped" "$(sort <<<"$stamped")"
submit cut 'head -c 4000 /dev/zero | tr "\0" x' "$process_lane | .spec.logs.maxBytes = 1024"
check "a full log does not end a job" equal "$code" 0
check "a full log: the reader is told" matches "$err" 'what came then was dropped'
check "a full log: so is a later one" matches "$(cellrun logs "$uid" 2>&1 >/dev/null)" 'what came then was dropped'
check "a full log: it holds what was promised" equal "$(cellrun logs "$uid" 2>/dev/null | wc -c)" 1024

spec root true "$process_lane | .spec.container.securityContext = {runAsUser: 0}" >"$node/root.json"
code=0; err=$(cellrun submit "$node/root.json" --key "$node/etc/job.key" 2>&1 >/dev/null) || code=$?
check "root is refused in this lane" equal "$code" 65
check "with field and reason" matches "$err" UnsupportedField
finish
