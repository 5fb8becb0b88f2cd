#include "netpolicy/resolver/orders.hpp"

#include "base/json.hpp"
#include "model/egress.hpp"

namespace cellrund::netpolicy::resolver {
namespace {

using base::Errc;
using base::Error;
namespace json = base::json;

Error bad(std::string_view what) {
  return Error(Errc::kInvalidArgument, "malformed " + std::string(what));
}

base::Result<json::Array> texts(const json::Value& from, std::string_view key, std::size_t most) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_array() == nullptr || value->as_array()->empty() ||
      value->as_array()->size() > most) {
    return bad(key);
  }
  for (const json::Value& item : *value->as_array()) {
    if (item.as_string() == nullptr) {
      return bad(key);
    }
  }
  return *value->as_array();
}

}  // namespace

std::string write_orders(const Orders& orders) {
  json::Array names;
  for (const model::HostName& name : orders.names) {
    names.emplace_back(name.text());
  }
  json::Array upstreams;
  for (const std::uint32_t upstream : orders.upstreams) {
    upstreams.emplace_back(model::format_ipv4(upstream));
  }
  json::Object out{{"names", std::move(names)}, {"upstreams", std::move(upstreams)}};
  if (orders.max_queries.has_value()) {
    out.set("maxQueries", *orders.max_queries);
  }
  return json::write(std::move(out));
}

base::Result<Orders> parse_orders(std::string_view text) {
  const json::Value document = CR_TRY(json::parse(text, {}));
  Orders out;
  for (const json::Value& name : CR_TRY(texts(document, "names", model::EgressPolicy::kMaxNameRules))) {
    out.names.push_back(model::host_name_of(*name.as_string()));
  }
  for (const json::Value& upstream : CR_TRY(texts(document, "upstreams", kMaxUpstreams))) {
    out.upstreams.push_back(CR_TRY(model::parse_ipv4(*upstream.as_string())));
  }
  if (const json::Value* most = document.find("maxQueries"); most != nullptr) {
    if (most->as_int() == nullptr || *most->as_int() < 0) {
      return bad("maxQueries");
    }
    out.max_queries = static_cast<std::uint64_t>(*most->as_int());
  }
  return out;
}

}  // namespace cellrund::netpolicy::resolver
