#!/usr/bin/env bash
# Names by the real programs: a cell's resolver answers exactly the names of its policy, asks nobody about any other, and
# what it answers is what the filter opens, for as long as the answer holds. The name server and the host behind the
# names are in a namespace of the test's own, on the router's uplink.
. "$(dirname "$0")/lib.sh"
needs_guest
server=$build/tests/e2e/dns-server
[ -x "$server" ] || skip "needs $server"
node_up $'enabled = ["process", "microvm"]\n[network]\ndns_upstream = ["198.51.100.2"]'
cellrun keygen "$node/etc/net" >/dev/null
cellrun keygen "$node/etc/inner" >/dev/null
cellrun trust add "$node/etc/net.pub" --namespace test --min-tier 0 --egress public --egress 'wildcard:*.wild.test' >/dev/null
cellrun trust add "$node/etc/inner.pub" --namespace test --min-tier 0 --egress public --egress private:10.9.0.0/16 >/dev/null

cat >"$node/zone" <<'ZONE'
api.example.test A 300 198.51.100.2
alias.example.test CNAME 300 edge.cdn.test
edge.cdn.test CNAME 60 pop.cdn.test
pop.cdn.test A 30 198.51.100.2
circle.example.test CNAME 60 round.example.test
round.example.test CNAME 60 circle.example.test
rebind.example.test A 1 10.9.0.5
metadata.example.test A 1 169.254.169.254
loop.example.test A 1 127.0.0.1
router.example.test A 1 100.64.0.0
cell.example.test A 1 100.64.0.3
mixed.example.test A 1 169.254.169.254
mixed.example.test A 1 198.51.100.2
short.example.test A 0 198.51.100.3
one.wild.test A 60 198.51.100.2
secret.example.test A 60 198.51.100.2
ZONE
for i in $(seq 1 40); do echo "many.example.test A 60 198.51.100.$((100 + i))"; done >>"$node/zone"
: >"$node/asked"

