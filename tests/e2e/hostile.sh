#!/usr/bin/env bash
# Jobs and guests that misuse what they have, one behaviour each, in the microvm lane and, where it makes sense, in the process lane:
# the reason is the right one, the deadline does not move, a neighbour is not harmed, and the teardown is CLEAN.
# CELLRUN_FLOOD_BYTES says how much one line of the flood is (1 GB), CELLRUN_HOSTILE which groups of checks run.
. "$(dirname "$0")/lib.sh"
needs_guest
flood_bytes=${CELLRUN_FLOOD_BYTES:-1000000000}
groups=${CELLRUN_HOSTILE:-limits host-oom flood pipes guest}
wants() { [[ " $groups " == *" $1 "* ]]; }

taken_over_guest "$build/tests/guests/hostile-init"
node_up $'enabled = ["process", "microvm"]'
"$here/tools/demo-image" --name registry.local/demo/hostile --add "$build/tests/guests/hostile-job=/hostile" "$node/hostile.tar" >/dev/null
image=$(cellrun image import "$node/hostile.tar" | tail -n 1)

short='.spec.activeDeadlineSeconds = 4 | .spec.terminationGracePeriodSeconds = 1'
as_root='.spec.container.securityContext = {runAsUser: 0, runAsGroup: 0, capabilities: ["CAP_SYS_NICE", "CAP_SYS_PTRACE"]}'
job() { echo ".spec.container.command = $(jq -cn '$ARGS.positional' --args /hostile "$@") | .spec.container.args = []"; }

# A neighbour that counts. Its count must go on growing, whatever the others do.
start neighbour 'i=0; while :; do i=$((i + 1)); echo $i; sleep 0.2; done' "$process_lane | .spec.activeDeadlineSeconds = 3600 | .spec.resources.limits.cpu = \"200m\""
neighbour=$uid
counted() { cellrun logs "$neighbour" | tail -n 1; }
last=0
neighbour_lives() {
  local now i
  for i in $(seq 1 50); do
    now=$(counted)
    [ "$now" -le "$last" ] || { last=$now; return 0; }
    read -r -t 0.2 <> <(:) || true
  done
  echo "      the neighbour stands at $now"
  return 1
}
# after NAME REASON: the checks that hold for every job of this file; `code` and `record` are set.
after() {
  check "$1: $2" equal "$(field .exit.reason)" "$2"
  check "$1: CLEAN" is_clean
  check "$1: the neighbour goes on" neighbour_lives
}
deadline_job() { # NAME COMMAND FILTER: a microVM that must live until its deadline and no longer
  start "$1" "$2" "$3"
  local late
  late=$(overrun_ms "$(vmm_pid "$uid")" "$(deadline_of "$uid")" 1)
  check "$1: dead in time ($late ms)" in_time "$late"
  code=0; cellrun wait "$uid" >/dev/null 2>&1 || code=$?
  load_record "$uid"
  check "$1: exit code 124" equal "$code" 124
  after "$1" DeadlineExceeded
}
inside() { field '.exit.limitsHit.inside | join(" ")'; }

if wants limits; then
  for lane in microvm process; do
    [ "$lane" = microvm ] && in_lane='.' || in_lane=$process_lane
    submit "$lane-fork" '' "$in_lane | $(job fork)"
    after "$lane: fork bomb" PidsExhausted
    check "$lane: fork bomb: exit code 137" equal "$code" 137
    check "$lane: fork bomb: it was held" matches "$out" '^made [0-9]{1,2} processes'
    submit "$lane-memory" '' "$in_lane | $(job memory)"
    after "$lane: memory" "$([ "$lane" = microvm ] && echo OOMKilledGuest || echo OOMKilledHost)"
    check "$lane: memory: exit code 137" equal "$code" 137
    for what in fill inodes deep; do
      submit "$lane-$what" '' "$in_lane | .spec.volumes.scratch.size = \"4Mi\" | $(job $what /scratch)"
      after "$lane: $what" DiskQuotaExceeded
      check "$lane: $what: the file system said so" matches "$out" 'No space left'
    done
    check "$lane: a limit that was met and got over is no failure" equal \
      "$(submit "$lane-over" '/hostile fill /scratch; echo done' "$in_lane | .spec.volumes.scratch.size = \"4Mi\""; echo "$code $(field .exit.reason) $(inside)")" '0 Completed disk'
    submit "$lane-loud" 'while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done' "$in_lane | .spec.logs = {maxBytes: 65536, onLimit: \"kill\"}"
    after "$lane: logs.onLimit kill" LogLimitExceeded
    check "$lane: logs.onLimit kill: exit code 137" equal "$code" 137
    check "$lane: the log holds what was promised" equal "$(field '.logs | "\(.bytes) \(.truncated)"')" '65536 true'
    check "$lane: the reader is told" matches "$err" 'spec.logs.maxBytes'
  done
  submit word '' "$(job fork)"
  check "what the guest says of limits is marked as its word" equal "$(field '.vantage.guest | index("exit.reason") != null and index("exit.limitsHit.inside") != null')" true
  check "peak and overhead are on record" equal "$(field '.resources | (.peak.memoryBytes > 0) and (.peak.cpuMicros > 0) and (.overhead.memoryBytes > 0) and (.enforced.memoryBytes == .requested.memoryBytes + .overhead.memoryBytes)')" true
  deadline_job spin '' "$short | $as_root | .spec.resources.limits.cpu = \"1500m\" | $(job spin)"
  deadline_job fork-hold '' "$short | $(job fork-hold)"
