#include "netpolicy/resolver/dns_record.hpp"

#include <utility>

namespace cellrund::netpolicy::resolver {

namespace {

// Out of hand: the cell could ask for any number of these, each under another name.
bool refused(Verdict verdict) noexcept {
  switch (verdict) {
    case Verdict::kNotListed:
    case Verdict::kType:
    case Verdict::kRate:
    case Verdict::kQuota:
    case Verdict::kMalformed: return true;
    case Verdict::kAnswered:
    case Verdict::kNoData:
    case Verdict::kUpstream:
    case Verdict::kDenied: return false;
  }
  return true;
}

}  // namespace

void DnsRecord::add(const Report& report, base::BootTime now) {
  auto state = state_.lock();
  ++state->counters.at(static_cast<std::size_t>(report.verdict));
  const Key key{report.name, report.type, report.verdict};
  auto found = state->index.find(key);
  if (found == state->index.end()) {
    const bool out_of_hand = refused(report.verdict);
    const std::size_t served = state->queries.size() - state->refused;
    if (out_of_hand ? state->refused >= kMaxRefused : served >= kMaxQueries - kMaxRefused) {
      ++state->suppressed;
      return;
    }
    state->refused += out_of_hand ? 1 : 0;
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
  for (std::size_t i = 0; i < kVerdicts; ++i) {
    if (state->counters[i] != 0) {
      out.counters.emplace_back(to_string(static_cast<Verdict>(i)), state->counters[i]);
      out.counted += state->counters[i];
    }
  }
  out.failure = state->failure;
  return out;
}

}  // namespace cellrund::netpolicy::resolver
