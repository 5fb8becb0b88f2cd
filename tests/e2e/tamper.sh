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
flip() { # FIELD NAME: victim.env with the lowest bit of the first byte of that base64 text turned
  python3 - "$node/victim.env" "$1" <<'PY'
import base64, json, sys
envelope = json.load(open(sys.argv[1]))
holder = envelope["signatures"][0] if sys.argv[2] == "sig" else envelope
data = bytearray(base64.b64decode(holder[sys.argv[2]]))
data[0] ^= 1
holder[sys.argv[2]] = base64.b64encode(data).decode()
print(json.dumps(envelope))
PY
}
flip payload >"$node/payload.env"
refused "a bit of the payload" "$node/payload.env" 'SignatureInvalid' 77
flip sig >"$node/sig.env"
refused "a bit of the signature" "$node/sig.env" 'SignatureInvalid' 77
jq -c '.payloadType = "application/vnd.in-toto+json"' "$node/victim.env" >"$node/type.env"
refused "another payload type" "$node/type.env" 'SignatureInvalid' 77
jq -c '.signatures = []' "$node/victim.env" >"$node/none.env"
refused "no signature" "$node/none.env" 'SignatureInvalid' 77
cellrun keygen "$node/etc/stranger" >/dev/null
cellrun sign "$node/victim.json" --key "$node/etc/stranger.key" >"$node/stranger.env"
refused "a key that nobody trusts" "$node/stranger.env" 'SignerNotTrusted' 77
printf '%s' '{"payload": 1}' >"$node/bad.env"
refused "an envelope that is none" "$node/bad.env" 'SignatureInvalid' 77
check "no cell was made" [ -z "$(ls "$node/run/cells")" ]
check "the untouched envelope still runs" equal "$(cellrun submit "$node/victim.env")" never
finish
