#include "shim/qmp.hpp"

#include <utility>

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;

constexpr std::size_t kMaxLine = 64U << 10U;

std::string version_text(const base::json::Value& greeting) {
  const base::json::Value* version = greeting.find("QMP")->find("version");
  const base::json::Value* qemu = version == nullptr ? nullptr : version->find("qemu");
  if (qemu == nullptr) {
    return {};
  }
  std::string text;
  for (const char* part : {"major", "minor", "micro"}) {
    const base::json::Value* number = qemu->find(part);
    if (number == nullptr || number->as_int() == nullptr) {
      return {};
    }
    text += (text.empty() ? "" : ".") + std::to_string(*number->as_int());
  }
  const base::json::Value* package = version->find("package");
  if (package != nullptr && package->as_string() != nullptr && !package->as_string()->empty()) {
    text += " (" + package->as_string()->substr(0, 64) + ")";
  }
  return text;
}

}  // namespace

Result<std::vector<Qmp::Step>> Qmp::feed(base::BytesView bytes) {
  in_.append(base::as_text(bytes));
  std::vector<Step> steps;
  for (std::size_t end = in_.find('\n'); end != std::string::npos; end = in_.find('\n')) {
    const std::string text = in_.substr(0, end);
    in_.erase(0, end + 1);
    const Step step = CR_TRY(line(text).context("QMP"));
    if (step != Step::kNothing) {
      steps.push_back(step);
    }
  }
  if (in_.size() > kMaxLine) {
    return Error(Errc::kInvalidArgument, "QMP: a line is too long");
  }
  return steps;
}

Result<Qmp::Step> Qmp::line(std::string_view text) {
  while (!text.empty() && (text.back() == '\r' || text.back() == ' ')) {
    text.remove_suffix(1);
  }
  if (text.empty()) {
    return Step::kNothing;
  }
  const base::json::Value value = CR_TRY(base::json::parse(text, {.max_bytes = kMaxLine, .max_depth = 16}));
  if (value.find("event") != nullptr) {
    const std::string* event = value.find("event")->as_string();
    // Others tell nothing that the process's own end does not.
    return event != nullptr && *event == "RESET" ? Step::kRestarted : Step::kNothing;
  }
  if (value.find("error") != nullptr) {
    return Error(Errc::kFailedPrecondition, "a command was refused");
  }
  if (!greeted_ && value.find("QMP") != nullptr) {
    version_ = version_text(value);
    if (version_.empty()) {
      return Error(Errc::kInvalidArgument, "the greeting names no version");
    }
    greeted_ = true;
    execute(R"("qmp_capabilities")", Step::kReady);
    return Step::kGreeted;
  }
  if (value.find("return") != nullptr && !expected_.empty()) {
    const Step step = expected_.front();
    expected_.pop_front();
    return step;
  }
  return Error(Errc::kInvalidArgument, "an answer out of turn");
}

void Qmp::execute(std::string_view command, Step answered) {
  out_ += "{\"execute\":" + std::string(command) + "}\n";
  expected_.push_back(answered);
}

void Qmp::cont() { execute(R"("cont")", Step::kRunning); }

void Qmp::end_on_reset() { execute(R"("set-action","arguments":{"reboot":"shutdown"})", Step::kCommitted); }

void Qmp::stop() { execute(R"("stop")", Step::kPaused); }

void Qmp::resume() { execute(R"("cont")", Step::kResumed); }

std::string Qmp::take_output() { return std::exchange(out_, {}); }

}  // namespace cellrund::shim
