#!/usr/bin/env bash
# One changed bit in envelope, payload or signature is refused, with a reason and a sealed record; nothing is created.
. "$(dirname "$0")/lib.sh"
node_up $'enabled = ["process"]'

spec victim 'echo never' "$process_lane" >"$node/victim.json"
cellrun sign "$node/victim.json" --key "$node/etc/job.key" >"$node/victim.env"
refused() { # WHAT FILE REASON-PATTERN CODE
  local code=0 err
  err=$(cellrun submit "$2" 2>&1 >/dev/null) || code=$?
  check "$1: exit code $4" equal "$code" "$4"
  check "$1: reason" matches "$err" "$3"
  check "$1: a hint says what to do" matches "$err" 'hint:'
}
flip() { # jq path of a base64 string: one bit of its first byte
  local bytes
  bytes=$(jq -r "$1" "$node/victim.env" | base64 -d | xxd -p | tr -d '\n')
  local first=${bytes:0:2}
  jq -c --arg v "$( (printf '%02x' $((0x$first ^ 1)); printf '%s' "${bytes:2}") | xxd -r -p | base64 -w 0)" "$1 = \$v" "$node/victim.env"
}
if command -v xxd >/dev/null; then
  flip .payload >"$node/payload.env"
  refused "a bit of the payload" "$node/payload.env" 'Signature(Invalid)?|SignerNotTrusted' 77
  flip '.signatures[0].sig' >"$node/sig.env"
  refused "a bit of the signature" "$node/sig.env" 'SignatureInvalid' 77
fi
jq -c '.payloadType = "application/vnd.in-toto+json"' "$node/victim.env" >"$node/type.env"
refused "another payload type" "$node/type.env" 'SignatureInvalid' 77
jq -c '.signatures = []' "$node/victim.env" >"$node/none.env"
refused "no signature" "$node/none.env" 'SignatureInvalid' 77
cellrun keygen "$node/etc/stranger" >/dev/null
cellrun sign "$node/victim.json" --key "$node/etc/stranger.key" >"$node/stranger.env"
refused "a key that nobody trusts" "$node/stranger.env" 'SignerNotTrusted' 77
printf '%s' '{"payload": 1}' >"$node/bad.env"
code=0; err=$(cellrun submit "$node/bad.env" 2>&1 >/dev/null) || code=$?
check "an envelope that is none is refused" [ "$code" -ne 0 ]
check "no cell was made" [ -z "$(ls "$node/run/cells")" ]
check "the untouched envelope still runs" equal "$(cellrun submit "$node/victim.env")" never
finish
