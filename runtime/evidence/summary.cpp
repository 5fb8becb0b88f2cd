#include "evidence/summary.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "model/quantity.hpp"

namespace cellrund::evidence {

namespace json = base::json;

namespace {

constexpr std::size_t kLabelWidth = 11;
constexpr std::size_t kMaxText = 256;
constexpr std::size_t kMaxRows = 20;  // of decisions, residue and failed checks; the record has them all

// Looks members up without complaint: a field that is absent, or of another type, is just not shown.
class View {
 public:
  explicit View(const json::Value* value) : value_(value) {}
  [[nodiscard]] View operator[](std::string_view key) const { return View(value_ == nullptr ? nullptr : value_->find(key)); }
  [[nodiscard]] bool exists() const { return value_ != nullptr; }
  // Fit for a terminal: plain printable ASCII as it is, anything else quoted and escaped.
  [[nodiscard]] std::string text() const {
    const std::string* text = value_ == nullptr ? nullptr : value_->as_string();
    if (text == nullptr) {
      return {};
    }
    const bool plain = text->size() <= kMaxText && std::all_of(text->begin(), text->end(), [](char c) { return c >= 0x20 && c < 0x7f; });
    return plain ? *text : base::log::quoted(*text, kMaxText);
  }
  [[nodiscard]] std::optional<std::int64_t> number() const {
    const std::int64_t* number = value_ == nullptr ? nullptr : value_->as_int();
    return number == nullptr ? std::nullopt : std::optional(*number);
  }
  [[nodiscard]] std::int64_t number_or(std::int64_t fallback) const { return number().value_or(fallback); }
  [[nodiscard]] bool is_true() const { return value_ != nullptr && value_->as_bool() != nullptr && *value_->as_bool(); }
  [[nodiscard]] std::vector<View> items() const {
    std::vector<View> out;
    if (const json::Array* array = value_ == nullptr ? nullptr : value_->as_array(); array != nullptr) {
      for (const json::Value& item : *array) {
        out.emplace_back(&item);
      }
    }
    return out;
  }

 private:
  const json::Value* value_;
};

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) {
    text.append(width - text.size(), ' ');
  }
  return text;
}

std::string seconds(std::int64_t ns) {
  const std::int64_t millis = std::max<std::int64_t>(ns, 0) / 1000000;
  std::string fraction = std::to_string(millis % 1000);
  fraction.insert(0, 3 - fraction.size(), '0');
  return std::to_string(millis / 1000) + "." + fraction + " s";
}

std::string right(std::string text, std::size_t width) {
  if (text.size() < width) {
    text.insert(0, width - text.size(), ' ');
  }
  return text;
}

std::string plural(std::size_t n, std::string_view one, std::string_view many) {
  return std::to_string(n) + " " + std::string(n == 1 ? one : many);
}

