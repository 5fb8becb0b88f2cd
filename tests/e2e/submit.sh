#!/usr/bin/env bash
# B01-B03: a signed job runs on a kernel of its own, its output arrives byte for byte, and its record verifies offline.
. "$(dirname "$0")/lib.sh"
needs_guest
node_up

submit answer 'echo 42; echo on stderr >&2'
check "the job succeeds" equal "$code" 0
check "stdout arrives byte for byte" equal "$out" 42
check "stderr arrives on stderr" matches "$err" 'on stderr'
check "state and reason are on record" equal "$(field '.exit.reason')" Completed
check "teardown is CLEAN" is_clean
check "the lane is microvm" equal "$(field .lane.name)" microvm
check "the accelerator is the one of the probe" equal "$(field .lane.accel)" "$(cellrun capacity --json | jq -r .accel)"
check "the output's digest is in the record" equal "$(field .logs.sha256 | sed s/^sha256://)" "$(cat "$node/answer.out" <(printf 'on stderr\n') | sha256sum | cut -d' ' -f1)"
check "something was created" [ "$(field '.teardown.created | length')" -gt 5 ]
check "every check of the scan was passed" equal "$(field '[.teardown.checks[] | select(.ok | not)] | length')" 0
check "the VMM ran under seccomp" equal "$(field .lane.vmm.seccomp)" 2
check "the VMM ran as no one else" [ "$(field .lane.vmm.uid)" -ge 1000000 ]

submit kernel 'uname -r; cat /proc/sys/kernel/random/boot_id; id -u; grep -c . /proc/cmdline; ls /dev/vport* /dev/virtio-ports 2>/dev/null | wc -l'
mapfile -t lines <<<"$out"
check "the guest's kernel is not the host's" [ "${lines[0]}" != "$(uname -r)" ]
check "the guest's boot id is not the host's" [ "${lines[1]}" != "$(cat /proc/sys/kernel/random/boot_id)" ]
check "both kernels are on record" equal "$(field '.node.kernel') $(field .lane.guestKernel.release)" "$(uname -r) ${lines[0]}"
check "the workload is not root" equal "${lines[2]}" 65534
check "the workload sees no control port" equal "${lines[4]}" 0

submit network 'nc -w 2 198.51.100.7 80 2>&1 || echo no way out'
check "nothing gets out" matches "$out" 'no way out'
check "the attempt is on record" equal "$(field '[.egress.decisions[] | select(.dst == "198.51.100.7" and .port == 80)] | length')" 1
check "the account balances" equal "$(field '.egress.accounting | .seen + .suppressed + .lost == .counted')" true
check "the canary was blocked and counted" equal "$(field '.egress.canary | .sent > 0 and .sent == .blocked and .sent == .counted')" true
check "cellrun flows shows it" matches "$(cellrun flows "$uid" --json)" '198\.51\.100\.7'

submit fails 'exit 42'
check "the job's exit code is cellrun's" equal "$code" 42
submit missing 'true' '.spec.container.command = ["/nonexistent"] | del(.spec.container.args)'
check "a command that is not there is 127" equal "$code" 127
submit dies 'kill -SEGV $$'
check "a signal is 128+n" equal "$code" 139
check "the signal is on record" equal "$(field .exit.signal)" 11

cellrun evidence export "$uid" >"$node/record.json"
check "the record verifies with the public key alone" env -i "$build/tools/cellrun/cellrun" evidence verify "$node/record.json" --key "$node/etc/node.pub" >/dev/null
sed 's/"payload":"e/"payload":"f/' "$node/record.json" >"$node/changed.json"
check "a changed record does not" equal "$(env -i "$build/tools/cellrun/cellrun" evidence verify "$node/changed.json" --key "$node/etc/node.pub" >/dev/null 2>&1; echo $?)" 3

# The same bytes again are the same job; other bytes under its uid are a replay, also after a restart.
cellrun sign "$node/answer.json" --key "$node/etc/job.key" >"$node/answer.env"
first=$(jq -r .metadata.uid "$node/answer.json")
check "the same bytes are the same job" equal "$(cellrun submit -d "$node/answer.env")" "$first"
stop_daemon && start_daemon
jq -c '.metadata.name = "other"' "$node/answer.json" >"$node/replay.json"
code=0; err=$(cellrun submit "$node/replay.json" --key "$node/etc/job.key" 2>&1 >/dev/null) || code=$?
check "other bytes under a used uid are refused after a restart" equal "$code" 77
check "the reason is Replayed" matches "$err" Replayed

lanes='.spec.lane = "kata"'
spec lane true "$lanes" >"$node/lane.json"
code=0; err=$(cellrun submit "$node/lane.json" --key "$node/etc/job.key" 2>&1 >/dev/null) || code=$?
check "a lane that is not here is refused" equal "$code" 77
check "the reason is LaneUnavailable" matches "$err" LaneUnavailable
load_record "$(jq -r .metadata.uid "$node/lane.json")"
check "the refusal left a sealed record" equal "$(field .exit.reason)" LaneUnavailable
finish
