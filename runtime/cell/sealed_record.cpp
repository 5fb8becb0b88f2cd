#include "cell/sealed_record.hpp"

#include "base/json.hpp"
#include "crypto/dsse.hpp"
#include "evidence/statement.hpp"

namespace cellrund::cell {
namespace {

using base::json::Array;
using base::json::Value;

std::string text_of(const Value& object, std::string_view key) {
  const Value* value = object.find(key);
  const std::string* s = value == nullptr ? nullptr : value->as_string();
  return s == nullptr ? std::string() : *s;
}

std::uint64_t count_of(const Value& object, std::string_view key) {
  const Value* value = object.find(key);
  const std::int64_t* n = value == nullptr ? nullptr : value->as_int();
  return n == nullptr ? 0 : static_cast<std::uint64_t>(*n);
}

const Array& items_of(const Value& object, std::string_view key) {
  static const Array kNone;
  const Value* value = object.find(key);
  const Array* items = value == nullptr ? nullptr : value->as_array();
  return items == nullptr ? kNone : *items;
}

std::vector<std::string> texts_of(const Value& object, std::string_view key) {
  std::vector<std::string> out;
  for (const Value& item : items_of(object, key)) {
    if (const std::string* text = item.as_string(); text != nullptr) {
      out.push_back(*text);
    }
  }
  return out;
}

std::optional<model::DnsFacts> dns_of(const Value& egress) {
  const Value* resolver = egress.find("resolver");
  if (resolver == nullptr) {
    return std::nullopt;
  }
  model::DnsFacts facts;
  const Value* capable = resolver->find("tunnelCapable");
  facts.tunnel_capable = capable != nullptr && capable->as_bool() != nullptr && *capable->as_bool();
  facts.upstreams = texts_of(*resolver, "upstreams");
  facts.failure = text_of(*resolver, "failure");
  if (const Value* accounting = resolver->find("accounting"); accounting != nullptr) {
    facts.seen = count_of(*accounting, "seen");
    facts.suppressed = count_of(*accounting, "suppressed");
    facts.counted = count_of(*accounting, "counted");
  }
  for (const Value& item : items_of(*resolver, "counters")) {
    facts.counters.emplace_back(text_of(item, "verdict"), count_of(item, "queries"));
  }
  for (const Value& item : items_of(egress, "dns")) {
    const Value* first = item.find("t");
    facts.queries.push_back({count_of(item, "seq"), first == nullptr ? 0 : static_cast<std::int64_t>(count_of(*first, "bootTimeNs")),
                             text_of(item, "name"), text_of(item, "type"), text_of(item, "verdict"), texts_of(item, "addresses"),
                             count_of(item, "count")});
  }
  return facts;
}

base::Result<Value> statement_of(const std::string& envelope) {
  const crypto::dsse::Envelope parsed = CR_TRY(crypto::dsse::parse(
      base::as_bytes(envelope), {.max_payload_bytes = evidence::kMaxStatementBytes, .max_signatures = 1}));
  return base::json::parse(base::as_text(parsed.payload), {.max_bytes = evidence::kMaxStatementBytes});
}

}  // namespace

base::Result<model::Outcome> refusal_of_record(const std::string& envelope) {
  const Value statement = CR_TRY(statement_of(envelope));
  model::Outcome outcome;
  outcome.state = model::State::kRejected;
  const Value* predicate = statement.find("predicate");
  if (const Value* exit = predicate == nullptr ? nullptr : predicate->find("exit"); exit != nullptr) {
    outcome.reason = model::parse_reason(text_of(*exit, "reason")).value_or(model::Reason::kNone);
    outcome.message = text_of(*exit, "message");
  }
  return outcome;
}

base::Result<model::EgressFacts> egress_of_record(const std::string& envelope) {
  const Value statement = CR_TRY(statement_of(envelope));
  model::EgressFacts facts;
  const Value* predicate = statement.find("predicate");
  const Value* egress = predicate == nullptr ? nullptr : predicate->find("egress");
  if (egress == nullptr) {
    return facts;
  }
  facts.policy_digest = text_of(*egress, "policyDigest");
  if (const Value* attach = egress->find("attach"); attach != nullptr) {
    facts.attach_hook = text_of(*attach, "hook");
  }
  if (const Value* canary = egress->find("canary"); canary != nullptr) {
    facts.canary_sent = count_of(*canary, "sent");
    facts.canary_blocked = count_of(*canary, "blocked");
    facts.canary_counted = count_of(*canary, "counted");
  }
  if (const Value* usage = egress->find("usage"); usage != nullptr) {
    facts.used_bytes = count_of(*usage, "bytes");
    facts.used_packets = count_of(*usage, "packets");
    facts.used_connections = count_of(*usage, "connections");
    const Value* exhausted = usage->find("exhausted");
    facts.quota_exhausted = exhausted != nullptr && exhausted->as_bool() != nullptr && *exhausted->as_bool();
  }
  facts.relaxations = texts_of(*egress, "relaxations");
  facts.dns = dns_of(*egress);
  for (const Value& item : items_of(*egress, "counters")) {
    facts.counters.emplace_back(text_of(item, "reason"), count_of(item, "packets"));
  }
  for (const Value& item : items_of(*egress, "decisions")) {
    model::EgressDecision decision;
    decision.seq = count_of(item, "seq");
    if (const Value* first = item.find("t"); first != nullptr) {
      decision.boot_ns = static_cast<std::int64_t>(count_of(*first, "bootTimeNs"));
    }
    decision.protocol = static_cast<std::uint8_t>(count_of(item, "proto"));
    decision.destination = text_of(item, "dst");
    decision.port = static_cast<std::uint16_t>(count_of(item, "port"));
    decision.verdict = text_of(item, "verdict");
    decision.reason = text_of(item, "reason");
    decision.count = count_of(item, "count");
    facts.decisions.push_back(std::move(decision));
  }
  if (const Value* accounting = egress->find("accounting"); accounting != nullptr) {
    facts.seen = count_of(*accounting, "seen");
    facts.suppressed = count_of(*accounting, "suppressed");
    facts.lost = count_of(*accounting, "lost");
    facts.counted = count_of(*accounting, "counted");
  }
  return facts;
}

}  // namespace cellrund::cell
