#include "netpolicy/resolver/engine.hpp"

#include <algorithm>

namespace cellrund::netpolicy::resolver {
namespace {

using base::BootTime;

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::size_t kMaxStreamMessage = 65535;

std::uint32_t seconds_left(BootTime until, BootTime now) noexcept {
  return static_cast<std::uint32_t>(std::max<std::int64_t>(0, (until - now).count() / kSecond));
}

}  // namespace

Engine::Engine(Orders orders, std::function<std::uint16_t()> random_id)
    : orders_(std::move(orders)), random_id_(std::move(random_id)) {}

bool Engine::listed(std::string_view name) const {
  return std::any_of(orders_.names.begin(), orders_.names.end(), [&](const auto& host) { return host.matches(name); });
}

bool Engine::within_rate(BootTime now) {
  constexpr std::int64_t kCost = kSecond / static_cast<std::int64_t>(kQueriesPerSecond);
  const BootTime start = std::max(paid_until_, now);
  if ((start - now).count() > kCost * static_cast<std::int64_t>(kBurst)) {
    return false;
  }
  paid_until_ = {start.ns + kCost};
  return true;
}

std::optional<Verdict> Engine::refusal_of(const Query& query, BootTime now) {
  if (!within_rate(now)) {
    return Verdict::kRate;
  }
  if (orders_.max_queries.has_value() && queries_ >= *orders_.max_queries) {
    return Verdict::kQuota;
  }
  ++queries_;
  if (query.name.size() > model::HostName::kLongest || query.query_class != kClassIn || !listed(query.name)) {
    return Verdict::kNotListed;
  }
  if (query.type != kTypeA && query.type != kTypeAaaa) {
    return Verdict::kType;
  }
  return std::nullopt;
}

void Engine::query(const Client& client, base::BytesView message, BootTime now) {
  auto query = parse_query(message);
  if (!query.has_value()) {
    effects_.emplace_back(Tell{Report{Verdict::kMalformed, 0, {}}});
    return;
  }
  if (const auto refused = refusal_of(*query, now); refused.has_value()) {
    reply(client, *query, {Rcode::kRefused, {}, 0}, *refused);
    return;
  }
  if (query->type == kTypeAaaa) {  // cells have IPv4 only
    reply(client, *query, {Rcode::kNoError, {}, 0}, Verdict::kNoData);
    return;
  }
  if (const auto known = cache_.find(query->name); known != cache_.end() && now < known->second.until) {
    reply(client, *query, {Rcode::kNoError, known->second.addresses, seconds_left(known->second.until, now)},
          Verdict::kAnswered);
    return;
  }
  look_up(client, std::move(*query), now);
}

void Engine::look_up(const Client& client, Query query, BootTime now) {
  auto found = std::find_if(lookups_.begin(), lookups_.end(),
                            [&](const auto& entry) { return entry.second.name == query.name; });
  const bool full =
      found == lookups_.end() ? lookups_.size() >= kMaxLookups : found->second.waiting.size() >= kMaxWaiting;
  if (full) {
    reply(client, query, {Rcode::kRefused, {}, 0}, Verdict::kRate);
    return;
  }
  if (found != lookups_.end()) {
    found->second.waiting.push_back({client, std::move(query)});
    return;
  }
  const std::uint32_t number = next_lookup_++;
  Lookup& lookup = lookups_[number];
  lookup.name = query.name;
  lookup.waiting.push_back({client, std::move(query)});
  ask(number, lookup, now);
}

void Engine::ask(std::uint32_t number, Lookup& lookup, BootTime now) {
  lookup.id = random_id_();
  lookup.until = now + kPatience;
  const std::uint32_t upstream = orders_.upstreams.at(lookup.attempt % orders_.upstreams.size());
  effects_.emplace_back(AskUpstream{number, upstream, lookup.stream, build_question(lookup.id, lookup.name)});
}

void Engine::try_next(std::uint32_t number, BootTime now) {
  Lookup& lookup = lookups_.at(number);
  if (++lookup.attempt >= kAttempts) {
    finish(number, {Rcode::kServerFailure, {}, 0}, Verdict::kUpstream);
    return;
  }
  lookup.stream = false;
  ask(number, lookup, now);
}

void Engine::answer(std::uint32_t number, base::BytesView message, BootTime now) {
  const auto found = lookups_.find(number);
  if (found == lookups_.end() || found->second.deciding) {
    return;
  }
  Lookup& lookup = found->second;
  auto got = parse_answer(message, lookup.id, lookup.name);
  if (!got.has_value()) {
    return;  // not what was asked for: somebody guesses
  }
  if (got->truncated && !lookup.stream) {
    lookup.stream = true;
    ask(number, lookup, now);
    return;
  }
  if (got->rcode == Rcode::kNameError) {
    finish(number, {Rcode::kNameError, {}, 0}, Verdict::kNoData);
    return;
  }
  if (got->rcode != Rcode::kNoError || got->truncated) {
    try_next(number, now);
    return;
  }
  if (got->addresses.empty()) {
    finish(number, {Rcode::kNoError, {}, 0}, Verdict::kNoData);
    return;
  }
  lookup.deciding = true;
  lookup.until = now + kDecisionPatience;
  lookup.addresses = std::move(got->addresses);
  lookup.ttl = std::min(got->ttl, kLongestTtl);
  effects_.emplace_back(StopAsking{number});
  effects_.emplace_back(Tell{Proposal{number, lookup.ttl, lookup.name, lookup.addresses}});
}

void Engine::unreachable(std::uint32_t number, BootTime now) {
  const bool moved_on = std::any_of(effects_.begin(), effects_.end(), [&](const Effect& effect) {
    const auto* ask = std::get_if<AskUpstream>(&effect);
    return ask != nullptr && ask->lookup == number;
  });
  if (moved_on) {
    return;
  }
  if (const auto found = lookups_.find(number); found != lookups_.end() && !found->second.deciding) {
    try_next(number, now);
  }
}

void Engine::decided(const Decision& decision, BootTime now) {
  const auto found = lookups_.find(decision.lookup);
  if (found == lookups_.end() || !found->second.deciding) {
    return;
  }
  const Lookup& lookup = found->second;
  std::vector<std::uint32_t> accepted;
  for (std::size_t i = 0; i < lookup.addresses.size(); ++i) {
    if ((decision.accepted >> i & 1U) != 0) {
      accepted.push_back(lookup.addresses[i]);
    }
  }
  if (accepted.empty()) {
    finish(decision.lookup, {Rcode::kNoError, {}, 0}, Verdict::kDenied);
    return;
  }
  remember(lookup.name, accepted, now + std::chrono::seconds(lookup.ttl), now);
  finish(decision.lookup, {Rcode::kNoError, accepted, lookup.ttl}, Verdict::kAnswered);
}

void Engine::tick(BootTime now) {
  std::vector<std::uint32_t> late;
  for (const auto& [number, lookup] : lookups_) {
    if (lookup.until <= now) {
      late.push_back(number);
    }
  }
  for (const std::uint32_t number : late) {
    if (lookups_.at(number).deciding) {
      finish(number, {Rcode::kServerFailure, {}, 0}, Verdict::kUpstream);
    } else {
      try_next(number, now);
    }
  }
}

std::optional<BootTime> Engine::next_deadline() const {
  std::optional<BootTime> next;
  for (const auto& [number, lookup] : lookups_) {
    next = next.has_value() ? std::min(*next, lookup.until) : lookup.until;
  }
  return next;
}

std::vector<Effect> Engine::take() {
  return std::exchange(effects_, {});
}

void Engine::finish(std::uint32_t number, const Reply& answer, Verdict verdict) {
  const auto node = lookups_.extract(number);
  effects_.emplace_back(StopAsking{number});
  for (const Waiting& waiting : node.mapped().waiting) {
    reply(waiting.client, waiting.query, answer, verdict);
  }
}

void Engine::reply(const Client& client, const Query& query, const Reply& answer, Verdict verdict) {
  effects_.emplace_back(Tell{Report{verdict, query.type, query.name.substr(0, kMaxRecordedName)}});
  effects_.emplace_back(
      SendReply{client, build_reply(query, answer, client.stream ? kMaxStreamMessage : kMaxDatagram)});
}

void Engine::remember(const std::string& name, std::vector<std::uint32_t> addresses, BootTime until, BootTime now) {
  if (until <= now) {
    return;
  }
  std::erase_if(cache_, [&](const auto& entry) { return entry.second.until <= now; });
  if (cache_.size() >= kMaxCached && !cache_.contains(name)) {
    cache_.erase(std::min_element(cache_.begin(), cache_.end(),
                                  [](const auto& a, const auto& b) { return a.second.until < b.second.until; }));
  }
  cache_[name] = {std::move(addresses), until};
}

}  // namespace cellrund::netpolicy::resolver
