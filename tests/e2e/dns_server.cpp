// An authoritative name server with a fixed list of answers, for tests: UDP and TCP on port 53 of every address of its
// namespace. Each question is a line of the log: NAME TYPE udp|tcp. Answers that are larger than 512 bytes take TCP.
//
// usage: dns-server ZONE LOG      ZONE: lines "NAME A|CNAME TTL VALUE"; LOG is appended to.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "netpolicy/resolver/wire.hpp"

using namespace cellrund;
using netpolicy::resolver::Query;

namespace {

struct Record {
  std::string name, type;
  std::uint32_t ttl = 0;
  std::string value;
};

std::vector<Record> read_zone(const char* path) {
  std::vector<Record> out;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    Record record;
    if (words >> record.name >> record.type >> record.ttl >> record.value) {
      out.push_back(std::move(record));
    }
  }
  return out;
}

void put16(base::Bytes& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8U));
  out.push_back(static_cast<std::uint8_t>(value));
}
void put_name(base::Bytes& out, const std::string& name) {
  std::istringstream labels(name);
  std::string label;
  while (std::getline(labels, label, '.')) {
    out.push_back(static_cast<std::uint8_t>(label.size()));
    out.insert(out.end(), label.begin(), label.end());
  }
  out.push_back(0);
}

// Every CNAME from the name on, and the addresses at the end.
std::vector<const Record*> answers_to(const std::vector<Record>& zone, std::string name) {
  std::vector<const Record*> out;
  for (int hops = 0; hops < 32; ++hops) {
    const Record* alias = nullptr;
    for (const Record& record : zone) {
      if (record.name == name && record.type == "A") {
        out.push_back(&record);
      }
      alias = record.name == name && record.type == "CNAME" ? &record : alias;
    }
    if (alias == nullptr) {
      return out;
    }
    out.push_back(alias);
    name = alias->value;
  }
  return out;
}

base::Bytes answer(const std::vector<Record>& zone, const Query& query, bool stream) {
  const std::vector<const Record*> records = answers_to(zone, query.name);
  base::Bytes body;
  for (const Record* record : records) {
    put_name(body, record->name);
    put16(body, record->type == "A" ? 1 : 5);
    put16(body, 1);
    put16(body, record->ttl >> 16U);
    put16(body, record->ttl & 0xffffU);
    base::Bytes data;
    if (record->type == "A") {
      in_addr address{};
      (void)::inet_pton(AF_INET, record->value.c_str(), &address);
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(&address);
      data.assign(bytes, bytes + sizeof address);
    } else {
      put_name(data, record->value);
    }
    put16(body, data.size());
    body.insert(body.end(), data.begin(), data.end());
  }
  const bool fits = stream || 12 + query.question.size() + body.size() <= 512;
  base::Bytes out;
  put16(out, query.id);
  put16(out, 0x8400U | (fits ? 0U : 0x0200U) | (records.empty() ? 3U : 0U));
  put16(out, 1);
  put16(out, fits ? records.size() : 0);
  put16(out, 0);
  put16(out, 0);
  out.insert(out.end(), query.question.begin(), query.question.end());
  if (fits) {
    out.insert(out.end(), body.begin(), body.end());
  }
  return out;
}

class Server {
 public:
  Server(std::vector<Record> zone, const char* log) : zone_(std::move(zone)), log_(log, std::ios::app) {}

  bool listen() {
    for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
      base::UniqueFd& fd = type == SOCK_DGRAM ? datagrams_ : listener_;
      fd.reset(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_port = htons(53);
      if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
          (type == SOCK_STREAM && ::listen(fd.get(), 8) != 0)) {
        return false;
      }
    }
    return true;
  }

  void run() {
    while (true) {
      std::array<pollfd, 2> polls{{{datagrams_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}}};
      if (::poll(polls.data(), polls.size(), -1) < 0) {
        continue;
      }
      if (polls[0].revents != 0) {
        one_datagram();
      }
      if (polls[1].revents != 0) {
        one_connection();
      }
    }
  }

 private:
  base::Bytes answered(base::BytesView message, bool stream) {
    const auto query = netpolicy::resolver::parse_query(message);
    if (!query.has_value()) {
      return {};
    }
    log_ << query->name << ' ' << netpolicy::resolver::type_name(query->type) << (stream ? " tcp" : " udp")
         << std::endl;
    return answer(zone_, *query, stream);
  }
  void one_datagram() {
    std::array<std::uint8_t, 512> buffer{};
    sockaddr_in from{};
    socklen_t size = sizeof from;
    const ssize_t n =
        ::recvfrom(datagrams_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (n > 0) {
      const base::Bytes out = answered({buffer.data(), static_cast<std::size_t>(n)}, false);
      (void)::sendto(datagrams_.get(), out.data(), out.size(), 0, reinterpret_cast<const sockaddr*>(&from), size);
    }
  }
  void one_connection() {
    const base::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::array<std::uint8_t, 514> buffer{};
    const ssize_t n = fd ? ::recv(fd.get(), buffer.data(), buffer.size(), 0) : 0;
    if (n > 2) {
      const base::Bytes out = answered({buffer.data() + 2, static_cast<std::size_t>(n) - 2}, true);
      base::Bytes framed;
      put16(framed, out.size());
      framed.insert(framed.end(), out.begin(), out.end());
      (void)::send(fd.get(), framed.data(), framed.size(), MSG_NOSIGNAL);
    }
  }

  std::vector<Record> zone_;
  std::ofstream log_;
  base::UniqueFd datagrams_, listener_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: dns-server ZONE LOG\n", stderr);
    return 64;
  }
  Server server(read_zone(argv[1]), argv[2]);
  if (!server.listen()) {
    std::perror("dns-server: listen on port 53");
    return 1;
  }
  server.run();
}
