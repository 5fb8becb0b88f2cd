#include "netpolicy/resolver/dns_record.hpp"

#include <utility>

namespace cellrund::netpolicy::resolver {

void DnsRecord::add(const Report& report, base::BootTime now) {
  auto state = state_.lock();
  const Key key{report.name, report.type, report.verdict};
  auto found = state->index.find(key);
  if (found == state->index.end()) {
    if (state->queries.size() >= kMaxQueries) {
      ++state->suppressed;
      return;
    }
    found = state->index.emplace(key, state->queries.size()).first;
    model::DnsQuery query;
    query.seq = state->queries.size() + 1;
    query.boot_ns = now.ns;
    query.name = report.name;
    query.type = report.verdict == Verdict::kMalformed ? "" : type_name(report.type);
    query.verdict = to_string(report.verdict);
    state->queries.push_back(std::move(query));
  }
  ++state->queries[found->second].count;
  ++state->seen;
}

void DnsRecord::set_addresses(const std::string& name, std::vector<std::string> addresses) {
  if (addresses.size() > kMaxAddresses) {
    addresses.resize(kMaxAddresses);
  }
  auto state = state_.lock();
  if (state->addresses.contains(name) || state->addresses.size() < kMaxQueries) {
    state->addresses[name] = std::move(addresses);
  }
}

void DnsRecord::set_failure(std::string why) {
  state_.lock()->failure = std::move(why);
}

model::DnsFacts DnsRecord::facts() const {
  model::DnsFacts out;
  out.upstreams = upstreams_;
  out.tunnel_capable = tunnel_capable_;
  auto state = state_.lock();
  out.queries = state->queries;
  for (model::DnsQuery& query : out.queries) {
    const bool about_addresses =
        query.verdict == to_string(Verdict::kAnswered) || query.verdict == to_string(Verdict::kDenied);
    if (const auto found = state->addresses.find(query.name); about_addresses && found != state->addresses.end()) {
      query.addresses = found->second;
    }
  }
  out.seen = state->seen;
  out.suppressed = state->suppressed;
  out.counted = state->seen + state->suppressed;
  out.failure = state->failure;
  return out;
}

}  // namespace cellrund::netpolicy::resolver
