// What an open Router knows; shared by router.cpp (open, destroy) and connect.cpp.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "netpolicy/closer.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/spare.hpp"

namespace cellrund::netpolicy {

struct Router::State {
  RouterOptions options;
  std::string netns_path;
  base::UniqueFd netns;
  base::FileId netns_id;
  Attach attach = Attach::kTcx;
  std::uint32_t allow_mark = 0;
  std::uint32_t firewall = 0;  // generation after it was written
  FilterProgram program;
  base::UniqueFd drop_all;
  Closer closer;
  std::unique_ptr<SparePool> spares;  // last: borrows from the members above
};

}  // namespace cellrund::netpolicy
