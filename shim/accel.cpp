#include "shim/accel.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "crypto/digest.hpp"
#include "shim/children.hpp"
#include "shim/loop.hpp"
#include "shim/machine.hpp"
#include "shim/tsc.hpp"
#include "shim/uid_pool.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
namespace json = base::json;

constexpr std::uint64_t kProbeMemory = 128ULL << 20U;

// Everything that the answer depends on, in a file name.
Result<std::string> answer_path(const Config& config, const GuestImages& images) {
  const std::string key = CR_TRY(base::boot_id()) + "\n" + images.qemu_digest + "\n" + images.kernel_digest + "\n" +
                          images.initrd_digest + "\n" + std::string(to_string(config.accel));
  return config.state_dir + "/accel-" + crypto::hex(crypto::sha256(base::as_bytes(key))).substr(0, 32) + ".json";
}

std::optional<AccelAnswer> parse_answer(std::string_view text) {
  const Result<json::Value> value = json::parse(text, {.max_bytes = 4096});
  if (!value.ok()) {
    return std::nullopt;
  }
  const json::Value* accel = value->find("accel");
  const json::Value* why = value->find("why");
  const json::Value* tsc = value->find("tscKhz");
  if (accel == nullptr || accel->as_string() == nullptr || why == nullptr || why->as_string() == nullptr ||
      tsc == nullptr || tsc->as_int() == nullptr) {
    return std::nullopt;
  }
  return AccelAnswer{*accel->as_string() == "kvm" ? Accel::kKvm : Accel::kTcg, *why->as_string(),
                     static_cast<std::uint64_t>(*tsc->as_int())};
}

Status remember(const std::string& path, const AccelAnswer& answer) {
  const json::Object value{
      {"accel", std::string(to_string(answer.accel))}, {"why", answer.why}, {"tscKhz", answer.tsc_khz}};
  return base::write_file_atomic(path, json::write(value), 0600);
}

// Ok: a guest came up to its handshake. Else: why not.
Status boot_under_kvm(const Config& config, const GuestImages& images) {
  Loop loop = CR_TRY(Loop::create());
  const std::unique_ptr<Children> children = CR_TRY(Children::create(loop));
  const HeldUid uid = CR_TRY(take_uid(config));
  Status outcome = Error(Errc::kDeadlineExceeded, "no handshake within " + std::to_string(config.probe_timeout.count()) +
                                                      " s: the guest kernel does not start");
  const auto timer = CR_TRY(Timer::create(loop, [&loop] { loop.stop(); }));
  CR_CHECK(timer->arm_after(config.probe_timeout));
  const base::UniqueFd blank = CR_TRY(base::sealed_memfd("probe-root", base::Bytes(4096)));
  const base::UniqueFd rootfs = CR_TRY(base::open_file("/proc/self/fd/" + std::to_string(blank.get()), O_RDONLY));
  MachinePlan plan;
  plan.name = "cellrun-probe";
  plan.accel = Accel::kKvm;
  plan.memory_bytes = kProbeMemory;
  plan.uid = uid.uid;
  plan.images = &images;
  plan.rootfs_fd = rootfs.get();
  plan.scratch_dir = config.state_dir;
  plan.before_exec = [](const base::ProcessId&) { return base::ok(); };
  Machine::Callbacks callbacks;
  callbacks.checked = [&](Result<VmmStatus> checked) {
    if (!checked.ok()) {
      outcome = std::move(checked).error();
      loop.stop();
    }
  };
  callbacks.event = [&](wire::Event& event) {
    if (std::holds_alternative<wire::HelloEvent>(event)) {
      outcome = base::ok();
    } else if (const auto* error = std::get_if<wire::ProtocolErrorEvent>(&event)) {
      outcome = Error(Errc::kUnknown, error->what);
    }
    loop.stop();
  };
  callbacks.restarted = [&] {
    outcome = Error(Errc::kUnavailable, "the guest restarted instead of coming up");
    loop.stop();
  };
  callbacks.committed = [](Status) {};  // never asked for
  callbacks.died = [&](base::ExitStatus) {
    outcome = Error(Errc::kUnavailable, "QEMU ended");
    loop.stop();
  };
  const std::unique_ptr<Machine> machine = CR_TRY(Machine::launch(loop, *children, plan, std::move(callbacks)));
  CR_CHECK(loop.run());
  return outcome;
}

}  // namespace

Result<std::optional<AccelAnswer>> remembered_accel(const Config& config, const GuestImages& images) {
  const std::string path = CR_TRY(answer_path(config, images));
  if (const Result<std::string> text = base::read_file(path, 4096); text.ok()) {
    return parse_answer(*text);
  }
  if (config.accel == Accel::kAuto) {
    return std::optional<AccelAnswer>();
  }
  AccelAnswer answer{config.accel, "set in the configuration", measure_tsc_khz()};
  CR_CHECK(remember(path, answer));
  return std::optional(std::move(answer));
}

Result<AccelAnswer> probe_accel(const Config& config) {
  const GuestImages images = CR_TRY(load_guest_images(config));
  const base::UniqueFd lock = CR_TRY(base::open_file(config.state_dir + "/probe.lock", O_RDWR | O_CREAT, 0600));
  // Held by another probe for at most its own timeout, which ends by itself.
  if (::flock(lock.get(), LOCK_EX) != 0) {
    return Error::from_errno("flock probe.lock");
  }
  if (std::optional<AccelAnswer> known = CR_TRY(remembered_accel(config, images)); known.has_value()) {
    return *std::move(known);
  }
  AccelAnswer answer{Accel::kTcg, {}, measure_tsc_khz()};
  if (::access("/dev/kvm", R_OK | W_OK) != 0) {
    answer.why = "there is no /dev/kvm";
  } else if (const Status booted = boot_under_kvm(config, images); booted.ok()) {
    answer.accel = Accel::kKvm;
    answer.why = "a guest came up under KVM";
  } else {
    answer.why = "boot under KVM: " + booted.error().message();
  }
  CR_CHECK(remember(CR_TRY(answer_path(config, images)), answer));
  return answer;
}

}  // namespace cellrund::shim
