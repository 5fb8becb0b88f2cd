// What an open Router knows; shared by router.cpp (open, destroy) and connect.cpp.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "netpolicy/closer.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/router.hpp"

namespace cellrund::netpolicy {

struct Router::State {
  RouterOptions options;
  std::string netns_path;
  base::UniqueFd netns;
  base::FileId netns_id;
  Attach attach = Attach::kTcx;
  std::uint32_t allow_mark = 0;
  FilterProgram program;
  Closer closer;
};

}  // namespace cellrund::netpolicy
