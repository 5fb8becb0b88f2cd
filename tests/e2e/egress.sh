#!/usr/bin/env bash
# Egress policy by the real programs: what rules allow reaches a sink host in a namespace of the test's own, and nothing
# else does; quota, kill switch, tampering and a dead daemon cut it off.
. "$(dirname "$0")/lib.sh"
command -v tc >/dev/null || skip "needs tc"
node_up $'enabled = ["process"]'
cellrun keygen "$node/etc/net" >/dev/null
cellrun trust add "$node/etc/net.pub" --namespace test --min-tier 0 --egress public >/dev/null

# The sink hangs on the router's uplink and goes with its processes: a server that waits for the rest of a request too.
router=$(echo "$node"/run/netns/*-router)
mkdir -p "$node/www" && echo hello >"$node/www/hello"
unshare --net --pid --kill-child busybox httpd -f -p 8080 -h "$node/www" & sink=$!
trap 'status=$?; set +e; kill -KILL "$sink" 2>/dev/null; wait "$sink" 2>/dev/null; (exit "$status"); node_down' EXIT
for _ in $(seq 1 100); do
  [ "$(readlink "/proc/$sink/ns/net")" = "$(readlink /proc/self/ns/net)" ] || break
  read -r -t 0.05 <> <(:) || true
done
nsenter --net="$router" ip link add up0 type veth peer name sink0
nsenter --net="$router" ip link set sink0 netns "$sink"
nsenter --net="$router" ip addr add 198.51.100.1/24 dev up0
nsenter --net="$router" ip link set up0 up
for command in "addr add 198.51.100.2/24 dev sink0" "link set sink0 up" "link set lo up" "route add default via 198.51.100.1"; do
  # shellcheck disable=SC2086
  nsenter --target "$sink" --net ip $command
done
passed() { nsenter --net="$router" nft list counter inet cellrun passed | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }

rule='{to: {cidr: "198.51.100.2/32"}, ports: [8080]}'
allowed="$process_lane | .spec.network = {egress: {rules: [$rule]}, expectBlocked: [{to: \"198.51.100.2\", port: 80}]}"
fetch='printf "GET /hello HTTP/1.0\r\n\r\n" | nc -w 5 198.51.100.2 8080 | tail -n 1'
submit_as() { # KEY NAME COMMAND FILTER
  spec "$2" "$3" "$4" >"$node/$2.json"
  uid=$(jq -r .metadata.uid "$node/$2.json")
  code=0
  out=$(cellrun submit "$node/$2.json" --key "$node/etc/$1.key" 2>"$node/$2.err") || code=$?
  err=$(cat "$node/$2.err")
  load_record "$uid"
}
start_as_net() { # NAME COMMAND FILTER
  spec "$@" >"$node/$1.json"
  uid=$(cellrun submit -d "$node/$1.json" --key "$node/etc/net.key")
  wait_state "$uid" RUNNING
}

submit_as job ungranted "$fetch" "$allowed"
check "a key without a grant reaches nothing" equal "$code" 77
check "and the refusal names the rule" matches "$err" 'PolicyDenied.*|rules\[0\]'

submit_as net fetch "$fetch; nc -w 1 198.51.100.2 80 </dev/null || echo shut" "$allowed"
check "the job succeeds" equal "$code" 0
check "what the rule allows arrives, and another port does not" equal "$out" $'hello\nshut'
check "the record lists the allowed flow" equal "$(field '[.egress.decisions[] | select(.verdict == "allowed")] | length')" 1
check "and the denied one" matches "$(field '[.egress.decisions[] | select(.port == 80) | .reason] | unique | join(" ")')" default-deny
check "and the relaxation" equal "$(field '.egress.relaxations | join(" ")')" public
check "the account balances" equal "$(field '.egress.accounting | .seen + .suppressed + .lost == .counted and .counted > 0')" true
check "the canary was blocked and counted again at the end" equal "$(field '.egress.canaryAtEnd | .proven and .sent == .blocked and .sent == .counted and .sent == 5')" true
check "CLEAN" is_clean
check "flows shows both" equal "$(cellrun flows "$uid" --json | jq -c '[.flows[].verdict] | unique')" '["allowed","denied"]'

code=0; out=$(cellrun egress explain "$node/fetch.json" 198.51.100.2:8080) || code=$?
check "explain says what happens, and by which rule" matches "$code $out" '^0 allowed.*rules\[0\]'
code=0; out=$(cellrun egress explain "$node/fetch.json" 169.254.169.254:80) || code=$?
check "explain says why not" matches "$code $out" '^3 denied.*metadata'

# Nothing, null and an empty list of rules are the same: deny.
for rules in null empty absent; do
  case $rules in null) none='{rules: null}' ;; empty) none='{rules: []}' ;; absent) none='{}' ;; esac
  none="$process_lane | .spec.network = {egress: $none}"
  submit_as net "rules-$rules" "nc -w 1 198.51.100.2 8080 </dev/null && echo reached; true" "$none"
  check "rules $rules: denied, and counted" equal "$code $out $(field '[.egress.counters[] | select(.reason == "default-deny") | .packets] | add > 0')" "0  true"
done

# What no rule opens, under a rule for the whole Internet.
host=$(ip -4 -o addr show scope global | awk '{split($4, a, "/"); print a[1]; exit}')
submit_as net everything "for at in 169.254.169.254 169.254.170.2 100.100.100.200 100.64.0.9 \$(ip route | awk '/^default/ {print \$3}') ${host:-203.0.113.1} 10.0.0.1 127.0.0.2; do
    nc -w 1 \$at 8080 </dev/null && echo \"reached \$at\"; done; $fetch" \
  "$process_lane | .spec.network = {egress: {rules: [{to: {cidr: \"0.0.0.0/0\"}, ports: [8080]}]}}"
check "a rule for all addresses opens those of the Internet alone" equal "$out" hello
check "and each of the others was denied for a reason of its own" equal \
  "$(field '[.egress.decisions[] | select(.verdict == "denied" and .port == 8080) | .reason] | unique | map(select(. != "host" and . != "default-deny")) | join(" ")')" "cell-network metadata private router"

# The end of a rule: an address that has just been reached is shut. 
ends=$(date -u -d '+8 seconds' +%Y-%m-%dT%H:%M:%SZ)
submit_as net expiring "$fetch; while [ \$(date +%s) -le $(date -d "$ends" +%s) ]; do sleep 0.2; done; nc -w 2 198.51.100.2 8080 </dev/null || echo shut" \
  "$process_lane | .spec.network = {egress: {rules: [$rule + {expiresAt: \"$ends\"}]}}"
check "a rule that ends shuts what it had opened" equal "$out" $'hello\nshut'
check "and the record says that it has expired" equal "$(field '[.egress.decisions[] | select(.reason == "expired")] | length')" 1

submit_as net quota "while :; do $fetch >/dev/null; sleep 0.1; done" "$allowed | .spec.network.egress.quota = {packets: 30}"
check "a used-up quota ends the job" equal "$(field .exit.reason)" EgressQuotaExceeded
check "with its exit code" equal "$code" 137
check "and not one packet more" equal "$(field .egress.usage.packets)" 30
check "CLEAN" is_clean

submit_as net contradiction true "$allowed | .spec.network.expectBlocked = [{to: \"198.51.100.2\", port: 8080}]"
check "a target that is expected blocked and allowed does not start" equal "$(field .exit.reason)" EgressUnproven

loop="while :; do $fetch >/dev/null; sleep 0.2; done"
start_as_net switched "$loop" "$allowed"
switched=$uid
out=$(cellrun killswitch engage --json)
check "the kill switch lists the truth of the job" equal "$(jq -r --arg uid "$switched" '.jobs[] | select(.uid == $uid) | .network' <<<"$out")" cut
before=$(passed)
cellrun wait "$switched" >/dev/null 2>&1 || true
load_record "$switched"
check "the job ends" equal "$(field .exit.reason)" KillSwitch
check "and its record claims no proof at the end" equal "$(field '.egress.canaryAtEnd | "\(.proven) \(.why)"')" "false the network had been cut before"
check "and nothing passed any more" equal "$(passed)" "$before"
submit_as net refused true "$process_lane"
check "new jobs are refused" matches "$code $err" '^77.*KillSwitchEngaged|^77'
check "and say why" equal "$(field .exit.reason)" KillSwitchEngaged
stop_daemon && start_daemon
check "a restart keeps it engaged" equal "$(cellrun killswitch status --json | jq .engaged)" true
check "released, the node takes jobs again" equal "$(cellrun killswitch release --json | jq .engaged)" false
submit_as net again "$fetch" "$allowed"
check "and they reach what they may" equal "$out" hello

start_as_net tampered "$loop" "$allowed"
if [ -e "$node/run/bpf/"cr-*-"$uid"/link_out ]; then
  rm "$node/run/bpf/"cr-*-"$uid"/link_out
else
  link=$(nsenter --net="$router" ip -o link | sed -n 's/^[0-9]*: \(cj[0-9a-z]*\)@.*/\1/p' | head -n 1)
  nsenter --net="$router" tc qdisc del dev "$link" clsact
fi
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "a filter that was taken away ends the job" equal "$(field .exit.reason)" EgressUnproven

start_as_net orphan "$loop" "$allowed | .spec.activeDeadlineSeconds = 60"
kill -KILL "$daemon_pid"; wait "$daemon_pid" 2>/dev/null || true; daemon_pid=''
read -r -t 10 <> <(:) || true
before=$(passed)
read -r -t 2 <> <(:) || true
check "ten seconds after the daemon died nothing leaves a cell" equal "$(passed)" "$before"
start_daemon
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "and the restarted daemon ends what it finds" equal "$(field .exit.reason)" DaemonRestarted
finish
