#include "netpolicy/resolver/name_service.hpp"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <future>
#include <system_error>

#include "host/box.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/policy_maps.hpp"
#include "netpolicy/resolver/orders.hpp"

namespace cellrund::netpolicy::resolver {
namespace {

using base::BootTime;
using base::Errc;
using base::Error;
using base::UniqueFd;

constexpr std::chrono::seconds kStartPatience{10};
constexpr std::chrono::seconds kKillPatience{5};
constexpr int kBacklog = 8;

// Beside the ids of the boxes that unpack images: neither can do anything to the other.
constexpr host::BoxIds resolver_ids() noexcept {
  const host::BoxIds boxes;
  return {boxes.base + boxes.count, 1};
}

base::Result<UniqueFd> listen_at(std::uint32_t address, int type) {
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int yes = 1;
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(CR_DNS_PORT);
  at.sin_addr.s_addr = htonl(address);
  // A connection of the slot's last cell may still be in TIME_WAIT.
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      (type == SOCK_STREAM && ::listen(fd.get(), kBacklog) != 0)) {
    return Error::from_errno("listen at the gateway's port 53");
  }
  return fd;
}

}  // namespace

NameService::NameService(NameServiceOptions options, const CompiledPolicy& policy)
    : options_(std::move(options)), max_queries_(policy.quota.dns_queries), table_(policy, options_.blocked) {
  for (const NameRule& rule : policy.names) {
    if (std::find(names_.begin(), names_.end(), rule.to) == names_.end()) {
      names_.push_back(rule.to);
    }
  }
  std::vector<std::string> upstreams;
  for (const std::uint32_t upstream : options_.upstreams) {
    upstreams.push_back(model::format_ipv4(upstream));
  }
  const bool tunnel_capable =
      std::any_of(names_.begin(), names_.end(), [](const model::HostName& name) { return name.wildcard; });
  record_ = std::make_shared<DnsRecord>(std::move(upstreams), tunnel_capable);
}

base::Result<std::unique_ptr<NameService>> NameService::start(NameServiceOptions options,
                                                              const CompiledPolicy& policy) {
  std::unique_ptr<NameService> service(new NameService(std::move(options), policy));
  service->stop_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!service->stop_) {
    return Error::from_errno("start the cell's resolver: eventfd");
  }
  std::promise<base::Status> promise;
  std::future<base::Status> up = promise.get_future();
  try {
    service->thread_ = std::jthread([raw = service.get(), promise = std::move(promise)]() mutable {
      base::Status brought_up = raw->bring_up();
      const bool serves = brought_up.ok();
      promise.set_value(std::move(brought_up));
      if (serves) {
        raw->run();
      }
      (void)raw->box_.signal(SIGKILL);
      (void)raw->box_.reap(base::Deadline::after(kKillPatience));
    });
  } catch (const std::system_error& e) {
    return Error::from_errno("start the cell's resolver: start a thread", e.code().value());
  }
  CR_CHECK(up.get().context("start the cell's resolver"));
  return service;
}

NameService::~NameService() {
  const std::uint64_t one = 1;
  if (stop_) {
    (void)base::write_all(stop_.get(), {reinterpret_cast<const std::uint8_t*>(&one), sizeof one});
  }
}

base::Status NameService::bring_up() {
  CR_CHECK(enter_netns(options_.router_netns));
  const UniqueFd datagrams = CR_TRY(listen_at(options_.gateway, SOCK_DGRAM));
  const UniqueFd listener = CR_TRY(listen_at(options_.gateway, SOCK_STREAM));
  base::SocketPair channel = CR_TRY(base::make_socket_pair(SOCK_SEQPACKET));
  host::BoxOptions box;
  box.program = options_.program;
  box.fds = {{channel.theirs.get(), kControlFd}, {datagrams.get(), kDatagramFd}, {listener.get(), kListenerFd}};
  box.ids = resolver_ids();
  box.keep_network = true;
  box.die_with_caller = true;
  box_ = CR_TRY(host::start_box(box, write_orders({names_, options_.upstreams, max_queries_}), -1, -1));
  control_ = std::move(channel.ours);
  channel.theirs.reset();
  return wait_ready();
}

base::Status NameService::wait_ready() {
  if (!CR_TRY(base::wait_readable(control_.get(), base::Deadline::after(kStartPatience)))) {
    return Error(Errc::kDeadlineExceeded, options_.program + " is not ready");
  }
  std::array<std::uint8_t, kMaxChannelMessage> buffer{};
  const ssize_t n = ::recv(control_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  const auto message = n > 0 ? decode_from_resolver({buffer.data(), static_cast<std::size_t>(n)}) : std::nullopt;
  if (message.has_value() && std::holds_alternative<Ready>(*message)) {
    return base::ok();
  }
  const auto* failed = message.has_value() ? std::get_if<Failed>(&*message) : nullptr;
  return Error(Errc::kUnavailable,
               options_.program + ": " + (failed != nullptr ? failed->why : "it ended before it was ready"));
}

void NameService::run() {
  while (true) {
    std::array<pollfd, 2> polls{{{control_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
    if (::poll(polls.data(), polls.size(), -1) < 0) {
      continue;  // EINTR
    }
    if (polls[1].revents != 0) {
      return;
    }
    if (polls[0].revents != 0 && !hear()) {
      return;
    }
  }
}

bool NameService::hear() {
  std::array<std::uint8_t, kMaxChannelMessage> buffer{};
  const ssize_t n = ::recv(control_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return true;
  }
  const auto message = n > 0 ? decode_from_resolver({buffer.data(), static_cast<std::size_t>(n)}) : std::nullopt;
  if (const auto* report = message.has_value() ? std::get_if<Report>(&*message) : nullptr; report != nullptr) {
    record_->add(*report, BootTime::now());
    return true;
  }
  if (const auto* proposal = message.has_value() ? std::get_if<Proposal>(&*message) : nullptr; proposal != nullptr) {
    decide(*proposal);
    return true;
  }
  const auto* failed = message.has_value() ? std::get_if<Failed>(&*message) : nullptr;
  record_->set_failure(n <= 0              ? "the resolver died"
                       : failed != nullptr ? "the resolver failed: " + failed->why
                                           : "the resolver broke its protocol and was killed");
  return false;
}

void NameService::decide(const Proposal& proposal) {
  Admitted admitted =
      table_.admit(proposal.name, proposal.ttl, proposal.addresses, static_cast<std::uint64_t>(BootTime::now().ns));
  const int map = options_.named_map.get();
  table_.write(admitted, proposal.addresses,
               {[map](const NamedService& service, const NamedEntry& entry) { return put_named(map, service, entry).ok(); },
                // One that stays has expired or will: the filter looks at the time of each.
                [map](const NamedService& service) { (void)erase_named(map, service); }});
  std::vector<std::string> shown;
  for (std::size_t i = 0; i < proposal.addresses.size(); ++i) {
    if ((admitted.accepted >> i & 1U) != 0) {
      shown.push_back(model::format_ipv4(proposal.addresses[i]));
    }
  }
  for (const auto& [address, reason] : admitted.denied) {
    shown.push_back(model::format_ipv4(address) + " " + std::string(denial_name(reason)));
  }
  record_->set_addresses(proposal.name, std::move(shown));
  // One that does not fit is lost: the resolver's queue is full of decisions, and its query runs out of time.
  const base::Bytes answer = encode(Decision{proposal.lookup, admitted.accepted});
  (void)::send(control_.get(), answer.data(), answer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace cellrund::netpolicy::resolver
