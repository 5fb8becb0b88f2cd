#!/usr/bin/env bash
# A cell that floods at 100,000 packets a second, by the real programs: everything is dropped, the account balances in the
# sealed record, `flows` tells it live and afterwards, and the daemon does not grow.
# CELLRUN_FLOOD_SECONDS says for how long (2).
. "$(dirname "$0")/lib.sh"
seconds=${CELLRUN_FLOOD_SECONDS:-2}
sender=$build/tests/e2e/flood-sender
[ -x "$sender" ] || skip "needs $sender"
node_up $'enabled = ["process"]'
router=$(echo "$node"/run/netns/*-router)
nft_packets() { nsenter --net="$router" nft list counter inet cellrun "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
rss_kib() { sed -n 's/^VmRSS:\s*\([0-9]*\).*/\1/p' "/proc/$daemon_pid/status"; }

start flooded 'sleep 600' "$process_lane | .spec.activeDeadlineSeconds = 600"
cell=$(echo "$node"/run/netns/cr-*-"$uid")
address=$(nsenter --net="$cell" ip -4 -o addr show dev eth0 | sed -n 's/.* inet \([0-9.]*\).*/\1/p')
cellrun flows "$uid" -f --verdict denied --json >"$node/follow" & follower=$!
trap 'status=$?; set +e; kill "$follower" 2>/dev/null; wait "$follower" 2>/dev/null; (exit "$status"); node_down' EXIT
counted() { cellrun flows "$uid" --json | jq .accounting.counted; }

before=$(counted)
rss=$(rss_kib)
# One target, then more than any table holds.
sent=0
for targets in 1 20000; do
  left=$(nsenter --net="$cell" "$sender" "$address" $((seconds * 50000)) 100000 "$targets")
  sent=$((sent + left))
done
check "every packet of the flood is counted" equal $(($(counted) - before)) "$sent"
grown=$(($(rss_kib) - rss))
check "the daemon grows by less than 4 MiB ($grown KiB)" test "$grown" -lt 4096
check "nothing came behind the filter" equal "$(nft_packets unmarked) $(nft_packets passed) $(nft_packets delivered)" "0 0 0"
check "--top shows the busiest target first" equal "$(cellrun flows "$uid" --top=1 --json | jq -r '.flows | map("\(.dst) \(.port)") | join(",")')" "8.0.0.0 443"
check "targets beyond the table are sampled" test "$(cellrun flows "$uid" -o jsonl | wc -l)" -gt 1024
check "the account balances while the job runs" equal "$(cellrun flows "$uid" --json | jq '.accounting | .seen + .suppressed + .lost == .counted')" true

cellrun cancel "$uid" >/dev/null
cellrun wait "$uid" >/dev/null 2>&1 || true
code=0; wait "$follower" || code=$?
check "following ends with the job" equal "$code" 0
check "it told the flood's first target once" equal "$(grep -c '"dst":"8.0.0.0"' "$node/follow")" 1
check "and nothing but denials" equal "$(jq -r .verdict "$node/follow" | sort -u)" denied
load_record "$uid"
check "the sealed account balances" equal "$(field '.egress.accounting | .seen + .suppressed + .lost == .counted')" true
check "and holds the flood" equal "$(field ".egress.accounting.counted - $before >= $sent")" true
check "the record is complete" equal "$(field .completeness)" complete
check "nothing was lost" equal "$(field .egress.accounting.lost)" 0
check "CLEAN" is_clean
check "--top works from the record" equal "$(cellrun flows "$uid" --top=1 --json | jq -r '.flows[0].dst')" 8.0.0.0
check "following a closed job tells it and ends" matches "$(cellrun flows "$uid" -f | head -n 1)" 'denied'
finish
