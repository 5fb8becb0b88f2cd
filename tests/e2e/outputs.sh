#!/usr/bin/env bash
# What a job leaves in /outputs, on both lanes: what is taken and what is refused, after an exit, a deadline, a flood and the
# VMM's death; listing and fetching, ownership, the record, expiry.
. "$(dirname "$0")/lib.sh"
needs_guest
command -v setpriv >/dev/null || skip "needs setpriv"
node_up

# Whoever runs this has no other user's shell; setpriv gives the uid of one who may use the socket and owns no job.
with_outputs='.spec.volumes = {outputs: {maxBytes: 1048576, maxFiles: 20}}'
lane_of() { [ "$1" = process ] && echo "$process_lane" || echo .; }
listed() { cellrun outputs ls "$1" --json; }
paths() { jq -c '[.outputs[].path] | sort' <<<"$1"; }
why() { jq -r --arg path "$2" '[.refusedOutputs[] | select(.path == $path) | .why] | join(",")' <<<"$1"; }
subject() { cellrun evidence export "$1" | jq -r .payload | base64 -d | jq -r --arg name "$2" '.subject[] | select(.name == $name).digest.sha256'; }

everything='
cd /outputs && umask 022
mkdir -p sub/deep && echo plain >plain && echo below >sub/deep/file && : >empty
printf evil >run && chmod 6755 run
echo a >Case && echo b >case
ln -s /etc/shadow link && ln -s / dirlink && ln plain hard
mkfifo fifo
truncate -s 1099511627776 sparse
printf x >"$(printf "new\nline")"; printf x >"$(printf "esc\033[31m")"; printf x >"$(printf "bad\377")"
d=deep; for i in $(seq 1 40); do d=$d/d; done; mkdir -p $d && echo far >$d/file
ls -lan >&2; exit 3'

for lane in process microvm; do
  say "--- $lane"
  submit "all-$lane" "$everything" "$(lane_of $lane) | $with_outputs"
  check "$lane: the job's own exit code" equal "$code" 3
  check "$lane: CLEAN" is_clean
  ls=$(listed "$uid")
  check "$lane: regular files with plain names, and only they" equal "$(paths "$ls")" '["Case","case","empty","run","sub/deep/file"]'
  for pair in 'link=symbolic link' 'dirlink=symbolic link' 'hard=hard link' 'plain=hard link' 'fifo=FIFO' 'sparse=over the budget of bytes'; do
    check "$lane: ${pair%%=*} is refused: ${pair#*=}" equal "$(why "$ls" "${pair%%=*}")" "${pair#*=}"
  done
  for name in '"new\x0aline"' '"esc\x1b[31m"' '"bad\xff"'; do
    check "$lane: a name like $name is refused" matches "$(why "$ls" "$name")" 'name is not plain'
  done
  check "$lane: forty folders deep is refused" matches "$(jq -r '.refusedOutputs[].why' <<<"$ls")" 'too many folders deep'
  check "$lane: all of it was handed over" equal "$(jq -r '.incompleteBecause // ""' <<<"$ls")" ''
  check "$lane: the record lists the same" equal "$(field '.outputs | map(.path) | sort | tojson')" "$(paths "$ls")"
  check "$lane: and the same refusals" equal "$(field '.refusedOutputs | length')" "$(jq '.refusedOutputs | length' <<<"$ls")"
  check "$lane: the manifest is a subject of the record" equal "sha256:$(subject "$uid" outputs-manifest)" "$(jq -r .manifestDigest <<<"$ls")"
  check "$lane: and is what is stored" equal "$(sha256sum "$node/state/jobs/$uid/manifest.json" | cut -d' ' -f1)" "$(subject "$uid" outputs-manifest)"
  cellrun evidence export "$uid" >"$node/record.json"
  check "$lane: evidence verify" cellrun evidence verify "$node/record.json"
  check "$lane: nothing stored is anybody's but root's, or can be run" equal \
    "$(find "$node/state/jobs" \( -type d ! -perm 700 -o -type f ! -perm 600 -o ! -uid 0 -o ! \( -type d -o -type f \) \) | wc -l)" 0
  check "$lane: the result stands beside them" equal "$(jq -r '.state + " " + .reason + " " + (.exitCode | tostring) + " " + .evidenceDigest' "$node/state/jobs/$uid/result.json")" \
    "FAILED Error 3 $(cellrun inspect "$uid" --json | jq -r .evidenceDigest)"
  check "$lane: a table for people, without a control character" equal "$(cellrun outputs ls "$uid" 2>&1 | LC_ALL=C tr -d '\n -~' | wc -c)" 0

  mkdir "$node/got-$lane"
  check "$lane: get" cellrun outputs get "$uid" -C "$node/got-$lane"
  check "$lane: the files are there" equal "$(cd "$node/got-$lane" && find . -type f | sort | tr '\n' ' ')" "./Case ./case ./empty ./run ./sub/deep/file "
  check "$lane: with their content" equal "$(cat "$node/got-$lane/sub/deep/file" "$node/got-$lane/run")" $'below\nevil'
  check "$lane: and cannot be run" [ ! -x "$node/got-$lane/run" ]
  code=0; err=$(cellrun outputs get "$uid" -C "$node/got-$lane" 2>&1) || code=$?
  check "$lane: what exists is not written over" matches "$code $err" '^125 .*--force'
  check "$lane: but for --force" cellrun outputs get "$uid" --force -C "$node/got-$lane"
  check "$lane: one to stdout" equal "$(cellrun outputs get "$uid" sub/deep/file -O -)" below
  check "$lane: one to a file" cellrun outputs get "$uid" sub -O "$node/one-$lane"
  check "$lane: with its content" equal "$(cat "$node/one-$lane")" below
  mkdir -p "$node/trap-$lane" "$node/elsewhere" && ln -s "$node/elsewhere" "$node/trap-$lane/sub"
  code=0; cellrun outputs get "$uid" -C "$node/trap-$lane" >/dev/null 2>&1 || code=$?
  check "$lane: get follows no link" equal "$code $(find "$node/elsewhere" -type f | wc -l)" "125 0"

  submit "over-$lane" 'cd /outputs; for i in $(seq 1 40); do head -c 1000 /dev/zero >f$i; done; head -c 1040000 /dev/zero >big; sync' "$(lane_of $lane) | $with_outputs"
  ls=$(listed "$uid")
  check "$lane: over its budget: CLEAN" is_clean
  check "$lane: no more files than the budget" equal "$(jq '.outputs | length <= 20' <<<"$ls")" true
  check "$lane: no more bytes than the budget" equal "$(jq '[.outputs[].size] | add <= 1048576' <<<"$ls")" true
  check "$lane: taken and refused are all" equal "$(jq '(.outputs | length) + .refused' <<<"$ls")" 41
  submit "full-$lane" 'head -c 8000000 /dev/zero >/outputs/f 2>/dev/null || echo full' "$(lane_of $lane) | $with_outputs"
  check "$lane: the folder itself has an end" equal "$out" full

  submit "late-$lane" 'trap "exit 9" TERM; echo partial >/outputs/partial; while :; do sleep 0.1; done' \
    "$(lane_of $lane) | $with_outputs | .spec.activeDeadlineSeconds = 3 | .spec.terminationGracePeriodSeconds = 10"
  check "$lane: a job that times out: exit code 124" equal "$code" 124
  check "$lane: and what it left in its grace is there" equal "$(paths "$(listed "$uid")")" '["partial"]'
  check "$lane: and CLEAN" is_clean

  submit "none-$lane" 'ls -d /outputs 2>/dev/null || echo no folder' "$(lane_of $lane)"
  check "$lane: a job that asks for none has none" equal "$out" "no folder"
  code=0; cellrun outputs ls "$uid" >/dev/null 2>&1 || code=$?
  check "$lane: and asking for them is an error" [ "$code" != 0 ]
done

say "--- the VMM's death"
start killed 'head -c 500000 /dev/zero >/outputs/f; echo ready; sleep 1000' "$with_outputs"
for i in $(seq 1 300); do [ "$(cellrun logs "$uid")" != ready ] || break; read -r -t 0.1 <> <(:) || true; done
check "a collector runs beside the cell" pgrep -f "^$node/libexec/cellrun-collect" >/dev/null
code=0; cellrun outputs ls "$uid" >/dev/null 2>&1 || code=$?
check "no outputs while it runs" [ "$code" != 0 ]
kill -KILL "$(jq -r .vmm.pid "$node"/run/containerd/state/io.containerd.runtime.v2.task/cellrun/*"$uid"/cellrun-vm.json)"
cellrun wait "$uid" >/dev/null 2>&1 || true
load_record "$uid"
check "VmmCrashed" equal "$(field .exit.reason)" VmmCrashed
check "CLEAN" is_clean
check "the record says that nothing came" matches "$(field .outputsManifest.incompleteBecause)" 'handed nothing over'
check "no collector is left" [ -z "$(pgrep -f "^$node/libexec/cellrun-collect" || true)" ]

say "--- whose, and how long"
chmod 711 "$node" "$node/run"; chmod 666 "$node/run/cellrund.sock"
submit mine 'echo secret >/outputs/f' "$process_lane | $with_outputs | .spec.ttlSecondsAfterFinished = 4"
install -m 755 "$build/tools/cellrun/cellrun" "$node/cellrun"  # the build may be where only root can go
for what in ls get; do
  code=0; err=$(setpriv --reuid 12345 --clear-groups "$node/cellrun" outputs "$what" "$uid" --socket "$node/run/cellrund.sock" 2>&1) || code=$?
  check "outputs $what of another user's job is refused" matches "$code $err" '^77 .*another user'
done
for i in $(seq 1 900); do [ -e "$node/state/jobs/$uid" ] || break; read -r -t 0.1 <> <(:) || true; done
check "after its ttl the outputs are gone" [ ! -e "$node/state/jobs/$uid" ]
check "and its logs" [ ! -e "$node/state/logs/$uid" ]
check "its record stays" cellrun evidence show "$uid"
submit restarted 'echo x >/outputs/f' "$process_lane | $with_outputs | .spec.ttlSecondsAfterFinished = 6"
stop_daemon
start_daemon
for i in $(seq 1 900); do [ -e "$node/state/jobs/$uid" ] || break; read -r -t 0.1 <> <(:) || true; done
check "a ttl outlives a restart" [ ! -e "$node/state/jobs/$uid" ]
finish