fi

if wants host-oom; then
  # The VMM itself runs into the cell's limit on the host: the limit is lowered to what it uses, and then it wants more.
  start host-oom 'sleep 3; /hostile memory' '.spec.resources.limits.memory = "512Mi" | .spec.container.command = ["/bin/sh", "-c"]'
  tag=$(basename "$node"/run/netns/cr-*-router) tag=${tag#cr-} tag=${tag%-router}
  for file in /sys/fs/cgroup/{memory,unified,.}/cellrun/"$tag/$uid"/memory.{usage_in_bytes,current}; do
    [ -r "$file" ] || continue
    limit=${file%/*}/memory.limit_in_bytes
    [ -w "$limit" ] || limit=${file%/*}/memory.max
    echo $(($(cat "$file") + (8 << 20))) >"$limit"
    break
  done
  vmm=$(vmm_pid "$uid")
  code=0; cellrun wait "$uid" >/dev/null 2>&1 || code=$?
  load_record "$uid"
  after host-oom OOMKilledHost
  check "host-oom: exit code 137" equal "$code" 137
  check "host-oom: the host counted it" equal "$(field '.exit.limitsHit.hostOomKills > 0')" true
  check "host-oom: no QEMU" [ ! -d "/proc/$vmm" ]
fi

if wants flood; then
  rss_kib() { sed -n 's/^VmRSS:\s*\([0-9]*\).*/\1/p' "/proc/$daemon_pid/status"; }
  for lane in process microvm; do
    [ "$lane" = microvm ] && in_lane='.' || in_lane=$process_lane
    submit "$lane-warm" '' "$in_lane | $(job flood 20000000)"
    before=$(rss_kib)
    # A reader that never reads: it must hold up nobody.
    start "$lane-flood" '' "$in_lane | .spec.activeDeadlineSeconds = 15 | .spec.terminationGracePeriodSeconds = 1 | $(job flood "$flood_bytes")"
    mkfifo "$node/deaf"
    cellrun logs -f "$uid" >"$node/deaf" 2>/dev/null & reader=$!
    exec 9<"$node/deaf"
    began=$(boot_ns)
    timeout 120 "$build/tools/cellrun/cellrun" wait "$uid" >/dev/null 2>&1 || true
    took=$((($(boot_ns) - began) / 1000000))
    load_record "$uid"
    grown=$(($(rss_kib) - before))
    kill -KILL "$reader"; wait "$reader" 2>/dev/null || true
    exec 9<&-; rm "$node/deaf"
    say "$lane: flood: $(field .exit.reason) after $took ms, the daemon grew by $grown KiB"
    check "$lane: flood: ends by itself or at its deadline" matches "$(field .exit.reason)" '^(Completed|DeadlineExceeded)$'
    check "$lane: flood: the deadline did not move" [ "$(field '.exit.deadline.overrunMs')" -le 1000 ]
    check "$lane: flood: the log is bounded" equal "$(field '.logs | "\(.bytes) \(.truncated)"')" '16777216 true'
    check "$lane: flood: the daemon grew by at most 1 MiB ($grown KiB)" [ "$grown" -le 1024 ]
    check "$lane: flood: CLEAN" is_clean
    check "$lane: flood: the neighbour goes on" neighbour_lives
  done
fi

if wants pipes; then
  for lane in microvm process; do
    [ "$lane" = microvm ] && in_lane='.' || in_lane=$process_lane
    submit "$lane-daemon" '' "$in_lane | $(job daemon)"
    after "$lane: a child that keeps stdout" Completed
    check "$lane: a child that keeps stdout: the output came" equal "$out" left
    submit "$lane-closed" 'exec >&- 2>&- <&-; exit 3' "$in_lane"
    after "$lane: closed pipes" Error
    check "$lane: closed pipes: exit code 3" equal "$code" 3
  done
fi

if wants guest; then
  taken() { echo ".spec.container.env = [{name: \"HOSTILE\", value: \"$1\"}]"; }
  for what in panic reboot poweroff; do
    submit "$what" 'sleep 1000' "$short | .spec.activeDeadlineSeconds = 30 | $(taken "$what")"
    after "guest: $what" VmmCrashed
    check "guest: $what: exit code 125" equal "$code" 125
  done
  deadline_job halt 'trap "" TERM; while :; do sleep 1; done' "$short | $(taken halt)"
  for year in 1970 2100; do
    deadline_job "clock-$year" 'trap "" TERM; while :; do date +%Y; sleep 0.5; done' "$short | $(taken "clock-$year")"
    check "clock-$year: the guest's clock was set" matches "$(cellrun logs "$uid")" "$year"
  done
  for what in garbage oversized; do
    submit "$what" 'sleep 1000' "$short | .spec.activeDeadlineSeconds = 30 | $(taken "$what")"
    after "guest: $what on the control channel" AgentUnreachable
  done
fi

cellrun cancel "$neighbour" >/dev/null
cellrun wait "$neighbour" >/dev/null 2>&1 || true
load_record "$neighbour"
check "the neighbour ended when it was told to" equal "$(field .exit.reason)" CancelledByUser
check "the neighbour: CLEAN" is_clean
finish
