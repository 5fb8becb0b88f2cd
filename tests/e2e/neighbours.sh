#!/usr/bin/env bash
# Two cells of one node, each listening and each trying all that could reach the other: addresses of the cells, broadcast and
# multicast, by TCP, UDP, ICMP and fragments. Nothing arrives on either side, in either lane; each attempt is counted. And a VMM has no way to its host beside
# the card, the disks and the two ports that the product gives it.
. "$(dirname "$0")/lib.sh"
needs_guest
node_up $'enabled = ["process", "microvm"]'
"$here/tools/demo-image" --name registry.local/demo/probe --add "$build/tests/guests/egress-probe=/probe" "$node/probe.tar" >/dev/null
image=$(cellrun image import "$node/probe.tar" | tail -n 1)

# Both listen before either sends, by the clock: AT is far enough away for both to be up.
both='nc -l -p 8080 </dev/null >/scratch/heard & listener=$!
own=$(ip -4 -o addr show dev eth0 | awk "{split(\$4, a, \"/\"); print a[1]}")
echo "own $own"
while [ "$(date +%s)" -lt AT ]; do sleep 0.2; done
others=""
for host in 1 3 5 7; do
  [ "$own" != "100.64.0.$host" ] || continue
  others="$others 100.64.0.$host"
  echo hello | nc -w 1 100.64.0.$host 8080
done
/probe $others 100.64.0.255 100.127.255.255 224.0.0.1 >/dev/null
sleep 3
kill -0 $listener && echo "heard $(wc -c </scratch/heard)"'

# The kinds of devices of this node's VMMs, which run as uids of this node alone.
vmm_devices() {
  local vmm uid
  for vmm in $(pgrep -f qemu-system); do
    uid=$(stat -c %u "/proc/$vmm" 2>/dev/null) || continue
    [ $((uid - CELLRUN_LANES_UID_BASE)) -ge 0 ] && [ $((uid - CELLRUN_LANES_UID_BASE)) -lt 10000 ] || continue
    tr '\0' '\n' <"/proc/$vmm/cmdline" | sed -n '/^-device$/{n;s/,.*//;p}'
  done | sort -u | paste -sd ' '
}
pair() { # LANE [jq filter]: two of them at once
  local at one two name
  at=$(($(date +%s) + $([ "$1" = process ] && echo 5 || echo 40)))
  for name in one two; do
    spec "$name" "${both/AT/$at}" "${2:-.} | .spec.resources.limits.memory = \"96Mi\" | .spec.activeDeadlineSeconds = 120" >"$node/$name.json"
    cellrun submit "$node/$name.json" --key "$node/etc/job.key" >"$node/$name.out" 2>"$node/$name.err" &
    eval "$name=\$!"
  done
  if [ "$1" = microvm ]; then
    wait_state "$(jq -r .metadata.uid "$node/two.json")" RUNNING
    check "microvm: no device but disks, card, random numbers and two ports" equal "$(vmm_devices)" \
      "virtio-blk-device virtio-net-device virtio-rng-device virtio-serial-device virtserialport"
  fi
  wait "$one" && wait "$two"
  for name in one two; do
    load_record "$(jq -r .metadata.uid "$node/$name.json")"
    check "$1: $name ran to its end" matches "$(cat "$node/$name.out")" 'own 100\.64\.0\.[0-9]+'
    check "$1: $name heard nothing" equal "$(tail -n 1 "$node/$name.out")" "heard 0"
    check "$1: what $name tried was counted by reason" equal \
      "$(field '[.egress.counters[].reason] | map(select(. == "cell-network" or . == "group-mac")) | unique | join(" ")')" "cell-network group-mac"
    check "$1: nothing was sent to $name but the canary" equal "$(field '[.egress.counters[] | select(.reason | startswith("inbound")) | .packets] | add')" 2
    check "$1: $name CLEAN" is_clean
  done
}

pair process "$process_lane"
pair microvm
finish