class Page {
 public:
  // The label stands before the first line of its section only.
  void line(std::string_view label, const std::string& text) {
    out_ += padded(std::string(label), kLabelWidth) + text;
    while (out_.ends_with(' ')) {
      out_.pop_back();
    }
    out_ += '\n';
  }
  void more(const std::string& text) { line("", text); }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// ", name value" for each that is there.
void add(std::string& line, std::string_view name, const std::string& value) {
  if (!value.empty()) {
    line += (line.empty() ? "" : ", ") + std::string(name) + (name.empty() ? "" : " ") + value;
  }
}

void show_outcome(Page& page, View p) {
  const View exit = p["exit"];
  std::string text = exit["state"].text() + ": " + exit["reason"].text();
  if (const auto code = exit["code"].number(); code.has_value()) {
    text += ", exit code " + std::to_string(*code);
  }
  if (const auto signal = exit["signal"].number(); signal.has_value()) {
    text += ", signal " + std::to_string(*signal);
  }
  page.line("outcome", text);
  if (exit["message"].exists()) {
    page.more(exit["message"].text());
  }
  if (exit["deadline"]["firedAt"].exists()) {
    page.more("deadline fired, dead " + std::to_string(exit["deadline"]["overrunMs"].number_or(0)) + " ms after deadline and grace");
  }
  if (const auto count = p["refusals"]["count"].number(); count.has_value()) {
    page.more("seals a count of " + std::to_string(*count) + " refused submissions above a peer's budget");
  }
}

void show_teardown(Page& page, View teardown) {
  if (!teardown.exists()) {
    page.line("teardown", "nothing was made on the host");
    return;
  }
  const std::vector<View> checks = teardown["checks"].items();
  const std::vector<View> residue = teardown["residue"].items();
  const std::vector<View> unknown = teardown["unknown"].items();
  const auto passed = static_cast<std::size_t>(std::count_if(checks.begin(), checks.end(), [](View check) { return check["ok"].is_true(); }));
  page.line("teardown", teardown["verdict"].text() + ": " + plural(teardown["created"].items().size(), "object", "objects") + " made, " +
                            std::to_string(residue.size()) + " left, " + std::to_string(passed) + " of " +
                            plural(checks.size(), "check", "checks") + " as expected");
  std::size_t rows = 0;
  const auto row = [&](const std::string& text) {
    if (rows++ < kMaxRows) {
      page.more(text);
    }
  };
  for (const View item : residue) {
    row("left: " + item["kind"].text() + " " + item["name"].text() + " (" + item["why"].text() + ")");
  }
  for (const View item : unknown) {
    row("not seen: " + item["probe"].text() + ": " + item["cause"].text());
  }
  for (const View check : checks) {
    if (!check["ok"].is_true()) {
      row("check: " + check["probe"].text() + ": expected " + check["expected"].text() + ", found " + check["found"].text());
    }
  }
  if (rows > kMaxRows) {
    page.more("… and " + std::to_string(rows - kMaxRows) + " more in the record");
  }
}

void show_where(Page& page, View p) {
  const View lane = p["lane"];
  if (lane.exists()) {
    std::string text = lane["name"].text();
    add(text, "tier", std::to_string(lane["tier"].number_or(0)));
    const std::string accel = lane["accel"].text();
    add(text, "accel", accel == "tcg" ? "tcg (emulated, no hardware boundary)" : accel);
    page.line("lane", text);
    if (const View vmm = lane["vmm"]; vmm.exists()) {
      std::string about;
      add(about, "", vmm["version"].text());
      add(about, "uid", std::to_string(vmm["uid"].number_or(-1)));
      add(about, "seccomp", vmm["seccomp"].number_or(-1) == 2 ? "on" : "off");
      add(about, "no-new-privileges", vmm["noNewPrivileges"].is_true() ? "on" : "off");
      page.line("vmm", about);
    }
    if (const std::string release = lane["guestKernel"]["release"].text(); !release.empty()) {
      page.line("guest", "kernel " + release + " (the guest's word)");
    }
  }
  if (const std::string ref = p["image"]["ref"].text(); !ref.empty()) {
    page.line("image", ref);
  }
  for (const char* which : {"task", "workspace"}) {
    if (const std::string digest = p["inputs"][which].text(); !digest.empty()) {
      page.line(which, digest);
    }
  }
  for (const std::string_view which : {"requested", "enforced", "overhead", "peak"}) {
    const View limits = p["resources"][which];
    std::string text;
    if (const auto cpu = limits["cpuMillis"].number(); cpu.has_value()) {
      add(text, "cpu", model::format_cpu_millis(static_cast<std::uint64_t>(*cpu)));
    }
    if (const auto memory = limits["memoryBytes"].number(); memory.has_value()) {
      add(text, "memory", model::format_bytes(static_cast<std::uint64_t>(*memory)));
    }
    if (const auto pids = limits["pids"].number(); pids.has_value()) {
      add(text, "pids", std::to_string(*pids));
    }
    if (const auto cpu = limits["cpuMicros"].number(); cpu.has_value()) {
      add(text, "cpu time", seconds(*cpu * 1000));
    }
    if (!text.empty()) {
      page.line(which, text);
    }
  }
}

std::string protocol_name(std::int64_t number) {
  switch (number) {
    case 0: return "non-ip";
    case 1: return "icmp";
    case 6: return "tcp";
    case 17: return "udp";
    default: return "ip/" + std::to_string(number);
  }
}

void show_egress(Page& page, View egress) {
  if (!egress.exists()) {
    return;
  }
  const View canary = egress["canary"];
  const View sums = egress["accounting"];
  page.line("egress", "deny by default at " + egress["attach"]["hook"].text() + "; canary: " + std::to_string(canary["sent"].number_or(0)) + " sent, " +
                          std::to_string(canary["blocked"].number_or(0)) + " blocked, " + std::to_string(canary["counted"].number_or(0)) + " counted");
  if (const View end = egress["canaryAtEnd"]; end.exists()) {
    const std::string why = end["why"].text();
    page.more("at the end: " + std::to_string(end["sent"].number_or(0)) + " sent, " + std::to_string(end["blocked"].number_or(0)) + " blocked, " +
              std::to_string(end["counted"].number_or(0)) + " counted" + (why.empty() ? "" : "; not proven: " + why));
  }
  const auto sum = [&sums](std::string_view name) { return std::to_string(sums[name].number_or(0)); };
  page.more(sum("counted") + " decisions counted = " + sum("seen") + " seen + " + sum("suppressed") + " suppressed + " + sum("lost") + " lost");
  std::string opened;
  for (const View relaxation : egress["relaxations"].items()) {
    opened += (opened.empty() ? "" : ", ") + relaxation.text();
  }
  if (!opened.empty()) {
    page.more("opened by the signer's grant: " + opened);
  }
  if (const View usage = egress["usage"]; usage.exists()) {
    page.more("passed " + std::to_string(usage["packets"].number_or(0)) + " packets, " + std::to_string(usage["bytes"].number_or(0)) + " bytes, " +
              std::to_string(usage["connections"].number_or(0)) + " connections");
  }
  std::size_t rows = 0;
  for (const View decision : egress["decisions"].items()) {
    if (++rows > kMaxRows) {
      continue;
    }
    std::string target = decision["dst"].text();
    if (const auto port = decision["port"].number(); port.has_value()) {
      target += ":" + std::to_string(*port);
    }
    page.more(padded(decision["verdict"].text(), 8) + padded(protocol_name(decision["proto"].number_or(0)), 7) + padded(target, 22) +
              padded(decision["reason"].text(), 16) + std::to_string(decision["count"].number_or(0)) + "x");
  }
  if (rows > kMaxRows) {
    page.more("… and " + std::to_string(rows - kMaxRows) + " more in the record");
  }
}

void show_dns(Page& page, View egress) {
  const View resolver = egress["resolver"];
  if (!resolver.exists()) {
    return;
  }
  const View sums = resolver["accounting"];
  page.line("names", std::to_string(sums["counted"].number_or(0)) + " queries counted = " + std::to_string(sums["seen"].number_or(0)) + " seen + " +
                         std::to_string(sums["suppressed"].number_or(0)) + " suppressed");
  std::string verdicts;
  for (const View counter : resolver["counters"].items()) {
    verdicts += (verdicts.empty() ? "" : ", ") + std::to_string(counter["queries"].number_or(0)) + " " + counter["verdict"].text();
  }
  if (!verdicts.empty()) {
    page.more(verdicts);
  }
  if (resolver["tunnelCapable"].is_true()) {
    page.more("tunnel-capable: a wildcard rule let the job send anything in the names that it asked for");
  }
  if (const std::string failure = resolver["failure"].text(); !failure.empty()) {
    page.more(failure);
  }
  std::size_t rows = 0;
  for (const View query : egress["dns"].items()) {
    if (++rows > kMaxRows) {
      continue;
    }
    std::string addresses;
    for (const View address : query["addresses"].items()) {
      addresses += (addresses.empty() ? "  " : ", ") + address.text();
    }
    page.more(padded(query["verdict"].text(), 15) + padded(query["type"].text(), 7) + padded(query["name"].text(), 32) + " " +
              std::to_string(query["count"].number_or(0)) + "x" + addresses);
  }
  if (rows > kMaxRows) {
    page.more("… and " + std::to_string(rows - kMaxRows) + " more in the record");
  }
}

void show_timeline(Page& page, const std::vector<View>& entries) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::int64_t at = entries[i]["bootTimeNs"].number_or(0);
    std::string text = entries[i]["wallTime"].text() + "  " + padded(entries[i]["state"].text(), 14);
    text += i + 1 < entries.size() ? right(seconds(entries[i + 1]["bootTimeNs"].number_or(0) - at), 11) : right("", 11);
    if (const std::string cause = entries[i]["cause"].text(); !cause.empty()) {
      text += "  " + cause;
    }
    page.line(i == 0 ? "timeline" : "", text);
  }
  if (entries.size() > 1) {
    page.more(padded("", 26) + padded("total", 14) +
              right(seconds(entries.back()["bootTimeNs"].number_or(0) - entries.front()["bootTimeNs"].number_or(0)), 11));
  }
}

