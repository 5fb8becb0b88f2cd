// egress explain: what the filter would say to a job's packet, from the maps that the job would get on this host.
#include "admit/egress_grants.hpp"
#include "admit/trust.hpp"
#include "base/file.hpp"
#include "crypto/dsse.hpp"
#include "groups.hpp"
#include "job/parse.hpp"
#include "netpolicy/explain.hpp"
#include "netpolicy/host_addresses.hpp"
#include "netpolicy/verdicts.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;

struct Subject {
  model::JobSpec spec;
  std::optional<std::vector<std::string>> grants;  // of the signing key; absent: nobody has signed
};

// The signer's egress list by this host's trust folder.
base::Result<std::vector<std::string>, Failed> grants_of(const Context& context, const crypto::dsse::Envelope* envelope) {
  const daemon::LoadedConfig loaded = CR_TRY(context.load_config());
  const auto trust = admit::TrustStore::load(loaded.config.paths.trust);
  if (!trust.ok()) {
    return failed(trust.error(), "run as a user who may read the trust folder");
  }
  const std::optional<std::string> path = context.arguments().value("key");
  if (path.has_value()) {
    const auto pem = base::read_file(*path, 65536);
    const auto key = pem.ok() ? crypto::PublicKey::from_pem(*pem) : base::Result<crypto::PublicKey>(pem.error().clone());
    if (!key.ok()) {
      return failed(key.error(), "--key takes the public half, NAME.pub");
    }
    if (const admit::Grant* grant = trust->find(key->key_id()); grant != nullptr) {
      return grant->egress;
    }
  } else {
    for (const admit::Grant& grant : trust->grants()) {
      const crypto::KeyringEntry* key = trust->keyring().find(grant.key_id);
      if (key != nullptr && crypto::dsse::verifies(*envelope, key->key)) {
        return grant.egress;
      }
    }
  }
  return failed(Error(Errc::kPermissionDenied, "explain egress: the signing key is not trusted on this host"),
                "cellrun trust ls lists the keys; --key names one");
}

base::Result<Subject, Failed> subject_of(const Context& context) {
  constexpr std::size_t kMaxInput = 4 * job::kMaxSpecBytes;
  std::string text = CR_TRY(read_input(context.arguments().positional[0], kMaxInput));
  const auto envelope = crypto::dsse::parse(base::as_bytes(text), {});
  if (envelope.ok()) {
    text = std::string(base::as_text(envelope->payload));
  }
  Subject out{CR_TRY(checked_spec(text)), std::nullopt};
  if (envelope.ok() || context.arguments().has("key")) {
    out.grants = CR_TRY(grants_of(context, envelope.ok() ? &*envelope : nullptr));
  }
  return out;
}

// The same clock arithmetic as a node's, so that expired rules show as expired.
base::Result<netpolicy::NodeFacts, Failed> facts_of_host(std::uint64_t& now_ns) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  constexpr std::uint32_t kFirstGateway = 0x64400000;
  auto hosts = netpolicy::host_addresses();
  if (!hosts.ok()) {
    return failed(hosts.error());
  }
  const base::WallTime wall = base::WallTime::now();
  const std::int64_t boot = base::BootTime::now().ns;
  now_ns = static_cast<std::uint64_t>(boot);
  return netpolicy::NodeFacts{kFirstGateway, std::move(*hosts), boot - (wall.seconds * kSecond + wall.nanos)};
}

std::string sentence(const netpolicy::Explanation& answer, const netpolicy::Target& target) {
  const std::string where = answer.match.has_value() ? " (" + answer.match->text() + ")" : "";
  if (answer.resolver) {
    return "allowed: " + target.text() + ": the cell's resolver" + where;
  }
  if (answer.allowed && !target.name.empty()) {
    return "allowed: " + target.text() + " by " + model::rule_field(*answer.rule) +
           ", at the addresses that the cell's resolver gave it, unless the deny set holds them";
  }
  if (answer.allowed) {
    return "allowed: " + target.text() + " by " + model::rule_field(*answer.rule) + where;
  }
  if (answer.rule.has_value()) {
    return "denied: " + target.text() + ": " + model::rule_field(*answer.rule) + where + " has expired";
  }
  return "denied: " + target.text() + ": " + std::string(netpolicy::reason_name(answer.reason)) + where;
}

}  // namespace

Outcome egress_explain(Context& context) {
  auto target = netpolicy::parse_target(context.arguments().positional[1]);
  if (!target.ok()) {
    return misuse("egress explain: " + target.error().message(), "write HOST:PORT or HOST:PORT/udp, as in 198.51.100.7:443 or api.example.com:443");
  }
  const Subject subject = CR_TRY(subject_of(context));
  const model::EgressPolicy& policy = subject.spec.egress;
  // Without a signer the rules are all there is to explain.
  const std::vector<std::string> assumed{"public", "private:0.0.0.0/0"};
  const admit::EgressGrants grants = admit::EgressGrants::from(subject.grants.value_or(assumed));
  if (auto refusal = grants.check(policy); refusal.has_value()) {
    return failed(api::failure_from(*refusal, subject.spec.metadata.uid));
  }
  std::uint64_t now_ns = 0;
  const netpolicy::NodeFacts facts = CR_TRY(facts_of_host(now_ns));
  const netpolicy::CompiledPolicy compiled = netpolicy::compile(policy, grants.relaxations_for(policy), facts);
  const netpolicy::Explanation answer = netpolicy::explain(compiled, *target, now_ns);
  const int code = answer.allowed ? 0 : kExitFound;
  if (!context.style().json()) {
    const std::string note = subject.grants.has_value() ? "" : "assuming a signing key that may open what the rules ask for\n";
    return print(sentence(answer, *target) + "\n" + note) ? code : kExitOurs;
  }
  base::json::Object out{{"target", target->text()}, {"verdict", answer.allowed ? "allowed" : "denied"},
                         {"reason", answer.allowed ? "allowed" : netpolicy::reason_name(answer.reason)}};
  if (answer.rule.has_value()) {
    out.set("rule", model::rule_field(*answer.rule));
  }
  if (answer.match.has_value()) {
    out.set("match", answer.match->text());
  }
  out.set("policyDigest", compiled.policy_digest);
  out.set("grantsAssumed", !subject.grants.has_value());
  return print(object_text(context.format(), std::move(out))) ? code : kExitOurs;
}

}  // namespace cellrund::cli
