// What a cell's filter sampled once its table of decisions was full: the events of its ring, merged by target into a
// table of bounded size. Reading an event takes it out of the ring, so each cell has one of these. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>

#include "base/guarded.hpp"
#include "base/result.hpp"
#include "ebpf/egress_abi.h"
#include "netpolicy/account.hpp"

namespace cellrund::netpolicy {

class Samples {
 public:
  // Different targets that are kept: the busiest, and of equally busy ones those seen last.
  static constexpr std::size_t kMost = 256;

  // Takes what is in the ring: at most a ring full, and what the filter's rate adds meanwhile.
  base::Status drain(int ring_fd);

  // What is kept becomes decisions, what is not becomes suppressed.
  void add_to(Account& account);

 private:
  struct Table {
    std::map<std::uint64_t, cr_decision> rows;  // by the bytes of a cr_decision_key
    Account::ByVerdict dropped{};
    void take(const cr_sample& sample);
    void drop_one();
  };
  base::Guarded<Table> table_;
};

}  // namespace cellrund::netpolicy
