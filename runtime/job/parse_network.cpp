#include "job/parse_network.hpp"

#include <algorithm>
#include <utility>

#include "job/syntax.hpp"

namespace cellrund::job {

namespace json = base::json;
using model::Refusal;

namespace {

Read<std::string> protocol_field(const ObjectReader& object) {
  std::string text = CR_TRY(object.text("protocol", 16)).value_or("tcp");
  if (text != "tcp" && text != "udp") {
    return schema_invalid(object.at("protocol"), "is neither tcp nor udp");
  }
  return text;
}

Read<std::vector<std::uint16_t>> ports_field(const ObjectReader& object) {
  constexpr std::int64_t kHighest = 65535;
  const json::Value* value = object.find("ports");
  const json::Array* list = value == nullptr ? nullptr : value->as_array();
  if (list == nullptr || list->empty() || list->size() > model::EgressPolicy::kMaxPorts) {
    return schema_invalid(object.at("ports"), "is not a list of 1 to 16 ports");
  }
  std::vector<std::uint16_t> ports;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const std::string where = object.at("ports") + "[" + std::to_string(i) + "]";
    const std::int64_t* number = (*list)[i].as_int();
    if (number == nullptr || *number < 1 || *number > kHighest) {
      return schema_invalid(where, "is not a port between 1 and 65535");
    }
    const auto port = static_cast<std::uint16_t>(*number);
    if (std::find(ports.begin(), ports.end(), port) != ports.end()) {
      return schema_invalid(where, "stands in the list twice");
    }
    ports.push_back(port);
  }
  return ports;
}

Read<std::variant<model::Ipv4Prefix, model::HostName>> target_field(const ObjectReader& target) {
  constexpr std::size_t kMaxText = 1024;
  const auto cidr = CR_TRY(target.text("cidr", kMaxText));
  const auto name = CR_TRY(target.text("fqdn", kMaxText));
  if (cidr.has_value() == name.has_value()) {
    return schema_invalid(target.where(), "names not exactly one target", "give either cidr or fqdn");
  }
  if (name.has_value()) {
    if (!is_dns_name(name->starts_with("*.") ? std::string_view(*name).substr(2) : std::string_view(*name))) {
      return schema_invalid(target.at("fqdn"), "is no host name in full",
                            "write two or more labels of a-z, 0-9 and '-', as in \"api.example.com\"; an address is a cidr");
    }
    model::HostName host = model::host_name_of(*name);
    if (host.name.size() > model::HostName::kLongest) {
      return schema_invalid(target.at("fqdn"), "is longer than 128 characters");
    }
    return std::variant<model::Ipv4Prefix, model::HostName>(std::move(host));
  }
  auto prefix = model::parse_ipv4_prefix(*cidr);
  if (!prefix.ok()) {
    return schema_invalid(target.at("cidr"), prefix.error().message());
  }
  return std::variant<model::Ipv4Prefix, model::HostName>(*prefix);
}

Read<model::EgressRule> parse_rule(const ObjectReader& object, base::WallTime issued_at) {
  model::EgressRule rule;
  const ObjectReader target = CR_TRY(object.required_object("to"));
  rule.to = CR_TRY(target_field(target));
  rule.ports = CR_TRY(ports_field(object));
  rule.protocol = CR_TRY(protocol_field(object)) == "tcp" ? model::Transport::kTcp : model::Transport::kUdp;
  rule.expires_at = CR_TRY(object.time("expiresAt"));
  if (rule.expires_at.has_value() && *rule.expires_at <= issued_at) {
    return schema_invalid(object.at("expiresAt"), "is not after metadata.issuedAt");
  }
  return rule;
}

Read<model::EgressQuota> parse_quota(const ObjectReader& object) {
  model::EgressQuota quota;
  const std::pair<const char*, std::optional<std::uint64_t>*> fields[] = {{"bytes", &quota.bytes},
                                                                         {"packets", &quota.packets},
                                                                         {"connections", &quota.connections},
                                                                         {"dnsQueries", &quota.dns_queries},
                                                                         {"bytesPerSecond", &quota.bytes_per_second}};
  for (const auto& [name, field] : fields) {
    // Nothing at all at a rate of 0 is what no rule says; a limit of 0 is a way to allow on paper only.
    const std::int64_t low = field == &quota.bytes_per_second ? 1 : 0;
    if (const auto number = CR_TRY(object.integer(name, low, INT64_MAX)); number.has_value()) {
      *field = static_cast<std::uint64_t>(*number);
    }
  }
  return quota;
}

Read<model::EgressPolicy> parse_egress(const ObjectReader& object, base::WallTime issued_at) {
  model::EgressPolicy policy;
  if (const auto quota = CR_TRY(object.object("quota")); quota.has_value()) {
    policy.quota = CR_TRY(parse_quota(*quota));
  }
  const json::Value* rules = object.find("rules");
  if (rules == nullptr || rules->is_null()) {
    return policy;
  }
  for (const ObjectReader& rule : CR_TRY(object.objects("rules", model::EgressPolicy::kMaxRules))) {
    policy.rules.push_back(CR_TRY(parse_rule(rule, issued_at)));
  }
  const auto named = std::count_if(policy.rules.begin(), policy.rules.end(), [](const auto& rule) { return rule.name() != nullptr; });
  if (named > static_cast<std::ptrdiff_t>(model::EgressPolicy::kMaxNameRules)) {
    return schema_invalid(object.at("rules"), "has more than 256 rules with an fqdn");
  }
  return policy;
}

Read<model::ExpectBlocked> parse_expect_blocked(const ObjectReader& target) {
  model::ExpectBlocked entry;
  entry.address = CR_TRY(target.required_text("to", 64));
  if (!model::parse_ipv4(entry.address).ok()) {
    return schema_invalid(target.at("to"), "is no IPv4 address", R"(write four numbers, as in "198.51.100.7")");
  }
  entry.port = static_cast<std::uint16_t>(CR_TRY(target.required_integer("port", 1, 65535)));
  entry.protocol = CR_TRY(protocol_field(target));
  return entry;
}

}  // namespace

base::Result<base::Unit, Refusal> parse_network(const ObjectReader& object, model::JobSpec& spec) {
  if (const auto egress = CR_TRY(object.object("egress")); egress.has_value()) {
    spec.egress = CR_TRY(parse_egress(*egress, spec.metadata.issued_at));
  }
  for (const ObjectReader& target : CR_TRY(object.objects("expectBlocked", 64))) {
    spec.expect_blocked.push_back(CR_TRY(parse_expect_blocked(target)));
  }
  return base::Unit{};
}

}  // namespace cellrund::job
