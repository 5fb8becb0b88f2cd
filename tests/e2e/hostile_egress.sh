#!/usr/bin/env bash
# Guests that do all they can to get out: a probe that takes init's place in the guest and floods through its network card
# as root from its first instruction, and the same probe as a job in both lanes. A sink on the router's uplink writes down
# everything that arrives: it must be what the policy allows, and nothing else.
# CELLRUN_MACHINES and CELLRUN_PROCESSES say how often each lane starts (100 each; 0 leaves one out).
. "$(dirname "$0")/lib.sh"
needs_guest
machines=${CELLRUN_MACHINES:-100} processes=${CELLRUN_PROCESSES:-100}
[ $((machines + processes)) -gt 0 ] || { echo "needs at least one start"; exit 1; }

taken_over_guest "$build/tests/guests/egress-probe"
node_up $'enabled = ["process", "microvm"]'
"$here/tools/demo-image" --name registry.local/demo/probe --add "$build/tests/guests/egress-probe=/probe" "$node/probe.tar" >/dev/null
image=$(cellrun image import "$node/probe.tar" | tail -n 1)
cellrun keygen "$node/etc/net" >/dev/null
cellrun trust add "$node/etc/net.pub" --namespace test --min-tier 0 --egress public >/dev/null

router=$(echo "$node"/run/netns/*-router)
unshare --net "$build/tests/guests/egress-sink" sink0 >"$node/arrived" & sink=$!
trap 'status=$?; set +e; kill -KILL "$sink" 2>/dev/null; wait "$sink" 2>/dev/null; (exit "$status"); node_down' EXIT
until_ns() { [ "$(readlink "/proc/$sink/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
for _ in $(seq 1 200); do until_ns && break; read -r -t 0.05 <> <(:) || true; done
sysctl_in() { nsenter --target "$sink" --net sysctl -qw "$1"; }
sysctl_in net.ipv6.conf.default.disable_ipv6=1
nsenter --net="$router" ip link add up0 type veth peer name sink0
nsenter --net="$router" ip link set sink0 netns "$sink"
nsenter --net="$router" ip addr add 198.51.100.1/24 dev up0
nsenter --net="$router" ip link set up0 up
nsenter --target "$sink" --net ip addr add 198.51.100.2/24 dev sink0
nsenter --target "$sink" --net ip link set sink0 up
for _ in $(seq 1 200); do grep -q listening "$node/arrived" && break; read -r -t 0.05 <> <(:) || true; done
grep -q listening "$node/arrived" || { echo "the sink does not listen"; exit 1; }

# The host's own addresses are targets too.
hosts=$(ip -4 -o addr show scope global | awk '{split($4, a, "/"); print a[1]}' | jq -Rsc 'split("\n") | map(select(. != ""))')
probe=".spec.container.command = [\"/probe\"] | .spec.container.args = $hosts
  | .spec.network = {egress: {rules: [{to: {cidr: \"198.51.100.2/32\"}, ports: [8080], protocol: \"udp\"}]}}"
as_root='.spec.container.securityContext = {runAsUser: 0, runAsGroup: 0, capabilities: ["CAP_NET_RAW", "CAP_NET_ADMIN"]}'

# One start: what its program printed goes to out.<uid>.
one() { # TEMPLATE UID
  sed "s/00000000-0000-7000-8000-000000000000/$2/" "$1" >"$node/job.$2"
  cellrun submit "$node/job.$2" --key "$node/etc/net.key" >"$node/out.$2" 2>&1 || cat "$node/out.$2"
  rm -f "$node/job.$2"
}

# run LANE STARTS AT-ONCE FILTER: sets ended, whole, clean (how many of the jobs were), reasons (all that were counted) and opened
# (the socket families that a job got and should not have).
run() {
  local number uid batch=() pids=() end complete balanced verdict counters
  ended=0 whole=0 clean=0 reasons='' opened=''
  spec "$1" '' "$probe | $4 | .metadata.uid = \"00000000-0000-7000-8000-000000000000\" |
    .metadata.expiresAt = \"$(date -u -d '+20 hours' +%Y-%m-%dT%H:%M:%SZ)\"" >"$node/template"
  for number in $(seq 1 "$2"); do
    uid=$(cellrun keygen --uuid)
    one "$node/template" "$uid" & pids+=($!) batch+=("$uid")
    [ "${#batch[@]}" = "$3" ] || [ "$number" = "$2" ] || continue
    wait "${pids[@]}"
    while read -r end complete balanced verdict counters; do
      [ "$end" != Completed ] || ended=$((ended + 1))
      [ "$complete $balanced" != "complete true" ] || whole=$((whole + 1))
      [ "$verdict" != CLEAN ] || clean=$((clean + 1))
      for reason in $counters; do [[ "$reasons " == *" $reason "* ]] || reasons+=" $reason"; done
    done < <(for uid in "${batch[@]}"; do cellrun evidence export "$uid"; done | jq -r '.payload | @base64d | fromjson | .predicate |
      [.exit.reason, .completeness, (.egress.accounting | .seen + .suppressed + .lost == .counted), .teardown.verdict,
       (.egress.counters[].reason)] | join(" ")')
    for uid in "${batch[@]}"; do opened+=$(grep opens "$node/out.$uid" || true); rm -f "$node/out.$uid"; done
    batch=() pids=()
    [ $((number % 500)) != 0 ] || say "      $1: $number starts, $ended ran, $whole accounts whole, $clean clean"
  done
}
counted() { local reason missing=''; for reason in "$@"; do [[ "$reasons " == *" $reason "* ]] || missing+=" $reason"; done; equal "$missing" ""; }

if [ "$processes" -gt 0 ]; then
  run process "$processes" 4 "$process_lane"
  check "process: the probe ran each time" equal "$ended" "$processes"
  check "process: each account is complete and balances" equal "$whole" "$processes"
  check "process: CLEAN each time" equal "$clean" "$processes"
  check "process: no packet or vsock sockets" equal "$opened" ""
  check "process: what its sockets let it send was counted by reason" counted default-deny fragment metadata router cell-network private allowed
fi
if [ "$machines" -gt 0 ]; then
  run microvm "$machines" 2 "$as_root"
  check "microvm: the probe ran each time" equal "$ended" "$machines"
  check "microvm: each account is complete and balances" equal "$whole" "$machines"
  check "microvm: CLEAN each time" equal "$clean" "$machines"
  check "microvm: no packet or vsock sockets, not even for root" equal "$opened" ""
  check "microvm: every way to get out was tried and counted" counted \
    vlan truncated source-mac arp ipv6 ethertype group-mac destination-mac malformed ip-options ttl fragment source-address icmp \
    protocol broadcast multicast reserved this-network loopback metadata link-local cell-network router private default-deny allowed
fi

kill -TERM "$sink"; wait "$sink" || true
arrived=$(grep -v listening "$node/arrived" || true)
echo "$arrived" | sed 's/^/      arrived: /'
# The router asks who has the sink's address before it hands on what the policy allows.
check "nothing arrived that the policy does not allow" equal "$(grep -vE '^[0-9]+ (arp 198\.51\.100\.2|ipv4 198\.51\.100\.2 protocol 17 port 8080)$' <<<"$arrived" || true)" ""
check "and what it allows did, from each start" test "$(sed -n 's/^\([0-9]*\) ipv4 198.51.100.2 .*/\1/p' <<<"$arrived")" -ge $((processes + machines))
nft_packets() { nsenter --net="$router" nft list counter inet cellrun "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
check "nothing got past a filter unmarked" equal "$(nft_packets unmarked) $(nft_packets delivered)" "0 0"
finish
