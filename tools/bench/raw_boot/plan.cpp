#include "tools/bench/raw_boot/plan.hpp"

#include "tools/bench/sample.hpp"

namespace cellrund::bench {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::json::Value;

constexpr std::size_t kMaxPlan = 256UL * 1024;

Result<int> descriptor(const Value& object, std::string_view key) {
  const std::int64_t number = CR_TRY(integer(object, key));
  if (number < 3 || number > 63) {
    return Error(Errc::kInvalidArgument, std::string(key) + ": no descriptor number");
  }
  return static_cast<int>(number);
}

Result<std::vector<BootPlan::File>> files_of(const Value& plan) {
  const Value* list = plan.find("files");
  if (list == nullptr || list->as_array() == nullptr) {
    return Error(Errc::kInvalidArgument, "files: missing");
  }
  std::vector<BootPlan::File> out;
  for (const Value& entry : *list->as_array()) {
    const Value* writable = entry.find("writable");
    if (writable == nullptr || writable->as_bool() == nullptr) {
      return Error(Errc::kInvalidArgument, "files[].writable: missing");
    }
    out.push_back({CR_TRY(descriptor(entry, "fd")), CR_TRY(text(entry, "path")), *writable->as_bool()});
  }
  return out;
}

Result<wire::NetworkConfig> network_of(const Value& from) {
  wire::NetworkConfig out;
  const auto mac = wire::parse_mac(CR_TRY(text(from, "mac")));
  const auto address = wire::parse_ipv4(CR_TRY(text(from, "address")));
  const auto gateway = wire::parse_ipv4(CR_TRY(text(from, "gateway")));
  const auto gateway_mac = wire::parse_mac(CR_TRY(text(from, "gatewayMac")));
  if (!mac || !address || !gateway || !gateway_mac) {
    return Error(Errc::kInvalidArgument, "workload.network: no addresses");
  }
  out.mac = *mac;
  out.address = *address;
  out.prefix = static_cast<std::uint8_t>(CR_TRY(integer(from, "prefix")));
  out.gateway = *gateway;
  out.gateway_mac = *gateway_mac;
  out.mtu = static_cast<std::uint32_t>(CR_TRY(integer(from, "mtu")));
  return out;
}

Result<wire::Workload> workload_of(const Value& plan) {
  const Value* from = plan.find("workload");
  const Value* network = from == nullptr ? nullptr : from->find("network");
  if (network == nullptr) {
    return Error(Errc::kInvalidArgument, "workload: missing, or without a network");
  }
  wire::Workload out;
  out.args = CR_TRY(texts(*from, "args"));
  out.env = CR_TRY(texts(*from, "env"));
  out.cwd = CR_TRY(text(*from, "cwd"));
  out.hostname = CR_TRY(text(*from, "hostname"));
  out.uid = static_cast<std::uint32_t>(CR_TRY(integer(*from, "uid")));
  out.gid = static_cast<std::uint32_t>(CR_TRY(integer(*from, "gid")));
  out.pids_max = static_cast<std::uint64_t>(CR_TRY(integer(*from, "pids")));
  out.network = CR_TRY(network_of(*network));
  CR_CHECK(wire::validate(out));
  return out;
}

}  // namespace

Result<BootPlan> parse_boot_plan(std::string_view json) {
  const Value plan = CR_TRY(base::json::parse(json, {.max_bytes = kMaxPlan}));
  BootPlan out;
  out.argv = CR_TRY(texts(plan, "argv"));
  out.qmp = CR_TRY(descriptor(plan, "qmp"));
  out.agent = CR_TRY(descriptor(plan, "agent"));
  out.tap = CR_TRY(descriptor(plan, "tap"));
  out.files = CR_TRY(files_of(plan));
  out.workload = CR_TRY(workload_of(plan));
  out.expected = CR_TRY(text(plan, "expected"));
  out.limit = std::chrono::milliseconds(CR_TRY(integer(plan, "limitMs")));
  return out;
}

}  // namespace cellrund::bench