# The namespace lives as long as its first process.
router=$(echo "$node"/run/netns/*-router)
mkdir -p "$node/www" && echo hello >"$node/www/hello"
unshare --net --pid --kill-child busybox httpd -f -p 8080 -h "$node/www" & sink=$!
names=''
trap 'status=$?; set +e; kill -KILL $names "$sink" 2>/dev/null; wait $names "$sink" 2>/dev/null; (exit "$status"); node_down' EXIT
for _ in $(seq 1 100); do
  [ "$(readlink "/proc/$sink/ns/net")" = "$(readlink /proc/self/ns/net)" ] || break
  read -r -t 0.05 <> <(:) || true
done
nsenter --net="$router" ip link add up0 type veth peer name sink0
nsenter --net="$router" ip link set sink0 netns "$sink"
nsenter --net="$router" ip addr add 198.51.100.1/24 dev up0
nsenter --net="$router" ip link set up0 up
for command in "addr add 198.51.100.2/24 dev sink0" "addr add 198.51.100.3/24 dev sink0" "link set sink0 up" "link set lo up" \
  "route add default via 198.51.100.1"; do
  # shellcheck disable=SC2086
  nsenter --target "$sink" --net ip $command
done
nsenter --target "$sink" --net "$server" "$node/zone" "$node/asked" & names=$!

asked() { grep -c "^$1 " "$node/asked" || true; } # NAME
submit_as() { # KEY NAME COMMAND FILTER
  spec "$2" "$3" "$4" >"$node/$2.json"
  uid=$(jq -r .metadata.uid "$node/$2.json")
  code=0
  out=$(cellrun submit "$node/$2.json" --key "$node/etc/$1.key" 2>"$node/$2.err") || code=$?
  err=$(cat "$node/$2.err")
  load_record "$uid"
}
rules() { # NAME... : a filter that gives the job these names on port 8080
  local list='' name
  for name in "$@"; do list+="{to: {fqdn: \"$name\"}, ports: [8080]},"; done
  echo "$process_lane | .spec.network.egress.rules = [${list%,}]"
}
verdicts() { field "[.egress.dns[] | select(.name == \"$1\") | .verdict] | unique | join(\" \")"; } # NAME
# In the cell: the addresses of a name, one a line; and a page from an address.
shell='addresses() { nslookup -type=a "$1" 2>&1 | sed -n "/^Name:/,\$s/^Address: //p"; }
page() { printf "GET /hello HTTP/1.0\r\n\r\n" | nc -w 3 "$1" 8080 2>/dev/null | tail -n 1; }
'

submit_as net name "$shell"'cat /etc/resolv.conf; page 198.51.100.2 || true; echo -; a=$(addresses api.example.test); echo "$a"; page "$a"; addresses API.Example.Test.' \
  "$(rules api.example.test)"
check "a job with names runs" equal "$code" 0
check "its resolv.conf names the gateway; a hard-coded address is denied; the name resolves and connects" matches "$out" \
  $'^nameserver 100\.64\.[0-9.]+\n-\n198\.51\.100\.2\nhello\n198\.51\.100\.2$'
check "the record lists the query, its verdict and the address" equal \
  "$(field '.egress.dns[] | select(.name == "api.example.test" and .type == "A") | "\(.verdict) \(.addresses | join(","))"')" "answered 198.51.100.2"
check "and the attempt before" equal "$(field '[.egress.decisions[] | select(.port == 8080 and .dst == "198.51.100.2") | .verdict] | unique | join(" ")')" "allowed denied"
check "the account of queries balances" equal "$(field '.egress.resolver | (.counters | map(.queries) | add) as $sum | .accounting | .seen + .suppressed == $sum and .counted == $sum and $sum > 0')" true
check "no wildcard, not tunnel-capable" equal "$(field .egress.resolver.tunnelCapable)" false
check "the second question came out of the cell's cache" equal "$(asked api.example.test)" 1
check "flows shows the query" equal "$(cellrun flows "$uid" --json | jq -r '[.dns[] | select(.verdict == "answered") | .name] | unique | join(" ")')" api.example.test
check "and counts it" matches "$(cellrun flows "$uid" --json | jq .dnsCounters.answered)" '^[1-9]'
check "the page for people, too" matches "$(cellrun flows "$uid")" 'api\.example\.test +A +answered +198\.51\.100\.2'
check "CLEAN" is_clean

long=$(printf 'a%.0s' $(seq 1 60))
submit_as net exfil "$shell"'addresses secret.example.test; addresses '"$long.$long.$long"'.example.test; addresses c2vjcmv0.api.example.test
for t in txt any null mx; do nslookup -type=$t api.example.test >/dev/null 2>&1; done; nslookup -type=a secret.example.test 198.51.100.2 2>&1 | grep -c 198.51.100.3; exit 0' \
  "$(rules api.example.test)"
check "E06 a name that is not of the policy resolves to nothing" equal "$out" 0
check "and nobody was asked about it" equal "$(asked secret.example.test) $(asked "$long.$long.$long.example.test") $(asked c2vjcmv0.api.example.test)" "0 0 0"
check "nor in any other type" equal "$(grep -cvE ' A (udp|tcp)$' "$node/asked" || true)" 0
check "the record has the names" equal "$(verdicts secret.example.test) $(verdicts c2vjcmv0.api.example.test)" "not-listed not-listed"
check "and the refused types" matches "$(verdicts api.example.test)" '^type$'
check "a name server outside is denied" equal "$(field '[.egress.decisions[] | select(.dst == "198.51.100.2" and .port == 53) | .verdict] | unique | join(" ")')" denied
check "CLEAN" is_clean

submit_as net others 'for p in 53 853 443; do nc -w 1 198.51.100.2 $p </dev/null || echo "shut $p"; done
g=$(sed -n "s/nameserver //p" /etc/resolv.conf); for p in 80 853 443 5353; do nc -w 1 $g $p </dev/null || echo "gateway shut $p"; done
for t in 224.0.0.251:5353 224.0.0.252:5355 $g:5353 $g:123; do timeout 2 nslookup -type=a api.example.test $t >/dev/null 2>&1 & done; wait; exit 0' "$(rules api.example.test)"
check "E07 DNS over TCP, DoT and DoH to anybody else are denied" equal "$out" $'shut 53\nshut 853\nshut 443\ngateway shut 80\ngateway shut 853\ngateway shut 443\ngateway shut 5353'
check "the gateway has that one port" equal "$(field '[.egress.decisions[] | select(.reason == "router") | .port] | unique | map(tostring) | join(" ")')" "80 123 443 853 5353"
check "mDNS and LLMNR go nowhere" equal \
  "$(field '[.egress.decisions[] | select(.dst // "" | startswith("224.0.0.25")) | "\(.dst) \(.verdict)"] | unique | join(", ")')" "224.0.0.251 denied, 224.0.0.252 denied"

submit_as job unlisted 'true' "$(rules api.example.test)"
check "a key without a grant names no host" equal "$code $(field .exit.reason)" "77 PolicyDenied"
submit_as net wild true "$(rules '*.example.test')"
check "a wildcard takes a grant of its own" matches "$code $err" '^77.*wildcard:\*\.example\.test'
submit_as net wildcard "$shell"'a=$(addresses one.wild.test); page "$a"; addresses wild.test' "$(rules '*.wild.test')"
check "with it any name below is answered" equal "$out" hello
check "and the record calls the job tunnel-capable" equal "$(field '.egress.resolver.tunnelCapable, (.egress.relaxations | join(" "))' | tr '\n' ' ')" "true public wildcard:*.wild.test "

submit_as net chain "$shell"'a=$(addresses alias.example.test); echo "$a"; page "$a"; addresses circle.example.test; exit 0' \
  "$(rules alias.example.test circle.example.test)"
check "E15 a chain of CNAMEs leads to its address" equal "$out" $'198.51.100.2\nhello'
check "and a circle to nothing" equal "$(verdicts circle.example.test)" upstream

bad='rebind metadata loop router cell'
submit_as net rebind "$shell"'for n in '"$bad"'; do addresses $n.example.test; done; page 10.9.0.5; page 169.254.169.254; echo -; a=$(addresses mixed.example.test); echo "$a"; page "$a"' \
  "$(rules $(printf '%s.example.test ' $bad) mixed.example.test)"
check "E15 answers that point inside are dropped" equal "$out" $'-\n198.51.100.2\nhello'
for name in $bad; do check "  $name" equal "$(verdicts "$name.example.test")" denied-address; done
check "the record says why" equal "$(field '[.egress.dns[] | select(.verdict == "denied-address") | .addresses[0]] | sort | join(", ")')" \
  "10.9.0.5 private, 100.64.0.0 router, 100.64.0.3 cell-network, 127.0.0.1 loopback, 169.254.169.254 metadata"
submit_as inner bound "$shell"'addresses rebind.example.test; exit 0' "$(rules rebind.example.test)"
check "a public name reaches no private address of the grant by itself" equal "$out $(verdicts rebind.example.test)" " denied-address"
submit_as inner granted "$shell"'addresses rebind.example.test; addresses metadata.example.test; exit 0' \
  "$(rules rebind.example.test metadata.example.test) | .spec.network.egress.rules += [{to: {cidr: \"10.9.0.0/24\"}, ports: [22]}]"
check "a rule around it lets it, and opens nothing else" equal "$out" 10.9.0.5

submit_as net expected "$shell"'addresses api.example.test; page 198.51.100.2; exit 0' \
  "$(rules api.example.test) | .spec.network.expectBlocked = [{to: \"198.51.100.2\", port: 8080}]"
check "no name opens a target that is expected to be blocked" equal "$code $out $(verdicts api.example.test)" "0  denied-address"
check "and the canary proves it blocked at the end" equal "$(field .egress.canaryAtEnd.proven)" true

submit_as net many "$shell"'addresses many.example.test | sort | uniq | wc -l' "$(rules many.example.test)"
check "an answer too large for a datagram is asked for over TCP" matches "$(grep '^many' "$node/asked" | tr '\n' ',')" 'many.example.test A udp,many.example.test A tcp'
check "and is cut short for the cell over UDP" equal "$(verdicts many.example.test)" answered

submit_as net budget "$shell"'for i in 1 2 3 4 5 6; do nslookup -type=a api.example.test >/dev/null 2>&1; done; exit 0' \
  "$(rules api.example.test) | .spec.network.egress.quota.dnsQueries = 4"
check "a used-up query budget refuses" equal "$(field '[.egress.dns[] | select(.name == "api.example.test" and .verdict == "answered") | .count] | add')" 4
check "and counts" matches "$(field '[.egress.dns[] | select(.verdict == "quota") | .count] | add')" '^[1-9]'

submit_as net expiry "$shell"'a=$(addresses short.example.test); page "$a"; sleep 37; page "$a" || true; echo -; addresses short.example.test >/dev/null; page "$a"' \
  "$(rules short.example.test) | .spec.activeDeadlineSeconds = 120"
check "E15 an address leaves with its time, and comes back with the next answer" equal "$out" $'hello\n-\nhello'
check "the attempt in between was denied as expired" matches "$(field '[.egress.decisions[] | .reason] | unique | join(" ")')" expired

spec confined 'while :; do sleep 1; done' "$(rules api.example.test)" >"$node/confined.json"
uid=$(cellrun submit -d "$node/confined.json" --key "$node/etc/net.key")
wait_state "$uid" RUNNING
pid=$(pgrep -f "^$node/libexec/cellrun-resolver")
status() { sed -n "s/^$1:\t//p" "/proc/$pid/status"; }
check "the resolver has no capabilities, cannot gain any, and is under seccomp" equal \
  "$(status CapEff) $(status CapBnd) $(status NoNewPrivs) $(status Seccomp)" "0000000000000000 0000000000000000 1 2"
check "it has a uid of its own" matches "$(status Uid)" '^[1-9][0-9]{8,}'
check "it sees no file" equal "$(find "/proc/$pid/root/" | wc -l)" 1
check "it is in the router's namespace" equal "$(readlink "/proc/$pid/ns/net")" "$(nsenter --net="$router" readlink /proc/self/ns/net)"
kill -KILL "$pid"
for _ in $(seq 1 50); do
  cellrun flows "$uid" | grep -q 'the resolver died' && break
  read -r -t 0.1 <> <(:) || true
done
cellrun cancel "$uid" >/dev/null
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "one that died is a gap of the record" matches "$(field '[.gaps[].why] | join(" ")')" 'the resolver died'
check "CLEAN" is_clean

out=$(cellrun egress explain "$node/name.json" api.example.test:8080) && code=0 || code=$?
check "explain knows the names of a policy" matches "$code $out" '^0 allowed.*rules\[0\]'
out=$(cellrun egress explain "$node/name.json" other.example.test:8080) && code=0 || code=$?
check "and those that are not" matches "$code $out" '^3 denied.*default-deny'

submit_as net guest "$shell"'a=$(addresses api.example.test); echo "$a"; page "$a"; addresses secret.example.test; exit 0' \
  "$(rules api.example.test) | .spec.lane = \"microvm\" | .spec.minTier = 2"
check "a guest with a kernel of its own resolves and connects the same way" equal "$out" $'198.51.100.2\nhello'
check "and is refused the same way" equal "$(verdicts secret.example.test) $(asked secret.example.test)" "not-listed 0"
check "CLEAN" is_clean
sed -i 's/^dns_upstream.*/dns_upstream = []/' "$node/etc/config.toml"
stop_daemon && start_daemon
submit_as net nobody true "$(rules api.example.test)"
check "a node that has nobody to ask refuses names" matches "$code $(field .exit.reason) $err" '^77 PolicyDenied.*dns_upstream'
finish
