// flows: what a job tried to reach, from the filter while it lives and from its record afterwards.
#include <algorithm>
#include <charconv>

#include "groups.hpp"

namespace cellrund::cli {
namespace {

constexpr std::size_t kMostTargets = 1000;

struct Wanted {
  bool follow = false;
  std::optional<std::size_t> top;
  std::string verdict;  // empty: every one
};

base::Result<Wanted, Failed> wanted(const Arguments& arguments) {
  Wanted out;
  out.follow = arguments.has("follow");
  if (arguments.has("top")) {
    const std::string digits = arguments.value("top").value_or("10");
    std::size_t count = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
    if (error != std::errc() || end != digits.data() + digits.size() || count == 0 || count > kMostTargets) {
      return misuse("flows: --top=" + digits + ": not a number from 1 to " + std::to_string(kMostTargets),
                    "--top alone shows ten targets");
    }
    out.top = count;
  }
  if (out.follow && out.top) {
    return misuse("flows: --follow and --top contradict each other", "--top sums up what --follow tells one by one");
  }
  if (const auto verdict = arguments.value("verdict")) {
    if (*verdict != "denied" && *verdict != "allowed") {
      return misuse("flows: --verdict " + *verdict + ": neither denied nor allowed",
                    "without --verdict both are shown");
    }
    out.verdict = *verdict;
  }
  return out;
}

void keep_wanted(std::vector<model::EgressDecision>& decisions, const Wanted& wanted) {
  std::erase_if(decisions, [&](const auto& d) { return !wanted.verdict.empty() && d.verdict != wanted.verdict; });
  if (wanted.top) {
    std::stable_sort(decisions.begin(), decisions.end(),
                     [](const auto& a, const auto& b) { return a.count > b.count; });
    decisions.resize(std::min(decisions.size(), *wanted.top));
  }
}

std::string protocol_name(std::uint8_t protocol) {
  switch (protocol) {
    case 0:
      return "-";
    case 1:
      return "icmp";
    case 6:
      return "tcp";
    case 17:
      return "udp";
    default:
      return std::to_string(protocol);
  }
}

// The filter tells boot time; the job's first state has both clocks. Empty without one.
std::string wall_time(const api::Job& job, std::int64_t boot_ns) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  if (job.timeline.empty()) {
    return {};
  }
  const model::TimelineEntry& first = job.timeline.front();
  const std::int64_t nanos = first.wall.nanos + (boot_ns - first.boot.ns);
  const std::int64_t seconds = nanos / kSecond - (nanos % kSecond < 0 ? 1 : 0);
  base::WallTime out = first.wall;
  out.seconds += seconds;
  out.nanos = static_cast<decltype(out.nanos)>(nanos - seconds * kSecond);
  return base::format_rfc3339(out, true);
}

base::json::Object decision_json(const api::Job& job, const model::EgressDecision& d) {
  return {{"time", wall_time(job, d.boot_ns)},
          {"bootTimeNs", d.boot_ns},
          {"proto", protocol_name(d.protocol)},
          {"dst", d.destination},
          {"port", static_cast<unsigned>(d.port)},
          {"verdict", d.verdict},
          {"reason", d.reason},
          {"count", d.count}};
}

base::json::Object dns_query(const model::DnsQuery& query) {
  base::json::Array addresses;
  for (const std::string& address : query.addresses) {
    addresses.emplace_back(address);
  }
  return {{"seq", query.seq},         {"bootTimeNs", query.boot_ns},          {"name", query.name},  {"type", query.type},
          {"verdict", query.verdict}, {"addresses", std::move(addresses)}, {"count", query.count}};
}

// The names are the guest's.
std::string dns_table(const model::DnsFacts& dns) {
  std::vector<std::vector<std::string>> rows;
  for (const model::DnsQuery& query : dns.queries) {
    std::string addresses;
    for (const std::string& address : query.addresses) {
      addresses += (addresses.empty() ? "" : ", ") + address;
    }
    rows.push_back({or_dash(query.name), or_dash(query.type), or_dash(query.verdict), or_dash(addresses),
                    std::to_string(query.count)});
  }
  std::string verdicts;
  for (const auto& [verdict, queries] : dns.counters) {
    verdicts += "; " + printable(verdict) + " " + std::to_string(queries);
  }
  return table({"NAME", "TYPE", "VERDICT", "ADDRESSES", "COUNT"}, rows) + "queries: seen " + std::to_string(dns.seen) +
         " + suppressed " + std::to_string(dns.suppressed) + " = counted " + std::to_string(dns.counted) + verdicts +
         (dns.tunnel_capable ? "; tunnel-capable" : "") + "\n" +
         (dns.failure.empty() ? "" : "failure: " + printable(dns.failure) + "\n");
}

std::string decision_line(const Context& context, const api::Job& job, const model::EgressDecision& d) {
  if (context.style().json()) {
    return base::json::write(decision_json(job, d)) + "\n";
  }
  const Colour colour = d.verdict == "allowed" ? Colour::kGreen : Colour::kRed;
  return or_dash(wall_time(job, d.boot_ns)) + "  " + paint(or_dash(d.verdict), colour, context.style().colour_out) +
         "  " + or_dash(d.reason) + "  " + protocol_name(d.protocol) + "  " + or_dash(d.destination) +
         (d.port == 0 ? "" : ":" + std::to_string(d.port)) + "  " + std::to_string(d.count) + "\n";
}

std::string as_json(Format format, const api::Job& job, const model::EgressFacts& egress) {
  base::json::Array items;
  for (const model::EgressDecision& d : egress.decisions) {
    base::json::Object item{{"seq", d.seq}};
    const base::json::Object rest = decision_json(job, d);
    for (const auto& [key, value] : rest.members()) {
      item.set(key, value);
    }
    items.emplace_back(std::move(item));
  }
  if (format == Format::kJsonLines) {
    return list_text(format, "flows", std::move(items));
  }
  const model::DnsFacts dns = egress.dns.value_or(model::DnsFacts{});
  base::json::Array queries;
  for (const model::DnsQuery& query : dns.queries) {
    queries.emplace_back(dns_query(query));
  }
  base::json::Object verdicts;
  for (const auto& [verdict, count] : dns.counters) {
    verdicts.set(verdict, count);
  }
  base::json::Object counters;
  for (const auto& [reason, packets] : egress.counters) {
    counters.set(reason, packets);
  }
  return object_text(format, {{"flows", std::move(items)},
                              {"dns", std::move(queries)},
                              {"dnsCounters", std::move(verdicts)},
                              {"counters", std::move(counters)},
                              {"usage", base::json::Object{{"bytes", egress.used_bytes},
                                                           {"packets", egress.used_packets},
                                                           {"connections", egress.used_connections},
                                                           {"exhausted", egress.quota_exhausted}}},
                              {"accounting", base::json::Object{{"seen", egress.seen},
                                                                {"suppressed", egress.suppressed},
                                                                {"lost", egress.lost},
                                                                {"counted", egress.counted}}},
                              {"canary", base::json::Object{{"sent", egress.canary_sent},
                                                            {"blocked", egress.canary_blocked},
                                                            {"counted", egress.canary_counted}}}});
}

std::string as_table(const model::EgressFacts& egress) {
  std::vector<std::vector<std::string>> rows;
  for (const model::EgressDecision& d : egress.decisions) {
    rows.push_back({protocol_name(d.protocol), or_dash(d.destination), d.port == 0 ? "-" : std::to_string(d.port),
                    or_dash(d.verdict), or_dash(d.reason), std::to_string(d.count)});
  }
  std::string out = table({"PROTO", "DESTINATION", "PORT", "VERDICT", "REASON", "COUNT"}, rows);
  if (egress.used_packets != 0 || egress.quota_exhausted) {
    out += "passed: " + std::to_string(egress.used_packets) + " packets, " + std::to_string(egress.used_bytes) +
           " bytes, " + std::to_string(egress.used_connections) + " connections" +
           (egress.quota_exhausted ? "; the quota is used up" : "") + "\n";
  }
  out += "accounting: seen " + std::to_string(egress.seen) + " + suppressed " +
         std::to_string(egress.suppressed) + " + lost " + std::to_string(egress.lost) + " = counted " +
         std::to_string(egress.counted) + "\n";
  return egress.dns.has_value() ? out + "\n" + dns_table(*egress.dns) : out;
}

}  // namespace

Outcome flows(Context& context) {
  const Wanted wants = CR_TRY(wanted(context.arguments()));
  Connected at = CR_TRY(connect_to_job(context));
  const api::Job job = CR_TRY(ask<api::Job>(at.client, api::Get{at.uid}));
  if (!wants.follow) {
    model::EgressFacts egress = CR_TRY(ask<api::Flows>(at.client, api::GetFlows{at.uid})).egress;
    keep_wanted(egress.decisions, wants);
    const bool printed = print(context.style().json() ? as_json(context.format(), job, egress) : as_table(egress));
    return printed ? 0 : kExitOurs;
  }
  bool printed = true;
  (void)CR_TRY(stream(at.client, api::GetFlows{at.uid, true}, [&](api::Response response) {
    if (auto* reply = std::get_if<api::Flows>(&response)) {
      keep_wanted(reply->egress.decisions, wants);
      for (const model::EgressDecision& d : reply->egress.decisions) {
        printed = printed && print(decision_line(context, job, d));
      }
    }
    return printed;
  }));
  return printed ? 0 : kExitOurs;
}

}  // namespace cellrund::cli
