// DNS messages by hand, for tests.
#pragma once

#include <string>
#include <vector>

#include "netpolicy/resolver/wire.hpp"

namespace cellrund::test {

inline void put16(base::Bytes& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8U));
  out.push_back(static_cast<std::uint8_t>(value));
}
inline void put_name(base::Bytes& out, std::string_view name) {
  while (!name.empty()) {
    const std::string_view label = name.substr(0, name.find('.'));
    out.push_back(static_cast<std::uint8_t>(label.size()));
    out.insert(out.end(), label.begin(), label.end());
    name.remove_prefix(std::min(name.size(), label.size() + 1));
  }
  out.push_back(0);
}
inline base::Bytes message_of(std::uint16_t id, unsigned flags, std::string_view name, std::uint16_t type,
                              const std::vector<base::Bytes>& records) {
  base::Bytes out;
  put16(out, id);
  put16(out, flags);
  put16(out, 1);
  put16(out, records.size());
  put16(out, 0);
  put16(out, 0);
  put_name(out, name);
  put16(out, type);
  put16(out, 1);
  for (const base::Bytes& record : records) {
    out.insert(out.end(), record.begin(), record.end());
  }
  return out;
}
inline base::Bytes query_for(std::string_view name, std::uint16_t type = 1, std::uint16_t id = 7) {
  return message_of(id, 0x0100, name, type, {});
}
inline base::Bytes answer_with(std::string_view name, const std::vector<base::Bytes>& records, std::uint16_t id = 7) {
  return message_of(id, 0x8180, name, 1, records);
}
inline base::Bytes record_of(std::string_view owner, std::uint16_t type, std::uint32_t ttl, const base::Bytes& data) {
  base::Bytes out;
  put_name(out, owner);
  put16(out, type);
  put16(out, 1);
  put16(out, ttl >> 16U);
  put16(out, ttl & 0xffffU);
  put16(out, data.size());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}
inline base::Bytes a_record(std::string_view owner, std::uint32_t address, std::uint32_t ttl) {
  base::Bytes data;
  put16(data, address >> 16U);
  put16(data, address & 0xffffU);
  return record_of(owner, 1, ttl, data);
}
inline base::Bytes cname_record(std::string_view owner, std::string_view target, std::uint32_t ttl) {
  base::Bytes data;
  put_name(data, target);
  return record_of(owner, 5, ttl, data);
}

}  // namespace cellrund::test
