#include "netpolicy/frame.hpp"

namespace cellrund::netpolicy {
namespace {

constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;

void put16(base::Bytes& out, std::uint32_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8U));
  out.push_back(static_cast<std::uint8_t>(value));
}
void put32(base::Bytes& out, std::uint32_t value) {
  put16(out, value >> 16U);
  put16(out, value & 0xffffU);
}
void set16(base::Bytes& out, std::size_t at, std::uint16_t value) {
  out[at] = static_cast<std::uint8_t>(value >> 8U);
  out[at + 1] = static_cast<std::uint8_t>(value);
}

// RFC 1071 over an even number of bytes, on top of `sum`.
std::uint16_t checksum(base::BytesView bytes, std::uint32_t sum) {
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
    sum += static_cast<std::uint32_t>(bytes[i]) << 8U | bytes[i + 1];
  }
  while (sum >> 16U != 0) {
    sum = (sum & 0xffffU) + (sum >> 16U);
  }
  return static_cast<std::uint16_t>(~sum);
}

}  // namespace

base::Bytes build_frame(const FrameSpec& spec) {
  base::Bytes transport;
  if (spec.protocol == kUdp) {
    put16(transport, spec.source_port);
    put16(transport, spec.destination_port);
    put16(transport, 8);
    put16(transport, 0);
  } else if (spec.protocol == kTcp) {
    put16(transport, spec.source_port);
    put16(transport, spec.destination_port);
    put32(transport, 1);       // sequence number
    put32(transport, 0);       // acknowledgement
    put16(transport, 0x5002);  // five words of header, SYN
    put16(transport, 64240);   // window
    put32(transport, 0);       // checksum, urgent pointer
  }
  if (!transport.empty()) {
    base::Bytes pseudo;
    put32(pseudo, spec.source);
    put32(pseudo, spec.destination);
    put16(pseudo, spec.protocol);
    put16(pseudo, static_cast<std::uint32_t>(transport.size()));
    pseudo.insert(pseudo.end(), transport.begin(), transport.end());
    set16(transport, spec.protocol == kUdp ? 6 : 16, checksum(pseudo, 0));
  }

  base::Bytes frame(spec.destination_mac.begin(), spec.destination_mac.end());
  frame.insert(frame.end(), spec.source_mac.begin(), spec.source_mac.end());
  put16(frame, 0x0800);
  const std::size_t ip = frame.size();
  put16(frame, 0x4500);
  put16(frame, static_cast<std::uint32_t>(20 + transport.size()));
  put32(frame, 0x00004000);               // identification 0, don't fragment
  put16(frame, 0x4000U | spec.protocol);  // time to live 64
  put16(frame, 0);
  put32(frame, spec.source);
  put32(frame, spec.destination);
  set16(frame, ip + 10, checksum(base::BytesView(frame).subspan(ip), 0));
  frame.insert(frame.end(), transport.begin(), transport.end());
  return frame;
}

}  // namespace cellrund::netpolicy
