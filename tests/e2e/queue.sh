#!/usr/bin/env bash
# A node of one cell: the second job waits and then runs, one that may not wait ends, one that can never fit is refused.
. "$(dirname "$0")/lib.sh"
node_up $'enabled = ["process"]\n[capacity]\ncells = 1'

start holder 'sleep 300' "$process_lane"
holder=$uid
spec second 'echo my turn' "$process_lane" >"$node/second.json"
second=$(cellrun submit -d "$node/second.json" --key "$node/etc/job.key")
wait_state "$second" QUEUED
check "the second job waits" equal "$(cellrun capacity --json | jq -c '[.cells.used, .queue.used]')" '[1,1]'
submit hasty 'echo never' "$process_lane | .spec.startDeadlineSeconds = 1"
check "a job that may not wait: StartDeadlineExceeded" equal "$(field .exit.reason)" StartDeadlineExceeded
check "a job that may not wait: exit code 125" equal "$code" 125
check "a job that may not wait never ran" equal "$out" ''
check "the second still waits" equal "$(cellrun inspect "$second" --json | jq -r .state)" QUEUED
check_never_fits "$process_lane"

cellrun cancel "$holder" >/dev/null
code=0; cellrun wait "$second" >/dev/null 2>&1 || code=$?
load_record "$second"
check "then it runs" equal "$code" 0
check "its output is there" equal "$(cellrun logs "$second")" 'my turn'
check "with CLEAN" is_clean
check "capacity is back" equal "$(cellrun capacity --json | jq -c '[.cells.used, .queue.used]')" '[0,0]'

# Nothing is promised that the host does not have: with more to be left alone than there is, a job waits and says why.
stop_daemon
echo 'memory_reserve_bytes = 1000000000000000' >>"$node/etc/config.toml"
start_daemon
spec held 'echo never' "$process_lane | .spec.startDeadlineSeconds = 3" >"$node/held.json"
held=$(cellrun submit -d "$node/held.json" --key "$node/etc/job.key")
check "a job that the host has no memory for waits" wait_state "$held" QUEUED
check "capacity says why" matches "$(cellrun capacity)" 'held: the host has .* of memory available'
code=0; cellrun wait "$held" >/dev/null 2>&1 || code=$?
load_record "$held"
check "then it ends: StartDeadlineExceeded" equal "$(field .exit.reason)" StartDeadlineExceeded
check "and its record says why" matches "$(field .exit.message)" 'memory_reserve_bytes'
finish
