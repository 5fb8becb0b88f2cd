#!/usr/bin/env bash
# Many jobs: one after another, and eight at a time with none refused. Afterwards the host is as it was.
# CELLRUN_SEQUENTIAL and CELLRUN_PARALLEL set how many (CI runs fewer than a release check).
. "$(dirname "$0")/lib.sh"
needs_guest
sequential=${CELLRUN_SEQUENTIAL:-6} parallel=${CELLRUN_PARALLEL:-10}
node_up
submit warm 'echo up'
before=$(host_state)
fds_before=$(ls "/proc/$daemon_pid/fd" | wc -l)
rss_before=$(awk '/VmRSS/ {print $2}' "/proc/$daemon_pid/status")

bad=0
for i in $(seq 1 "$sequential"); do
  submit "seq-$i" "echo $i"
  [ "$out" = "$i" ] && [ "$code" = 0 ] && [ "$(field .teardown.verdict)" = CLEAN ] || { bad=$((bad + 1)); echo "      job $i: exit $code, output $out, $(field .teardown.verdict)"; }
done
check "$sequential jobs one after another are CLEAN" equal "$bad" 0

run_one() {
  spec "par-$1" "echo $1" >"$node/par-$1.json"
  local code=0
  cellrun submit "$node/par-$1.json" --key "$node/etc/job.key" >"$node/par-$1.out" 2>"$node/par-$1.err" || code=$?
  echo "$code" >"$node/par-$1.code"
}
for i in $(seq 1 "$parallel"); do
  run_one "$i" &
  while [ "$(jobs -rp | wc -l)" -gt 8 ]; do wait -n || true; done   # 8 of ours and the daemon
done
for i in $(seq 1 "$parallel"); do
  while [ ! -s "$node/par-$i.code" ]; do wait -n 2>/dev/null || true; done
done
bad=0
for i in $(seq 1 "$parallel"); do
  [ "$(cat "$node/par-$i.code")" = 0 ] && [ "$(cat "$node/par-$i.out")" = "$i" ] || { bad=$((bad + 1)); cat "$node/par-$i.err"; }
done
check "$parallel jobs eight at a time all succeed" equal "$bad" 0

after=$(host_state)
check "the host is as it was" equal "$after" "$before"
fds_after=$(ls "/proc/$daemon_pid/fd" | wc -l)
check "the daemon's descriptors are as they were ($fds_before before, $fds_after after)" [ "$fds_after" -le $((fds_before + 2)) ]
rss_after=$(awk '/VmRSS/ {print $2}' "/proc/$daemon_pid/status")
say "daemon RSS: $rss_before kB before, $rss_after kB after"
check "the daemon did not grow by more than 8 MiB" [ $((rss_after - rss_before)) -le 8192 ]
check "capacity is back" equal "$(cellrun capacity --json | jq -r '.cells.used')" 0
check_never_fits
finish
