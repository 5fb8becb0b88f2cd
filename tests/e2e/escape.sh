#!/usr/bin/env bash
# Jobs that try to outlive their deadline, each way in turn, beside hogs that keep every processor busy: none is early, none
# lives on, none is left over. CELLRUN_ESCAPES says how many of the process lane run (12), CELLRUN_ESCAPE_MACHINES how many
# microVMs (2); a release check runs thousands.
. "$(dirname "$0")/lib.sh"
escapes=${CELLRUN_ESCAPES:-12} machines=${CELLRUN_ESCAPE_MACHINES:-2}
[ "$machines" = 0 ] || needs_guest

node_up "enabled = [\"process\"$([ "$machines" = 0 ] || echo ', "microvm"')]"
"$here/tools/demo-image" --name registry.local/demo/hostile --add "$build/tests/guests/hostile-job=/hostile" "$node/hostile.tar" >/dev/null
image=$(cellrun image import "$node/hostile.tar" | tail -n 1)

ways=(ignore daemon fork-hold stop spin trace orphans exec)
command_of() {
  case $1 in
    ignore) echo 'trap "" TERM INT HUP; while :; do sleep 1; done' ;;
    daemon) echo '/hostile daemon; trap "" TERM; while :; do sleep 1; done' ;;
    orphans) echo 'for i in 1 2 3 4; do (trap "" TERM; setsid sleep 1000 &) ; done; trap "" TERM; while :; do sleep 1; done' ;;
    exec) echo 'trap "" TERM; exec sleep 1000' ;;
    *) echo "exec /hostile $1" ;;
  esac
}
filter='.spec.activeDeadlineSeconds = 2 | .spec.terminationGracePeriodSeconds = 1 | .spec.startDeadlineSeconds = 300
  | .spec.resources.limits = {cpu: "500m", memory: "96Mi", pids: 32}'

hogs=()
stop_hogs() { for pid in "${hogs[@]}"; do kill -KILL "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done; hogs=(); }
trap 'status=$?; set +e; stop_hogs; (exit "$status"); node_down' EXIT
for _ in $(seq 1 $(($(nproc) * 2))); do
  (while :; do :; done) & hogs+=($!)
done

bad=0 worst=0 ran=0
for number in $(seq 1 $((escapes + machines))); do
  way=${ways[$((number % ${#ways[@]}))]}
  lane='.'
  [ "$number" -gt "$escapes" ] || lane=$process_lane
  submit "escape-$number" "$(command_of "$way")" "$filter | $lane"
  ran=$((ran + 1))
  # Deadline and death are the daemon's boot times; what the kernel still holds of the cell is the scan's to say.
  read -r reason verdict late early < <(field '[.exit.reason, .teardown.verdict, .exit.deadline.overrunMs,
    ((.exit.deadline.firedAt.bootTimeNs // 0) < .exit.deadline.set.bootTimeNs)] | join(" ")')
  [ "$late" -le "$worst" ] || worst=$late
  if [ "$reason" != DeadlineExceeded ] || [ "$verdict" != CLEAN ] || [ "$late" -gt 1000 ] || [ "$early" != false ]; then
    bad=$((bad + 1))
    echo "      $way ($number): $reason, $verdict, $late ms after deadline and grace, early: $early"
  fi
done
stop_hogs
check "$ran tries to outlive a deadline: 0 succeed (worst: $worst ms after deadline and grace)" equal "$bad" 0
tag=$(basename "$node"/run/netns/cr-*-router) tag=${tag#cr-} tag=${tag%-router}
check "no process of theirs is left" equal "$(find /sys/fs/cgroup -path "*/cellrun/$tag/*" -name cgroup.procs -exec cat {} + 2>/dev/null | wc -l)" 0
finish
