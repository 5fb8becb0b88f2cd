#!/usr/bin/env bash
# A whole node with an uplink, in a network namespace of its own that stands for a host: what rules allow reaches a sink host
# under the host's address, from a process cell and from a guest, and nothing is left of it afterwards.
. "$(dirname "$0")/lib.sh"
needs_guest
for tool in unshare nsenter ip; do command -v "$tool" >/dev/null || skip "needs $tool (util-linux, iproute2)"; done
if [ "${1:-}" != inside ]; then
  exec unshare --net -- "$0" inside
fi

# The sink knows the host's address and no way to any other.
www=$(mktemp -d /tmp/cellrun-sink.XXXXXX)
echo hello >"$www/hello"
unshare --net --pid --kill-child busybox httpd -f -v -p 8080 -h "$www" 2>"$www/log" & sink=$!
unshare --pid --kill-child busybox httpd -f -p 8080 -h "$www" & own=$!   # a service of the host itself, on each of its addresses
names=''
leave() { status=$?; set +e; kill -KILL "$sink" "$own" $names 2>/dev/null; wait "$sink" "$own" $names 2>/dev/null; rm -rf "$www"; (exit "$status"); node_down; }
trap leave EXIT
for _ in $(seq 1 100); do
  [ "$(readlink "/proc/$sink/ns/net")" = "$(readlink /proc/self/ns/net)" ] || break
  read -r -t 0.05 <> <(:) || true
done
ip link set lo up
ip link add wan0 type veth peer name sink0 netns "$sink"
ip addr add 203.0.113.1/24 dev wan0
ip link set wan0 up
ip route add default via 203.0.113.2
for command in "link set lo up" "addr add 203.0.113.2/24 dev sink0" "addr add 198.51.100.2/32 dev sink0" "link set sink0 up"; do
  # shellcheck disable=SC2086
  nsenter --target "$sink" --net ip $command
done
forwarding() { cat /proc/sys/net/ipv4/conf/wan0/forwarding; }
check "the host is no router" equal "$(forwarding)" 0

echo 'api.example.test A 300 198.51.100.2' >"$www/zone"
: >"$www/asked"
nsenter --target "$sink" --net "$build/tests/e2e/dns-server" "$www/zone" "$www/asked" & names=$!
node_up $'[network]\nuplink = "wan0"\ndns_upstream = ["203.0.113.2"]'
trap leave EXIT
cellrun keygen "$node/etc/net" >/dev/null
cellrun trust add "$node/etc/net.pub" --namespace test --min-tier 0 --egress public >/dev/null
tag=$(basename "$node"/run/netns/cr-*-router) tag=${tag#cr-} tag=${tag%-router}
check "the uplink's interface forwards" equal "$(forwarding)" 1

allow='.spec.network.egress.rules = [{to: {cidr: "198.51.100.2/32"}, ports: [8080]}]'
try='get() { printf "GET /hello HTTP/1.0\r\n\r\n" | nc -w 5 "$1" "$2" | tail -n 1; }
get 198.51.100.2 8080; get 198.51.100.2 80; get 203.0.113.2 8080; get 203.0.113.1 8080; echo done'
run_as_net() { # NAME FILTER
  spec "$1" "$try" "$2" >"$node/$1.json"
  uid=$(jq -r .metadata.uid "$node/$1.json")
  code=0
  out=$(cellrun submit "$node/$1.json" --key "$node/etc/net.key" 2>"$node/$1.err") || code=$?
  [ "$code" = 0 ] || cat "$node/$1.err"
  load_record "$uid"
}
denied() { field '[.egress.decisions[] | select(.verdict == "denied" and .dst == "'"$1"'" and .port == '"$2"') | .reason] | unique | join(" ")'; }
check_lane() { # LANE FILTER
  run_as_net "$1" "$2 | $allow"
  check "$1: the job succeeds" equal "$code" 0
  check "$1: what the rule allows arrives, another port, another address and the host do not" equal "$out" $'hello\ndone'
  check "$1: the record lists the allowed flow" equal "$(field '[.egress.decisions[] | select(.verdict == "allowed") | "\(.dst):\(.port)"] | unique | join(" ")')" 198.51.100.2:8080
  check "$1: and the denied port" equal "$(denied 198.51.100.2 80)" default-deny
  check "$1: and the denied address" equal "$(denied 203.0.113.2 8080)" default-deny
  check "$1: and the host" equal "$(denied 203.0.113.1 8080)" host
  check "$1: the account balances" equal "$(field '.egress.accounting | .seen + .suppressed + .lost == .counted and .counted > 0')" true
  check "$1: the canary was blocked and counted again at the end" equal "$(field '.egress.canaryAtEnd | .proven and .sent == .blocked and .sent == .counted')" true
  check "$1: CLEAN" is_clean
}
check_lane process "$process_lane"
check "the sink was called by the host's address and by no other" equal "$(grep -oE '[0-9]+(\.[0-9]+){3}' "$www/log" | sort -u)" 203.0.113.1

try='printf "GET /hello HTTP/1.0\r\n\r\n" | nc -w 5 api.example.test 8080 | tail -n 1; nc -w 2 other.example.test 8080; echo done' \
  run_as_net names "$process_lane"' | .spec.network.egress.rules = [{to: {fqdn: "api.example.test"}, ports: [8080]}]'
check "names: the resolver asks through the uplink, and the cell reaches what it answers" equal "$out" $'hello\ndone'
check "names: nobody is asked for another" equal "$(grep -c other "$www/asked")" 0
tracked() { nsenter --net="$(echo "$node"/run/netns/cr-*-router)" grep -c "$1" /proc/net/nf_conntrack || true; }
if [ -e /proc/net/nf_conntrack ]; then
  check "names: the resolver's own questions are tracked" [ "$(tracked 'src=100\.127\..* dport=53 ')" -ge 1 ]
  check "names: a cell's are not, so they cannot fill the table" equal "$(tracked 'src=100\.64\..* dport=53 ')" 0
fi

before=$(ip -o link show "cu$tag" | cut -d: -f1)
kill -KILL "$daemon_pid"; wait "$daemon_pid" 2>/dev/null || true; daemon_pid=''
start_daemon
check "a restarted daemon adopts the uplink" equal "$(ip -o link show "cu$tag" | cut -d: -f1)" "$before"
run_as_net again "$process_lane | $allow"
check "and its jobs get out" equal "$out" $'hello\ndone'

check_lane microvm .

stop_daemon
code=0
err=$(CELLRUN_NETWORK_UPLINK=eth7 timeout 60 "$build/runtime/daemon/cellrund" --config "$node/etc/config.toml" 2>&1) || code=$?
check "an interface that does not exist is refused" equal "$code" 1
check "with what to do" matches "$err" 'uplink = "eth7": the host has no interface of that name; set it to'
"$build/runtime/daemon/cellrund" --config "$node/etc/config.toml" --remove-node
check "without the node the host is as it was: forwarding" equal "$(forwarding)" 0
check "links" equal "$(ip -br link | awk '{print $1}' | cut -d@ -f1 | sort | tr '\n' ' ')" "lo wan0 "
check "nftables" equal "$(nft list ruleset)" ""
finish
[ -e /proc/net/nf_conntrack ] || skip "needs /proc/net/nf_conntrack to see what is tracked; all else held"
