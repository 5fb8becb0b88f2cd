#include "facts.hpp"

namespace cellrund::evidence::test {

namespace {

base::WallTime wall(int second, int millis) { return {1795255200 + second, millis * 1000000}; }  // 2026-11-21T10:00:00Z
base::BootTime boot(int millis) { return {1'000'000'000'000 + static_cast<std::int64_t>(millis) * 1'000'000}; }

std::string digest(char c) { return "sha256:" + std::string(64, c); }

}  // namespace

const crypto::PrivateKey& node_key() {
  static const crypto::PrivateKey kKey = [] {
    auto key = crypto::PrivateKey::from_pem("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIC7qKD132VgfQWm06U+sDzUYAhLu34YwWjAjhGu5ZMJ8\n-----END PRIVATE KEY-----\n");
    CR_ASSERT(key.ok());
    return std::move(*key);
  }();
  return kKey;
}

model::Evidence full() {
  model::Evidence e;
  e.node = {"node-1", "11111111-2222-3333-4444-555555555555", "6.1.0-18-amd64", "0.1.0", digest('c'), node_key().public_key().key_id()};
  e.request = {.uid = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11",
               .spec_digest = digest('a'),
               .signer_key_id = std::string(64, 'b'),
               .tenant = "research",
               .name = "fix-tests",
               .verified_at = wall(0, 1),
               .peer = {1000, 1000, 4711}};
  e.spec.emplace();
  e.spec->limits = {1500, 256ULL << 20U, 128, 0};
  e.inputs = model::InputFacts{digest('6'), digest('7'), digest('8')};
  e.image = model::ImageFacts{"registry.example/agents/python@" + digest('d'), digest('d'), digest('e')};
  e.lane = model::LaneFacts{.name = "microvm",
                            .tier = 2,
                            .accel = "tcg",
                            .runtime = "io.containerd.cellrun.v2",
                            .shim_digest = digest('f'),
                            .vmm = model::VmmFacts{"/usr/bin/qemu-system-x86_64", digest('1'), "QEMU 7.2.19", 4712, 99, 70000, 2, true, "0000000000000000"},
                            .guest_kernel_digest = digest('2'),
                            .guest_kernel_release = "6.1.0-18-cloud-amd64",
                            .initrd_digest = digest('3')};
  e.enforced = {1500, 256ULL << 20U, 128, 0};
  e.overhead_memory_bytes = 128ULL << 20U;
  e.peak = model::PeakFacts{201'326'592, 7, 1'234'567};
  e.limits_hit = model::LimitFacts{.host_oom_kills = 0, .host_pids_refused = 2, .memory = false, .pids = true, .disk = true};
  e.egress = model::EgressFacts{.policy_digest = digest('4'),
                                .program_tag = "a04f5eef06a7f555",
                                .map_digest = digest('5'),
                                .program_ids = {41, 42},
                                .link_ids = {7, 8},
                                .attach_netns = "4:4026532700",
                                .attach_ifindex = 12,
                                .attach_hook = "tcx/ingress+egress",
                                .readback_boot_ns = boot(40).ns,
                                .canary_sent = 3,
                                .canary_blocked = 3,
                                .canary_counted = 3,
                                .canary_at_end = model::EndCanary{3, 3, 3, true, ""},
                                .counters = {{"default-deny", 9}, {"ipv6", 2}, {"allowed", 1}, {"established", 20}, {"reply", 19}},
                                .decisions = {{1, boot(1500).ns, 6, "203.0.113.9", 443, "denied", "default-deny", 9}, {2, boot(1600).ns, 0, "", 0, "denied", "ipv6", 2}, {3, boot(1700).ns, 6, "198.51.100.7", 443, "allowed", "allowed", 1}},
                                .seen = 12,
                                .suppressed = 0,
                                .lost = 0,
                                .counted = 12,
                                .relaxations = {"public", "private:10.2.0.0/16"},
                                .used_bytes = 48213,
                                .used_packets = 40,
                                .used_connections = 1,
                                .quota_exhausted = false};
  e.timeline = {{model::State::kAccepted, wall(0, 2), boot(0), ""},
                {model::State::kPreparing, wall(0, 5), boot(3), ""},
                {model::State::kStarting, wall(0, 60), boot(58), ""},
                {model::State::kRunning, wall(2, 100), boot(2098), ""},
                {model::State::kTearingDown, wall(3, 500), boot(3498), "the workload ended"},
                {model::State::kFailed, wall(3, 731), boot(3729), ""}};
  e.outcome = {model::State::kFailed, model::Reason::kError, 3, std::nullopt, ""};
  e.deadline = {.set = boot(302098), .fired_at = std::nullopt, .ladder = {}, .overrun_ms = 0};
  e.logs = model::LogFacts{digest('6'), 1234, false};
  e.teardown.emplace();
  e.teardown->started = wall(3, 500);
  e.teardown->finished = wall(3, 730);
  e.teardown->created = {{model::ItemKind::kNetns, "/run/cellrun/netns/cr-0123abcd-x", "4:4026532800"}, {model::ItemKind::kProcess, "vmm", "4712:99"}};
  e.teardown->residue.checks = {{"netns", "/proc/*/ns/net", "absent", "absent", true}, {"process", "/proc/*/stat", "absent", "absent", true}};
  e.teardown->residue.verdict = model::Verdict::kClean;
  return e;
}

model::Evidence refused() {
  model::Evidence e;
  e.node = full().node;
  e.request.spec_digest = digest('a');
  e.request.peer = {1000, 1000, 4711};
  e.timeline = {{model::State::kRejected, wall(0, 2), boot(0), ""}};
  e.outcome = {model::State::kRejected, model::Reason::kSignatureInvalid, std::nullopt, std::nullopt, "no signature of this envelope verifies"};
  return e;
}

}  // namespace cellrund::evidence::test
