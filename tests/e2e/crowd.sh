#!/usr/bin/env bash
# Fifty jobs at once on a small node: each runs to its end or is refused with NoCapacity, none is stuck, no more is promised than
# there is, the lane's overhead included. Then cancellation in each state: idempotent, with the first cause of the end, CLEAN.
# CELLRUN_CROWD says how many (50).
. "$(dirname "$0")/lib.sh"
crowd=${CELLRUN_CROWD:-50}
memory=$(((128 + 8) << 20)) # what one cell of the process lane takes
node_up $'enabled = ["process"]\n[capacity]\ncells = 16\nqueue = 24\ncpu_millis = 16000\nmemory_bytes = '$((memory * 4 + (64 << 20)))

for i in $(seq 1 "$crowd"); do
  spec "crowd-$i" "sleep 0.3; echo $i" "$process_lane" >"$node/crowd-$i.json"
done
submit_one() {
  local code=0
  cellrun submit "$node/crowd-$1.json" --key "$node/etc/job.key" >"$node/crowd-$1.out" 2>"$node/crowd-$1.err" || code=$?
  echo "$code" >"$node/crowd-$1.code"
}
for i in $(seq 1 "$crowd"); do submit_one "$i" & done
most=0 over=0
while [ "$(find "$node" -maxdepth 1 -name 'crowd-*.code' | wc -l)" -lt "$crowd" ]; do
  read -r used total cells < <(cellrun capacity --json | jq -r '"\(.memoryBytes.used) \(.memoryBytes.total) \(.cells.used)"')
  [ "$cells" -le "$most" ] || most=$cells
  [ "$used" -le "$total" ] && [ "$used" = $((cells * memory)) ] || { over=$((over + 1)); echo "      $used of $total bytes for $cells cells"; }
  read -r -t 0.2 <> <(:) || true
done
ran=0 refused=0 bad=0
for i in $(seq 1 "$crowd"); do
  case "$(cat "$node/crowd-$i.code")" in
    0) [ "$(cat "$node/crowd-$i.out")" = "$i" ] && ran=$((ran + 1)) || bad=$((bad + 1)) ;;
    75) grep -q NoCapacity "$node/crowd-$i.err" && refused=$((refused + 1)) || bad=$((bad + 1)) ;;
    *) bad=$((bad + 1)); cat "$node/crowd-$i.err" ;;
  esac
done
say "$ran ran, $refused were refused, at most $most cells at one time"
check "every job ran or was refused with NoCapacity" equal "$bad" 0
check "those that found a place ran" [ "$ran" -ge 24 ]
check "some found none" [ "$refused" -ge 1 ]
check "never more cells than memory, overhead included" [ "$most" -le 4 ]
check "what is taken is the sum of what the cells take" equal "$over" 0
check "none is stuck" equal "$(cellrun ps --json | jq '.jobs | length')" 0
check "capacity is back" equal "$(cellrun capacity --json | jq -c '[.cells.used, .queue.used, .memoryBytes.used]')" '[0,0,0]'

stubborn='trap "" TERM; while :; do sleep 0.2; done'
cancel_twice() { cellrun cancel "$uid" >/dev/null && cellrun cancel "$uid" >/dev/null; }
cancelled() { # WHAT REASON EXIT-CODE
  local code=0
  timeout 60 "$build/tools/cellrun/cellrun" wait "$uid" >/dev/null 2>&1 || code=$?
  load_record "$uid"
  check "cancelled $1: $2" equal "$(field .exit.reason)" "$2"
  check "cancelled $1: exit code" equal "$code" "$3"
  # Before capacity was there nothing was made, and there is nothing to tear down.
  [ "$(field '.teardown // "none"')" = none ] || check "cancelled $1: CLEAN" is_clean
  local digest
  digest=$(cellrun inspect "$uid" --json | jq -r .evidenceDigest)
  check "cancelled $1: again after the end" cancel_twice
  check "cancelled $1: the record stays as it is" equal "$(cellrun inspect "$uid" --json | jq -r .evidenceDigest)" "$digest"
}

holders=()
for i in 1 2 3 4; do start "holder-$i" 'sleep 1000' "$process_lane"; holders+=("$uid"); done
spec queued 'echo never' "$process_lane" >"$node/queued.json"
uid=$(cellrun submit -d "$node/queued.json" --key "$node/etc/job.key")
wait_state "$uid" QUEUED
check "cancelled while queued: twice" cancel_twice
cancelled "while queued" CancelledByUser 122
for uid in "${holders[@]}"; do cellrun cancel "$uid" >/dev/null; done
cancelled "while running" CancelledByUser 122

start stopping "$stubborn" "$process_lane | .spec.terminationGracePeriodSeconds = 2"
check "cancelled while running: twice" cancel_twice
wait_state "$uid" STOPPING
check "cancelled while stopping: twice" cancel_twice
cancelled "while stopping" CancelledByUser 122

start late "$stubborn" "$process_lane | .spec.activeDeadlineSeconds = 1 | .spec.terminationGracePeriodSeconds = 3"
for _ in $(seq 1 200); do
  [ "$(awk '{printf "%.0f", $1 * 1000}' /proc/uptime)" -le "$(cellrun inspect "$uid" --json | jq '[.timeline[] | select(.state == "RUNNING")][0].bootTimeNs / 1000000 + 1200 | floor')" ] || break
  read -r -t 0.05 <> <(:) || true
done
check "cancelled after the deadline, within grace: twice" cancel_twice
cancelled "after the deadline" DeadlineExceeded 124

spec brief 'exit 7' "$process_lane" >"$node/brief.json"
uid=$(cellrun submit -d "$node/brief.json" --key "$node/etc/job.key")
code=0; cellrun wait "$uid" >/dev/null 2>&1 || code=$?
check "cancelled after the end: twice" cancel_twice
cancelled "after the end" Error 7
finish
