# A private node for tools/bench/run, which sources this: own folders, own configuration, own containerd. The exit trap
# stops what was started, by pid, removes what was made, and lets cellsweep look for the rest.
# Uses: build, guest, here. Sets: node (on disk), run (in memory), bench_ns (the namespace of the peers in containerd, and
# what the names of their containers begin with).
node='' run='' daemon_pid='' bench_ns=''

node_up() { # LANES, as TOML
  trap node_down EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # Not /tmp, which may be a tmpfs, and which a VMM does not see; passable, since the stand-in VMM lies in it.
  node=$(mktemp -d /var/tmp/cellrun-bench.XXXXXX)
  chmod 0711 "$node"
  # As on any Debian host, where /run is a tmpfs: what a sync costs there must not be measured as if it were a disk.
  local memory=/run
  [ "$(findmnt --noheadings --output=FSTYPE --target /run)" = tmpfs ] || memory=/dev/shm
  run=$(mktemp -d "$memory/cellrun-bench.XXXXXX")
  bench_ns=bench-${node##*.}
  mkdir -p "$node/libexec" "$node/etc/trust.d" "$node/state"
  ln -s "$build/shim/containerd-shim-cellrun-v2" "$build/runtime/daemon/keeper/cellrun-keeper" \
    "$build/runtime/image/cellrun-unpack" "$build/runtime/cell/cellrun-collect" "$build/netpolicy/cellrun-resolver" "$build/shim/guest/cell-init" "$build/tools/cellrun/cellrun-image" "$node/libexec/"
  export CELLRUN_PATHS_STATE=$node/state CELLRUN_PATHS_RUN=$run CELLRUN_PATHS_TRUST=$node/etc/trust.d
  export CELLRUN_PATHS_NODE_KEY=$node/etc/node.key CELLRUN_PATHS_NODE_PUB=$node/etc/node.pub
  export CELLRUN_PATHS_SHIM=$node/libexec CELLRUN_PATHS_GUEST=$guest
  # Uids that no other node of this host uses: each would see the other's VMMs as residue.
  printf '[lanes]\nallow_emulated_tier2 = true\nenabled = %s\nuid_base = %d\n' \
    "$1" $((1000000000 + $$ % 100000 * 2048)) >"$node/etc/config.toml"
  cellrun keygen "$node/etc/node" >/dev/null
  cellrun keygen "$node/etc/job" >/dev/null
  cellrun trust add "$node/etc/job.pub" --namespace bench --min-tier 0 --max-concurrent 64 >/dev/null
  "$build/runtime/daemon/cellrund" --config "$node/etc/config.toml" >>"$node/cellrund.log" 2>&1 </dev/null &
  daemon_pid=$!
  local i
  for i in $(seq 1 400); do
    if cellrun capacity >/dev/null 2>&1; then break; fi
    [ -d "/proc/$daemon_pid" ] && [ "$i" != 400 ] || die "cellrund did not come up" "its log is above"
    read -r -t 0.25 <> <(:) || true
  done
  "$here/tools/demo-image" "$node/demo.tar" >/dev/null
  cellrun image import "$node/demo.tar" | tail -n 1 >"$node/image"
}

cellrun() { "$build/tools/cellrun/cellrun" "$@"; }

# What an interrupted peer leaves, and what containerd keeps of a namespace: nothing of it belongs to the node.
peers_down() {
  local id group
  local ctr=(ctr --address "$run/containerd/containerd.sock" --namespace "$bench_ns")
  if command -v ctr >/dev/null && [ -S "$run/containerd/containerd.sock" ]; then
    for id in $("${ctr[@]}" tasks ls -q); do "${ctr[@]}" tasks rm --force "$id" >/dev/null; done
    for id in $("${ctr[@]}" containers ls -q); do "${ctr[@]}" containers rm "$id" >/dev/null; done
    for id in $("${ctr[@]}" images ls -q); do "${ctr[@]}" images rm --sync "$id" >/dev/null; done
    "${ctr[@]}" namespaces rm "$bench_ns" >/dev/null 2>&1  # it is there only if a row used it
  fi
  if [ -d "$node/runc" ]; then
    for id in $(runc --root "$node/runc" list -q); do runc --root "$node/runc" delete --force "$id"; done
  fi
  # runc makes the parent of a container's group and leaves it; there is one below each hierarchy.
  for group in /sys/fs/cgroup/"$bench_ns" /sys/fs/cgroup/*/"$bench_ns"; do
    [ ! -d "$group" ] || rmdir "$group"
  done
}

node_down() {
  local status=$?
  trap - EXIT
  trap : INT TERM HUP  # removing what was made is not to be interrupted
  set +e
  if [ -z "$run" ]; then
    [ -z "$node" ] || rmdir "$node"
    exit "$status"
  fi
  if [ -n "${measure_pid:-}" ] && [ -d "/proc/$measure_pid" ]; then
    kill -TERM "$measure_pid"; wait "$measure_pid"  # its samplers end with it
  fi
  [ "$status" = 0 ] || { echo "--- cellrund.log"; tail -n 20 "$node/cellrund.log"; } >&2
  peers_down || status=1
  if [ -n "$daemon_pid" ] && [ -d "/proc/$daemon_pid" ]; then
    kill -TERM "$daemon_pid"
    timeout 90 tail --pid="$daemon_pid" -f /dev/null || { echo "bench: cellrund does not stop" >&2; kill -KILL "$daemon_pid"; status=1; }
    wait "$daemon_pid" 2>/dev/null
  fi
  # While containerd still answers: a source that cannot be read makes the sweep UNKNOWN.
  if ! "$build/tools/cellsweep/cellsweep" --run-dir "$run" --state-dir "$node/state" >"$node/sweep.log" 2>&1; then
    { echo "bench: cells left residue"; cat "$node/sweep.log"; } >&2
    status=1
  fi
  "$build/runtime/daemon/keeper/cellrun-keeper" --stop --run-dir "$run" || status=1
  "$build/runtime/daemon/cellrund" --config "$node/etc/config.toml" --remove-node || status=1
  local place
  for place in "$node" "$run"; do
    if grep -F "$place" /proc/self/mountinfo >&2 || pgrep -af "$place" >&2; then
      echo "bench: the node left the mounts or processes above" >&2
      status=1
    fi
    rm -rf --one-file-system "$place"
  done
  exit "$status"
}
