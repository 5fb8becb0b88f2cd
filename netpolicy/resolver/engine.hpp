// The resolver of one cell as a state machine: bytes and the time go in, effects come out. Pure but for the random ids
// that it is given a source of, so that every path of it can be tested without a socket.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.hpp"
#include "netpolicy/resolver/channel.hpp"
#include "netpolicy/resolver/orders.hpp"
#include "netpolicy/resolver/wire.hpp"

namespace cellrund::netpolicy::resolver {

// Whom to answer: a port of the cell over UDP, a connection over TCP.
struct Client {
  std::uint64_t token = 0;
  bool stream = false;
};

// What the server is to do, in this order.
struct SendReply {
  Client client;
  base::Bytes message;
};
struct AskUpstream {  // from a socket of its own; an earlier one of the same lookup is closed
  std::uint32_t lookup = 0;
  std::uint32_t upstream = 0;  // address
  bool stream = false;
  base::Bytes message;
};
struct StopAsking {
  std::uint32_t lookup = 0;
};
struct Tell {  // the daemon
  FromResolver message;
};
using Effect = std::variant<SendReply, AskUpstream, StopAsking, Tell>;

class Engine {
 public:
  static constexpr std::size_t kMaxLookups = 32;               // under way at one time
  static constexpr std::size_t kMaxWaiting = 16;               // for one of them
  static constexpr std::size_t kMaxCached = 256;               // names
  static constexpr std::size_t kAttempts = 3;                  // over all upstreams
  static constexpr std::chrono::milliseconds kPatience{1500};  // with one upstream
  static constexpr std::chrono::milliseconds kDecisionPatience{3000};
  static constexpr std::uint64_t kQueriesPerSecond = 50;
  static constexpr std::uint64_t kBurst = 100;
  static constexpr std::uint32_t kLongestTtl = 3600;  // seconds, as the cell is told

  Engine(Orders orders, std::function<std::uint16_t()> random_id);

  // A message of the cell. `now` never goes back, in any call.
  void query(const Client& client, base::BytesView message, base::BootTime now);
  // A message of the upstream that the lookup asked last.
  void answer(std::uint32_t lookup, base::BytesView message, base::BootTime now);
  // That upstream cannot be reached. Nothing new where an answer has just moved the lookup on to its next question, which
  // is yet to be taken.
  void unreachable(std::uint32_t lookup, base::BootTime now);
  void decided(const Decision& decision, base::BootTime now);
  // Whatever has run out by now.
  void tick(base::BootTime now);

  [[nodiscard]] std::optional<base::BootTime> next_deadline() const;
  [[nodiscard]] std::vector<Effect> take();

 private:
  struct Waiting {
    Client client;
    Query query;
  };
  struct Lookup {
    std::string name;
    std::uint16_t id = 0;
    std::size_t attempt = 0;
    bool stream = false;
    bool deciding = false;
    base::BootTime until;
    std::vector<Waiting> waiting;
    std::vector<std::uint32_t> addresses;
    std::uint32_t ttl = 0;
  };
  struct Cached {
    std::vector<std::uint32_t> addresses;
    base::BootTime until;
  };

  [[nodiscard]] bool listed(std::string_view name) const;
  bool within_rate(base::BootTime now);
  // Why it is refused out of hand, if it is.
  std::optional<Verdict> refusal_of(const Query& query, base::BootTime now);
  void look_up(const Client& client, Query query, base::BootTime now);
  void ask(std::uint32_t number, Lookup& lookup, base::BootTime now);
  void try_next(std::uint32_t number, base::BootTime now);
  void finish(std::uint32_t number, const Reply& answer, Verdict verdict);
  void reply(const Client& client, const Query& query, const Reply& answer, Verdict verdict);
  void remember(const std::string& name, std::vector<std::uint32_t> addresses, base::BootTime until,
                base::BootTime now);

  Orders orders_;
  std::function<std::uint16_t()> random_id_;
  std::map<std::uint32_t, Lookup> lookups_;
  std::uint32_t next_lookup_ = 1;
  std::map<std::string, Cached, std::less<>> cache_;
  std::uint64_t queries_ = 0;
  base::BootTime paid_until_;  // the line of kQueriesPerSecond is used up until then
  std::vector<Effect> effects_;
};

}  // namespace cellrund::netpolicy::resolver
