#include "crypto/dsse.hpp"

#include <algorithm>
#include <utility>

#include "base/hex.hpp"
#include "base/json.hpp"

namespace cellrund::crypto::dsse {

using base::Bytes;
using base::BytesView;
using base::Errc;
using base::Error;
using base::Result;
namespace json = base::json;

namespace {

constexpr std::size_t kMaxTypeBytes = 256;
constexpr std::size_t kMaxKeyidBytes = 256;
constexpr std::size_t kMaxSignatureBytes = 512;  // base64 of the longest accepted one is 96; others are refused unread

Error bad(std::string_view why) { return Error(Errc::kInvalidArgument, "parse envelope: " + std::string(why)); }

// A string member, or nothing when it is absent, of another type or too long.
const std::string* text_member(const json::Object& object, std::string_view key, std::size_t limit) {
  const json::Value* value = object.find(key);
  const std::string* text = value == nullptr ? nullptr : value->as_string();
  return text != nullptr && text->size() <= limit ? text : nullptr;
}

bool only(const json::Object& object, std::initializer_list<std::string_view> keys) {
  return std::all_of(object.members().begin(), object.members().end(), [&](const json::Member& member) {
    return std::find(keys.begin(), keys.end(), member.first) != keys.end();
  });
}

Result<Signature> parse_signature(const json::Value& value) {
  const json::Object* object = value.as_object();
  if (object == nullptr || !only(*object, {"sig", "keyid"})) {
    return bad("a signature is not an object of sig and keyid");
  }
  Signature out;
  if (object->find("keyid") != nullptr) {
    const std::string* keyid = text_member(*object, "keyid", kMaxKeyidBytes);
    if (keyid == nullptr) {
      return bad("keyid is not a short string");
    }
    out.keyid = *keyid;
  }
  const std::string* sig = text_member(*object, "sig", kMaxSignatureBytes);
  if (sig == nullptr) {
    return bad("sig is missing, too long or no string");
  }
  out.sig = CR_TRY(base::from_base64(*sig).context("parse envelope: sig"));
  return out;
}

}  // namespace

Bytes pae(std::string_view payload_type, BytesView payload) {
  std::string head = "DSSEv1 " + std::to_string(payload_type.size()) + " ";
  head.append(payload_type).append(" ").append(std::to_string(payload.size())).append(" ");
  Bytes out;
  out.reserve(head.size() + payload.size());
  out.insert(out.end(), head.begin(), head.end());
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

Result<Envelope> parse(BytesView text, const Limits& limits) {
  const std::size_t payload_text = (limits.max_payload_bytes + 2) / 3 * 4;
  const json::Limits json_limits{.max_bytes = payload_text + 4096 + limits.max_signatures * 2048, .max_depth = 4, .max_members = 8};
  auto value = json::parse(base::as_text(text), json_limits);
  if (!value.ok()) {
    return std::move(value).error().context("parse envelope");
  }
  const json::Object* object = value->as_object();
  if (object == nullptr) {
    return bad("not a JSON object");
  }
  if (!only(*object, {"payload", "payloadType", "signatures"})) {
    return bad("a key other than payload, payloadType and signatures");
  }
  Envelope out;
  const std::string* type = text_member(*object, "payloadType", kMaxTypeBytes);
  if (type == nullptr) {
    return bad("payloadType is missing, too long or no string");
  }
  out.payload_type = *type;
  const std::string* payload = text_member(*object, "payload", payload_text);
  if (payload == nullptr) {
    return bad("payload is missing, too long or no string");
  }
  out.payload = CR_TRY(base::from_base64(*payload).context("parse envelope: payload"));
  if (out.payload.size() > limits.max_payload_bytes) {
    return bad("the payload is longer than " + std::to_string(limits.max_payload_bytes) + " bytes");
  }
  const json::Value* list = object->find("signatures");
  const json::Array* signatures = list == nullptr ? nullptr : list->as_array();
  if (signatures == nullptr) {
    return bad("signatures is missing or no array");
  }
  if (signatures->size() > limits.max_signatures) {
    return bad("more than " + std::to_string(limits.max_signatures) + " signatures");
  }
  for (const json::Value& entry : *signatures) {
    out.signatures.push_back(CR_TRY(parse_signature(entry)));
  }
  return out;
}

std::string write(const Envelope& envelope) {
  json::Array signatures;
  for (const Signature& signature : envelope.signatures) {
    json::Object entry;
    if (!signature.keyid.empty()) {
      entry.set("keyid", signature.keyid);
    }
    entry.set("sig", base::to_base64(signature.sig));
    signatures.emplace_back(std::move(entry));
  }
  return json::write(json::Object{{"payload", base::to_base64(envelope.payload)},
                                  {"payloadType", envelope.payload_type},
                                  {"signatures", std::move(signatures)}});
}

Result<Envelope> sign(std::string_view payload_type, BytesView payload, const PrivateKey& key) {
  Envelope out{std::string(payload_type), Bytes(payload.begin(), payload.end()), {}};
  Bytes signature = CR_TRY(key.sign(pae(payload_type, payload)).context("sign envelope"));
  out.signatures.push_back({key.public_key().key_id(), std::move(signature)});
  return out;
}

bool verifies(const Envelope& envelope, const PublicKey& key) {
  const Bytes message = pae(envelope.payload_type, envelope.payload);
  return std::any_of(envelope.signatures.begin(), envelope.signatures.end(),
                     [&](const Signature& signature) { return key.verify(message, signature.sig); });
}

}  // namespace cellrund::crypto::dsse
