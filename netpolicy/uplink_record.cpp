#include "netpolicy/uplink_record.hpp"

#include <limits>
#include <string_view>

#include "base/file.hpp"
#include "base/json.hpp"
#include "model/ipv4.hpp"

namespace cellrund::netpolicy {
namespace {

namespace json = base::json;
using base::Errc;
using base::Error;

constexpr std::size_t kMaxFile = 4096;
constexpr std::string_view kAlias = "cellrun uplink of ";

const char* digit(bool value) {
  return value ? "1" : "0";
}

std::optional<UplinkRecord> from_json(const json::Value& value) {
  const auto text = [&](const char* key) {
    const json::Value* found = value.find(key);
    return found != nullptr ? found->as_string() : nullptr;
  };
  const auto flag = [&](const char* key) {
    const json::Value* found = value.find(key);
    return found != nullptr ? found->as_bool() : nullptr;
  };
  const json::Value* netns = value.find("netns");
  const json::Value* ifindex = value.find("ifindex");
  const auto* const interface = text("interface");
  const auto* const boot = text("bootId");
  const auto* const address = text("address");
  const auto* const forwarding = flag("forwarding");
  const auto* const all = flag("allForwarding");
  if (netns == nullptr || netns->as_int() == nullptr || ifindex == nullptr || ifindex->as_int() == nullptr ||
      *ifindex->as_int() < 1 || *ifindex->as_int() > std::numeric_limits<std::int32_t>::max() || interface == nullptr ||
      boot == nullptr || address == nullptr || forwarding == nullptr || all == nullptr) {
    return std::nullopt;
  }
  const auto parsed = model::parse_ipv4(*address);
  if (!parsed.ok()) {
    return std::nullopt;
  }
  return UplinkRecord{*boot,
                      static_cast<std::uint64_t>(*netns->as_int()),
                      static_cast<std::uint32_t>(*ifindex->as_int()),
                      *parsed,
                      {*interface, *forwarding, *all}};
}

}  // namespace

base::Result<std::optional<UplinkRecord>> load_uplink_record(const std::string& path) {
  auto text = base::read_file(path, kMaxFile);
  if (!text.ok()) {
    if (text.error().code() == Errc::kNotFound) {
      return std::optional<UplinkRecord>();
    }
    return std::move(text).error();
  }
  const json::Value value = CR_TRY(json::parse(*text, {}).context(path));
  std::optional<UplinkRecord> record = from_json(value);
  if (!record) {
    return Error(Errc::kDataLoss, path + " holds no record of an uplink");
  }
  return record;
}

base::Status store_uplink_record(const std::string& path, const UplinkRecord& record) {
  const json::Object object{{"bootId", record.boot_id},
                            {"netns", record.netns},
                            {"interface", record.before.name},
                            {"ifindex", record.ifindex},
                            {"address", model::format_ipv4(record.address)},
                            {"forwarding", record.before.forwarding},
                            {"allForwarding", record.before.all_forwarding}};
  return base::write_file_atomic(path, json::write(object) + "\n", 0600);
}

std::string to_alias(const InterfaceBefore& before) {
  return std::string(kAlias) + before.name + ", forwarding was " + digit(before.forwarding) +
         digit(before.all_forwarding);
}

std::optional<InterfaceBefore> parse_alias(const std::string& alias) {
  constexpr std::string_view kWas = ", forwarding was ";
  const std::size_t at = alias.find(kWas);
  if (!alias.starts_with(kAlias) || at == std::string::npos) {
    return std::nullopt;
  }
  const std::string digits = alias.substr(at + kWas.size());
  InterfaceBefore before{alias.substr(kAlias.size(), at - kAlias.size()), digits.starts_with('1'),
                         digits.ends_with('1')};
  return to_alias(before) == alias ? std::optional(std::move(before)) : std::nullopt;
}

}  // namespace cellrund::netpolicy
