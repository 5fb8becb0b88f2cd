#!/usr/bin/env bash
# Secrets: granted by trust file and namespace, given as a file before user code runs, withdrawn at their TTL, and found nowhere else.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "needs python3"
needs_guest
node_up
stop_daemon
mkdir -m 0700 "$node/secrets" "$node/secrets/test" "$node/secrets/other"
value=cellrun-e2e-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && printf %s "$value" >"$node/secrets/test/token" && printf %s "$value" >"$node/secrets/other/token")
printf '[secrets]\ndirectory = "%s/secrets"\n' "$node" >>"$node/etc/config.toml"
start_daemon
cellrun keygen "$node/etc/granted" >/dev/null
cellrun trust add "$node/etc/granted.pub" --namespace test --min-tier 0 --secret 'test/*' --secret 'other/*' >/dev/null
digest=$(printf %s "$value" | sha256sum | cut -d' ' -f1)
give='.spec.secrets = [{name: "api", ref: "test/token", mode: "file"}]'

try() { # KEY NAME COMMAND [jq filter]: sets code, out, err, uid, record
  local key=$1; shift
  spec "$@" >"$node/$1.json"
  uid=$(jq -r .metadata.uid "$node/$1.json") code=0
  cellrun submit "$node/$1.json" --key "$node/etc/$key.key" >"$node/$1.out" 2>"$node/$1.err" || code=$?
  out=$(cat "$node/$1.out") err=$(cat "$node/$1.err")
  load_record "$uid"
}
# The value in a process's memory. Looks for its bytes, so this search must not hold them itself: it gets them turned round.
in_memory() { # PID
  rev <<<"$value" | python3 -c '
import re, sys
needle = sys.stdin.read().strip()[::-1].encode()
with open(f"/proc/{sys.argv[1]}/maps") as maps, open(f"/proc/{sys.argv[1]}/mem", "rb", 0) as mem:
    for line in maps:
        low, high, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()
        if mode[0] != "r":
            continue
        try:
            mem.seek(int(low, 16))
            if needle in mem.read(int(high, 16) - int(low, 16)):
                sys.exit(0)
        except (OSError, ValueError, OverflowError):
            continue
sys.exit(1)' "$1"
}
found() { # where the value stands on this host beside its own file
  grep -rlaF --devices=skip -- "$value" "$node/state" "$node/run" "$node/etc" "$node"/*.json "$node"/*.out "$node"/*.err "$node"/cellrund.log 2>/dev/null
  grep -laF -- "$value" /tmp/core* /var/lib/systemd/coredump/* /var/log/* 2>/dev/null
  local p
  for p in $(pgrep -f "$node" || true) "$daemon_pid"; do
    grep -qaF -- "$value" "/proc/$p/environ" "/proc/$p/cmdline" 2>/dev/null && echo "process $p"
  done
  true
}

for lane in process microvm; do
  on='.'; [ "$lane" = microvm ] || on=$process_lane
  try granted "$lane-reads" 'sha256sum </run/secrets/api; ls -lnd /run/secrets /run/secrets/api; grep /run/secrets /proc/mounts; echo x >/run/secrets/y || echo folder closed; env; head -c 9 /proc/self/environ' "$on | $give"
  check "$lane: the job succeeds" equal "$code" 0
  check "$lane: the value arrives byte for byte" matches "$out" "$digest"
  check "$lane: the file is its reader's alone" matches "$out" '-r--------[ .+]+1 65534 +65534'
  check "$lane: its folder is a tmpfs where nothing is run, no device works, and none writes" matches "$out" 'tmpfs rw,nosuid,nodev,noexec'
  check "$lane: the folder is closed" matches "$out" 'folder closed'
  check "$lane: the record names it, and when it was there" equal "$(field '.secrets | length == 1 and .[0].name == "api" and .[0].issuedAt <= .[0].revokedAt')" true
  check "$lane: teardown is CLEAN" is_clean
  check "$lane: the value is nowhere on the host" equal "$(found)" ''

  try granted "$lane-ttl" 'exec 3</run/secrets/api; i=0; while [ -e /run/secrets/api ] && [ $i -lt 400 ]; do sleep 0.1; i=$((i + 1)); done
    [ -e /run/secrets/api ] || echo gone; echo "left: $(head -c 99 <&3 | wc -c)"; sleep 1' "$on | $give | .spec.secrets[0].ttlSeconds = 1"
  check "$lane: at its TTL the file is gone" matches "$out" 'gone'
  check "$lane: and empty for who has it open" matches "$out" 'left: 0'
  check "$lane: it was withdrawn before the job ended" equal "$(field '(.timeline[] | select(.state == "TEARING_DOWN") | .wallTime) > .secrets[0].revokedAt')" true

  [ "$lane" = process ] || {
    try granted "$lane-root" 'cd /run/secrets; chmod 700 .; mv api .hidden; mkfifo api; i=0; while [ -s .hidden ] && [ $i -lt 400 ]; do sleep 0.1; i=$((i + 1)); done
      echo "left: $(wc -c <.hidden)"; sleep 1' "$give | .spec.secrets[0].ttlSeconds = 1 | .spec.container.securityContext = {runAsUser: 0, runAsGroup: 0}"
    check "$lane: root in the guest saves nothing by hiding the name" matches "$out" 'left: 0'
  }

  spec "$lane-lives" 'cat /run/secrets/api >/dev/null; sleep 30' "$on | $give" >"$node/$lane-lives.json"
  uid=$(cellrun submit -d "$node/$lane-lives.json" --key "$node/etc/granted.key")
  wait_state "$uid" RUNNING
  check "$lane: while it runs, no file of the host has it" equal "$(found)" ''
  holders=''
  for p in "$daemon_pid" $(pgrep -f "containerd-shim-cellrun-v2.*$uid" || true) $(pgrep -f "containerd.*$node" || true) $(pgrep -x cell-init || true); do
    if in_memory "$p"; then holders+=" $p:$(cat "/proc/$p/comm")"; fi
  done
  check "$lane: and no process that passed it on" equal "$holders" ''
  cellrun cancel "$uid" >/dev/null
  cellrun wait "$uid" >/dev/null 2>&1 || true
done

# The search finds what is there: else the checks above say nothing.
python3 -c 'import sys, signal; value = sys.stdin.read(); print(flush=True); signal.pause()' <<<"$value" >"$node/holder" & holder=$!
for _ in $(seq 1 200); do [ -s "$node/holder" ] && break; read -r -t 0.05 <> <(:) || true; done
check "the search of memory finds a value that is there" in_memory "$holder"
kill "$holder"; wait "$holder" 2>/dev/null || true

refused() { # WHAT KEY REF MESSAGE
  try "$2" refused true "$process_lane | .spec.secrets = [{name: \"api\", ref: \"$3\"}]"
  check "$1 is refused" equal "$code/$(field .exit.reason)" 77/PolicyDenied
  check "with field and cause" matches "$err" "spec.secrets\[0\].ref.*$4"
}
refused "a key without the grant" job test/token 'may use'
refused "another namespace's secret, grant or not" granted other/token "the job's namespace"
refused "a secret that is not there" granted test/missing 'no secret test/missing'
chmod 0640 "$node/secrets/test/token"
refused "a file that others may read" granted test/token 'chmod go-rwx'
chmod 0600 "$node/secrets/test/token" && chown 1 "$node/secrets/test/token"
refused "a file of another user's" granted test/token 'not owned'
chown 0 "$node/secrets/test/token"
mv "$node/secrets/test/token" "$node/secrets/test/moved" && ln -s moved "$node/secrets/test/token"
refused "a symbolic link" granted test/token 'symbolic link'

check "cellrund is not dumpable" equal "$(stat -c %u "/proc/$daemon_pid/environ")/$(awk '/^Max core file size/ { print $5 }' "/proc/$daemon_pid/limits")" 0/1
finish
