#!/usr/bin/env bash
# Guests that reset their machine: while they boot they come up again in the same VMM, a bounded number of times; once the
# workload may run a reset is the machine's end.
. "$(dirname "$0")/lib.sh"
needs_guest
command -v cpio >/dev/null || skip "needs cpio (tools/packages)"
resetting=$build/tests/guests/resetting-init
plain=$guest
guest=$(mktemp -d /tmp/cellrun-guest.XXXXXX)
chmod 0755 "$guest"
trap 'rm -rf "$guest"' EXIT
ln -s "$plain/vmlinux" "$guest/vmlinux"
# Emulated: there a reset leaves the time stamp counter alone, and the boot probe need not run with a guest like these.
export CELLRUN_LANES_ACCEL=tcg

guest_resets() { # WHEN: what /reset of the next guests says
  rm -rf "$guest/overlay" && mkdir "$guest/overlay"
  cp "$build/shim/guest/cell-init" "$guest/overlay/cell-init"
  cp "$resetting" "$guest/overlay/init"
  echo "$1" >"$guest/overlay/reset"
  # The kernel unpacks one archive after the other.
  { cat "$plain/initrd"; (cd "$guest/overlay" && printf '%s\n' cell-init init reset | cpio --quiet -o -H newc); } >"$guest/initrd.new"
  mv "$guest/initrd.new" "$guest/initrd"
}
restarts() { # how often the guest of job $uid was seen to start again
  grep -c "$uid.* step=guest-restart" "$node/run/containerd/log" || true
}

guest_resets "early $("$resetting" --ticks 4)"
node_up
trap 'node_down_and_guest' EXIT
node_down_and_guest() { local status=$?; rm -rf "$guest"; (exit "$status"); node_down; }

submit early 'echo up'
check "a guest that resets itself while it boots comes up" equal "$out" up
check "it is CLEAN" is_clean
check "it was restarted ($(restarts) times)" [ "$(restarts)" -ge 1 ]

guest_resets always
submit always 'echo up'
check "a guest that always resets never runs the workload" equal "$out" ""
check "after eight restarts its job is AgentUnreachable" equal "$(field .exit.reason), $(restarts)" "AgentUnreachable, 8"
check "it is CLEAN" is_clean

guest_resets 'late 6'
submit late 'echo up; sleep 50; echo never'
check "a reset after START ends the machine" equal "$out" up
check "the job ends with it, before its deadline" matches "$(field .exit.reason)" '^(VmmCrashed|AgentUnreachable)$'
check "nothing was restarted" equal "$(restarts)" 0
check "it is CLEAN" is_clean
finish
