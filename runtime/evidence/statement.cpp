#include "evidence/statement.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "crypto/digest.hpp"
#include "crypto/dsse.hpp"
#include "evidence/bounded.hpp"
#include "evidence/outputs_manifest.hpp"

namespace cellrund::evidence {

namespace json = base::json;
using base::Errc;
using base::Error;
using base::Result;

namespace {

// Tried in turn until the record fits. The last one always does.
constexpr std::array<Budget, 3> kBudgets{{{4096, 1024}, {512, 512}, {64, 128}}};

std::string bare_hex(std::string_view digest) {
  constexpr std::string_view kPrefix = "sha256:";
  return std::string(digest.starts_with(kPrefix) ? digest.substr(kPrefix.size()) : digest);
}

json::Object boot(base::BootTime time) { return {{"bootTimeNs", time.ns}}; }

json::Object node(Writer& w, const model::NodeFacts& facts) {
  json::Object out;
  w.put(out, "id", facts.id);
  w.put(out, "bootId", facts.boot_id);
  w.put(out, "kernel", facts.kernel);
  w.put(out, "cellrunVersion", facts.cellrun_version);
  w.put(out, "configDigest", facts.config_digest);
  w.put(out, "keyId", facts.key_id);
  return out;
}

json::Object request(Writer& w, const model::RequestFacts& facts) {
  json::Object out;
  w.put(out, "uid", facts.uid);
  w.put(out, "specDigest", facts.spec_digest);
  w.put(out, "signerKeyId", facts.signer_key_id);
  w.put(out, "namespace", facts.tenant);
  w.put(out, "name", facts.name);
  if (facts.verified_at.has_value()) {
    out.set("verifiedAt", Writer::wall(*facts.verified_at));
  }
  out.set("peer", json::Object{{"uid", facts.peer.uid}, {"gid", facts.peer.gid}, {"pid", facts.peer.pid}});
  return out;
}

json::Object image(Writer& w, const model::ImageFacts& facts) {
  json::Object out;
  w.put(out, "ref", facts.ref);
  w.put(out, "digest", facts.digest);
  w.put(out, "rootfsDigest", facts.rootfs_digest);
  return out;
}

json::Object inputs(Writer& w, const model::InputFacts& facts) {
  json::Object out;
  w.put(out, "task", facts.task);
  w.put(out, "workspace", facts.workspace);
  w.put(out, "imageDigest", facts.image_digest);
  return out;
}

json::Object vmm(Writer& w, const model::VmmFacts& facts) {
  json::Object out;
  w.put(out, "path", facts.path);
  w.put(out, "digest", facts.digest);
  w.put(out, "version", facts.version);
  out.set("pid", facts.pid);
  out.set("startTime", Writer::count(facts.start_time));
  out.set("uid", facts.uid);
  if (facts.seccomp >= 0) {
    out.set("seccomp", facts.seccomp);
  }
  out.set("noNewPrivileges", facts.no_new_privs);
  w.put(out, "effectiveCapabilities", facts.effective_capabilities);
  w.put(out, "boundingCapabilities", facts.bounding_capabilities);
  w.put_count(out, "threads", facts.threads);
  if (!facts.namespaces.empty()) {
    json::Object namespaces;
    for (const auto& [kind, id] : facts.namespaces) {
      namespaces.set(kind, w.text(id));
    }
    out.set("namespaces", std::move(namespaces));
  }
  const auto texts = [&w](const std::vector<std::string>& values, std::string_view name) {
    return w.list(values, name, [&w](const std::string& text) { return json::Value(w.text(text)); });
  };
  if (!facts.cgroups.empty()) {
    out.set("cgroups", texts(facts.cgroups, "lane.vmm.cgroups"));
  }
  w.put(out, "root", facts.root);
  if (!facts.open_files.empty()) {
    out.set("openFiles", texts(facts.open_files, "lane.vmm.openFiles"));
  }
  w.put(out, "argvDigest", facts.argv_digest);
  if (facts.checked.ns != 0) {
    out.set("checkedAt", boot(facts.checked));
  }
  return out;
}

json::Object lane(Writer& w, const model::LaneFacts& facts) {
  json::Object out;
  w.put(out, "name", facts.name);
  out.set("tier", facts.tier);
  w.put(out, "accel", facts.accel);
  w.put(out, "runtime", facts.runtime);
  w.put(out, "shimDigest", facts.shim_digest);
  if (facts.vmm.has_value()) {
    out.set("vmm", vmm(w, *facts.vmm));
  }
  json::Object kernel;
  w.put(kernel, "digest", facts.guest_kernel_digest);
  w.put(kernel, "release", facts.guest_kernel_release);
  w.put(out, "guestKernel", std::move(kernel));
  w.put(out, "initrdDigest", facts.initrd_digest);
  return out;
}

json::Object limits(const Writer& w, const model::Limits& facts) {
  json::Object out;
  w.put_count(out, "cpuMillis", facts.cpu_millis);
  w.put_count(out, "memoryBytes", facts.memory_bytes);
  w.put_count(out, "pids", facts.pids);
  w.put_count(out, "ephemeralStorageBytes", facts.ephemeral_storage_bytes);
  return out;
}

json::Object peak(const Writer& w, const model::PeakFacts& facts) {
  json::Object out;
  w.put_count(out, "memoryBytes", facts.memory_bytes);
  w.put_count(out, "pids", facts.pids);
  w.put_count(out, "cpuMicros", facts.cpu_usec);
  return out;
}

// `inside` is what cell-init found; the counts are the host's.
json::Object limits_hit(const model::LimitFacts& facts) {
  json::Array inside;
  for (const auto& [hit, name] : {std::pair{facts.memory, "memory"}, {facts.pids, "pids"}, {facts.disk, "disk"}}) {
    if (hit) {
      inside.emplace_back(name);
    }
  }
  return {{"hostOomKills", Writer::count(facts.host_oom_kills)},
          {"hostPidsRefused", Writer::count(facts.host_pids_refused)},
          {"inside", std::move(inside)}};
}

// Reasons that stand on nothing but the guest's word where there is a guest.
bool is_guests_reason(model::Reason reason) {
  return reason == model::Reason::kOomKilledGuest || reason == model::Reason::kPidsExhausted || reason == model::Reason::kDiskQuotaExceeded;
}

json::Array ids(Writer& w, const std::vector<std::uint32_t>& values, std::string_view name) {
  return w.list(values, name, [](std::uint32_t id) { return json::Value(id); });
}

json::Object decision(Writer& w, const model::EgressDecision& facts) {
  json::Object out{{"seq", Writer::count(facts.seq)}, {"t", boot({facts.boot_ns})}, {"proto", static_cast<int>(facts.protocol)}};
  w.put(out, "dst", facts.destination);
  w.put_count(out, "port", facts.port);
  w.put(out, "verdict", facts.verdict);
  w.put(out, "reason", facts.reason);
  out.set("count", Writer::count(facts.count));
  return out;
}

json::Object dns_query(Writer& w, const model::DnsQuery& facts) {
  json::Object out{{"seq", Writer::count(facts.seq)}, {"t", boot({facts.boot_ns})}};
  w.put(out, "name", facts.name);
  w.put(out, "type", facts.type);
  w.put(out, "verdict", facts.verdict);
  if (!facts.addresses.empty()) {
    out.set("addresses", w.list(facts.addresses, "egress.dns.addresses", [&w](const std::string& text) { return json::Value(w.text(text)); }));
  }
  out.set("count", Writer::count(facts.count));
  return out;
}

void put_dns(Writer& w, json::Object& egress, const model::DnsFacts& facts) {
  json::Object resolver{{"tunnelCapable", facts.tunnel_capable}};
  resolver.set("upstreams", w.list(facts.upstreams, "egress.resolver.upstreams", [&w](const std::string& text) { return json::Value(w.text(text)); }));
  resolver.set("accounting", json::Object{{"seen", Writer::count(facts.seen)},
                                          {"suppressed", Writer::count(facts.suppressed)},
                                          {"counted", Writer::count(facts.counted)}});
  resolver.set("counters", w.list(facts.counters, "egress.resolver.counters", [&w](const auto& entry) {
    return json::Object{{"verdict", w.text(entry.first)}, {"queries", Writer::count(entry.second)}};
  }));
  w.put(resolver, "failure", facts.failure);
  egress.set("resolver", std::move(resolver));
  egress.set("dns", w.list(facts.queries, "egress.dns", [&w](const model::DnsQuery& query) { return dns_query(w, query); }));
}

json::Object egress(Writer& w, const model::EgressFacts& facts) {
  json::Object out;
  w.put(out, "policyDigest", facts.policy_digest);
  if (!facts.relaxations.empty()) {
    out.set("relaxations", w.list(facts.relaxations, "egress.relaxations", [&w](const std::string& text) { return json::Value(w.text(text)); }));
  }
  w.put(out, "programTag", facts.program_tag);
  out.set("progIds", ids(w, facts.program_ids, "egress.progIds"));
  out.set("linkIds", ids(w, facts.link_ids, "egress.linkIds"));
  json::Object attach;
  w.put(attach, "netns", facts.attach_netns);
  w.put_count(attach, "ifindex", facts.attach_ifindex);
  w.put(attach, "hook", facts.attach_hook);
  w.put(out, "attach", std::move(attach));
  w.put(out, "mapDigest", facts.map_digest);
  if (facts.readback_boot_ns != 0) {
    out.set("readbackAt", boot({facts.readback_boot_ns}));
  }
  out.set("canary", json::Object{{"sent", Writer::count(facts.canary_sent)},
                                 {"blocked", Writer::count(facts.canary_blocked)},
                                 {"counted", Writer::count(facts.canary_counted)}});
  if (facts.canary_at_end.has_value()) {
    json::Object end{{"sent", Writer::count(facts.canary_at_end->sent)},
                     {"blocked", Writer::count(facts.canary_at_end->blocked)},
                     {"counted", Writer::count(facts.canary_at_end->counted)},
                     {"proven", facts.canary_at_end->proven}};
    w.put(end, "why", facts.canary_at_end->why);
    out.set("canaryAtEnd", std::move(end));
  }
  out.set("counters", w.list(facts.counters, "egress.counters", [&w](const auto& entry) {
    return json::Object{{"reason", w.text(entry.first)}, {"packets", Writer::count(entry.second)}};
  }));
  out.set("decisions", w.list(facts.decisions, "egress.decisions", [&w](const auto& entry) { return decision(w, entry); }));
  if (facts.used_packets != 0 || facts.quota_exhausted) {
    out.set("usage", json::Object{{"bytes", Writer::count(facts.used_bytes)},
                                  {"packets", Writer::count(facts.used_packets)},
                                  {"connections", Writer::count(facts.used_connections)},
                                  {"exhausted", facts.quota_exhausted}});
  }
  out.set("accounting", json::Object{{"seen", Writer::count(facts.seen)},
                                     {"suppressed", Writer::count(facts.suppressed)},
                                     {"lost", Writer::count(facts.lost)},
                                     {"counted", Writer::count(facts.counted)}});
  if (facts.dns.has_value()) {
    put_dns(w, out, *facts.dns);
  }
  return out;
}

json::Object timeline_entry(Writer& w, const model::TimelineEntry& entry) {
  json::Object out{{"state", model::to_string(entry.state)}, {"wallTime", Writer::wall(entry.wall)}, {"bootTimeNs", entry.boot.ns}};
  w.put(out, "cause", entry.cause);
  return out;
}

json::Object ending(Writer& w, const model::Evidence& facts) {
  const model::Outcome& outcome = facts.outcome;
  const model::DeadlineFacts& deadline = facts.deadline;
  json::Object out{{"state", model::to_string(outcome.state)}, {"reason", model::to_string(outcome.reason)}};
  if (outcome.exit_code.has_value()) {
    out.set("code", *outcome.exit_code);
  }
  if (outcome.signal.has_value()) {
    out.set("signal", *outcome.signal);
  }
  w.put(out, "message", outcome.message);
  if (facts.limits_hit.has_value()) {
    out.set("limitsHit", limits_hit(*facts.limits_hit));
  }
  if (deadline.set.has_value()) {
    json::Object entry{{"set", boot(*deadline.set)}};
    if (deadline.fired_at.has_value()) {
      entry.set("firedAt", boot(*deadline.fired_at));
    }
    entry.set("ladder", w.list(deadline.ladder, "exit.deadline.ladder", [&w](const std::string& step) { return w.text(step); }));
    entry.set("overrunMs", deadline.overrun_ms);
    out.set("deadline", std::move(entry));
  }
  return out;
}

json::Object item(Writer& w, model::ItemKind kind, std::string_view name, std::string_view identity, std::string_view why = {}) {
  json::Object out{{"kind", model::to_string(kind)}};
  w.put(out, "name", name);
  w.put(out, "identity", identity);
  w.put(out, "why", why);
  return out;
}

json::Object teardown(Writer& w, const model::TeardownFacts& facts) {
  json::Object out{{"startedAt", Writer::wall(facts.started)}, {"finishedAt", Writer::wall(facts.finished)}};
  out.set("created", w.list(facts.created, "teardown.created",
                            [&w](const model::InventoryItem& i) { return item(w, i.kind, i.name, i.identity); }));
  if (!facts.failures.empty()) {
    out.set("failures", w.list(facts.failures, "teardown.failures", [&w](const std::string& text) { return w.text(text); }));
  }
  out.set("checks", w.list(facts.residue.checks, "teardown.checks", [&w](const model::ResidueCheck& check) {
    return json::Object{{"probe", w.text(check.probe)}, {"method", w.text(check.method)}, {"expected", w.text(check.expected)},
                        {"found", w.text(check.found)}, {"ok", check.ok}};
  }));
  out.set("residue", w.list(facts.residue.residue, "teardown.residue",
                            [&w](const model::ResidueItem& i) { return item(w, i.kind, i.name, i.identity, i.why); }));
  out.set("unknown", w.list(facts.residue.unknown, "teardown.unknown", [&w](const model::ResidueUnknown& u) {
    return json::Object{{"probe", w.text(u.probe)}, {"cause", w.text(u.cause)}};
  }));
  out.set("verdict", model::to_string(facts.residue.verdict));
  return out;
}

// Three members of the predicate: what was taken, what was not, and the manifest that the second subject is.
void outputs(Writer& w, const model::OutputFacts& facts, json::Object& out) {
  out.set("outputs", w.list(facts.files, "outputs", [&w](const model::OutputFile& file) {
    return output_entry(file);  // whole whatever the budget: the manifest is checked against these
  }));
  out.set("refusedOutputs", w.list(facts.refused, "refusedOutputs", [&w](const model::RefusedOutput& refused) {
    return json::Object{{"path", w.text(refused.path)}, {"why", w.text(refused.why)}};
  }));
  std::uint64_t bytes = 0;
  for (const model::OutputFile& file : facts.files) {
    bytes += file.size;
  }
  json::Object manifest{{"sha256", bare_hex(facts.manifest_digest)},
                        {"files", Writer::count(facts.files.size())},
                        {"bytes", Writer::count(bytes)},
                        {"refused", Writer::count(facts.refused_count)}};
  w.put(manifest, "incompleteBecause", facts.incomplete_because);
  out.set("outputsManifest", std::move(manifest));
}

// Which fields are the guest's word. Everything else the host saw itself.
json::Object vantage(const model::Evidence& facts) {
  json::Array guest;
  // The process lane has no guest: its exit status comes from the host's own kernel.
  const bool has_guest = facts.lane.has_value() && facts.lane->tier > 0;
  if (has_guest && facts.outcome.exit_code.has_value()) {
    guest.emplace_back("exit.code");
  }
  if (has_guest && facts.outcome.signal.has_value()) {
    guest.emplace_back("exit.signal");
  }
  if (has_guest && is_guests_reason(facts.outcome.reason)) {
    guest.emplace_back("exit.reason");
  }
  if (has_guest && facts.limits_hit.has_value()) {
    guest.emplace_back("exit.limitsHit.inside");
  }
  if (has_guest && !facts.lane->guest_kernel_release.empty()) {
    guest.emplace_back("lane.guestKernel.release");
  }
  if (has_guest && facts.outputs.has_value()) {
    // Their bytes are what the host received; that the workload left these, and what it did not send, the guest says.
    guest.emplace_back("outputs[].path");
    guest.emplace_back("refusedOutputs");
  }
  return {{"default", "host"}, {"guest", std::move(guest)}};
}

json::Object predicate(Writer& w, const model::Evidence& facts) {
  json::Object out{{"node", node(w, facts.node)}, {"request", request(w, facts.request)}};
  if (facts.image.has_value()) {
    out.set("image", image(w, *facts.image));
  }
  if (facts.inputs.has_value()) {
    out.set("inputs", inputs(w, *facts.inputs));
  }
  if (facts.lane.has_value()) {
    out.set("lane", lane(w, *facts.lane));
  }
  json::Object resources;
  if (facts.spec.has_value()) {
    w.put(resources, "requested", limits(w, facts.spec->limits));
  }
  w.put(resources, "enforced", limits(w, facts.enforced));
  if (facts.overhead_memory_bytes > 0) {
    resources.set("overhead", json::Object{{"memoryBytes", Writer::count(facts.overhead_memory_bytes)}});
  }
  if (facts.peak.has_value()) {
    w.put(resources, "peak", peak(w, *facts.peak));
  }
  w.put(out, "resources", std::move(resources));
  if (facts.egress.has_value()) {
    out.set("egress", egress(w, *facts.egress));
  }
  out.set("timeline", w.list(facts.timeline, "timeline", [&w](const model::TimelineEntry& entry) { return timeline_entry(w, entry); }));
  out.set("exit", ending(w, facts));
  if (facts.logs.has_value()) {
    json::Object logs{{"bytes", Writer::count(facts.logs->bytes)}, {"truncated", facts.logs->truncated}};
    w.put(logs, "sha256", bare_hex(facts.logs->sha256));
    out.set("logs", std::move(logs));
  }
  if (facts.outputs.has_value()) {
    outputs(w, *facts.outputs, out);
  }
  if (!facts.secrets.empty()) {
    out.set("secrets", w.list(facts.secrets, "secrets", [&w](const model::SecretFacts& secret) {
      json::Object entry{{"name", w.text(secret.name)}};
      if (secret.issued.has_value()) {
        entry.set("issuedAt", Writer::wall(*secret.issued));
      }
      if (secret.revoked.has_value()) {
        entry.set("revokedAt", Writer::wall(*secret.revoked));
      }
      return json::Value(std::move(entry));
    }));
  }
  if (facts.teardown.has_value()) {
    out.set("teardown", teardown(w, *facts.teardown));
  }
  if (facts.refusals_sealed > 0) {
    out.set("refusals", json::Object{{"count", Writer::count(facts.refusals_sealed)}});
  }
  out.set("vantage", vantage(facts));
  // Last, because only now is known what the budget cut away.
  json::Array gaps;
  const auto add_gap = [&gaps](json::Value why) { gaps.emplace_back(json::Object{{"why", std::move(why)}}); };
  for (const json::Value& why : w.list(facts.gaps, "gaps", [&w](const std::string& gap) { return w.text(gap); })) {
    add_gap(why);
  }
  std::string because = facts.incomplete_because;
  if (w.cut()) {
    for (const std::string& gap : w.gaps()) {
      add_gap(gap);
    }
    because += because.empty() ? "larger than a record may be" : "; larger than a record may be";
  }
  out.set("gaps", std::move(gaps));
  out.set("completeness", because.empty() ? "complete" : "partial");
  w.put(out, "partialBecause", because);
  return out;
}

json::Value build(const model::Evidence& facts, const Budget& budget) {
  Writer w(budget);
  json::Object body = predicate(w, facts);
  // An in-toto statement must have a subject. A record that seals a count of refusals has no jobspec: it is its own.
  const bool has_spec = !facts.request.spec_digest.empty();
  const std::string digest = has_spec ? bare_hex(facts.request.spec_digest) : crypto::hex(crypto::sha256(base::as_bytes(json::write(body))));
  json::Array subjects;
  const auto add_subject = [&subjects](std::string_view name, std::string_view sha256) {
    subjects.emplace_back(json::Object{{"name", name}, {"digest", json::Object{{"sha256", sha256}}}});
  };
  add_subject(has_spec ? "jobspec" : "predicate", digest);
  if (facts.outputs.has_value()) {
    add_subject(kManifestSubject, bare_hex(facts.outputs->manifest_digest));
  }
  return json::Object{
      {"_type", kStatementType},
      {"subject", std::move(subjects)},
      {"predicateType", kPredicateType},
      {"predicate", std::move(body)}};
}

}  // namespace

json::Value statement(const model::Evidence& facts) {
  for (const Budget& budget : kBudgets) {
    json::Value out = build(facts, budget);
    if (&budget == &kBudgets.back() || json::write(out).size() <= kMaxStatementBytes) {
      return out;
    }
  }
  return {};
}

Result<Sealed> seal(const model::Evidence& facts, const crypto::PrivateKey& key) {
  if (facts.node.key_id != key.public_key().key_id()) {
    return Error(Errc::kFailedPrecondition, "seal record: node.key_id is not that of the signing key");
  }
  if (!facts.request.spec_digest.empty() && !crypto::is_digest_text(facts.request.spec_digest)) {
    return Error(Errc::kInvalidArgument, "seal record: request.spec_digest is no sha256 digest");
  }
  const std::string text = json::write(statement(facts));
  if (text.size() > kMaxStatementBytes) {
    return Error(Errc::kResourceExhausted, "seal record: larger than " + std::to_string(kMaxStatementBytes) + " bytes");
  }
  const auto envelope = CR_TRY(crypto::dsse::sign(kPayloadType, base::as_bytes(text), key).context("seal record"));
  Sealed out{crypto::dsse::write(envelope), {}};
  out.digest = crypto::digest_text(base::as_bytes(out.envelope));
  return out;
}

}  // namespace cellrund::evidence