void show_outputs(Page& page, View p) {
  const View manifest = p["outputsManifest"];
  if (!manifest.exists()) {
    return;
  }
  std::string text = std::to_string(manifest["files"].number_or(0)) + " files, " + std::to_string(manifest["bytes"].number_or(0)) +
                     " bytes, sha256:" + manifest["sha256"].text();
  add(text, "not all:", manifest["incompleteBecause"].text());
  page.line("outputs", text);
  if (const auto refused = manifest["refused"].number_or(0); refused > 0) {
    page.more(std::to_string(refused) + " refused");
  }
  constexpr std::size_t kShown = 8;
  std::size_t shown = 0;
  for (const View output : p["refusedOutputs"].items()) {
    if (shown++ == kShown) {
      page.more("…");
      break;
    }
    page.more(output["path"].text() + ": " + output["why"].text());
  }
}

void show_origin(Page& page, View p) {
  const View request = p["request"];
  if (const std::string digest = request["specDigest"].text(); !digest.empty()) {
    page.line("jobspec", digest);
  }
  const std::string signer = request["signerKeyId"].text();
  page.line("signer", signer.empty() ? "none that this node trusts" : "key " + signer);
  const View node = p["node"];
  std::string about = node["id"].text();
  add(about, "kernel", node["kernel"].text());
  add(about, "cellrun", node["cellrunVersion"].text());
  page.line("node", about);
  if (const View logs = p["logs"]; logs.exists()) {
    page.line("logs", std::to_string(logs["bytes"].number_or(0)) + " bytes" + (logs["truncated"].is_true() ? ", truncated" : "") + ", sha256:" +
                          logs["sha256"].text());
  }
  show_outputs(page, p);
  if (const std::string why = p["partialBecause"].text(); !why.empty()) {
    page.line("partial", why);
  }
  for (const View gap : p["gaps"].items()) {
    page.line("gap", gap["why"].text());
  }
}

}  // namespace

std::string summary(const Record& record) {
  const View p(&record.predicate());
  Page page;
  const View request = p["request"];
  if (const std::string uid = request["uid"].text(); !uid.empty()) {
    std::string text = uid;
    if (const std::string name = request["name"].text(); !name.empty()) {
      text += "  " + name + " in " + request["namespace"].text();
    }
    page.line("job", text);
  }
  show_outcome(page, p);
  show_teardown(page, p["teardown"]);
  show_where(page, p);
  show_egress(page, p["egress"]);
  show_dns(page, p["egress"]);
  show_timeline(page, p["timeline"].items());
  show_origin(page, p);
  page.line("record", record.digest);
  page.line("sealed by", "key " + record.key_id);
  return page.take();
}

}  // namespace cellrund::evidence
