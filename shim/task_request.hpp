// What the two halves of TaskService share: finding what a request names, and times.
#pragma once

#include <string>
#include <utility>

#include "base/log.hpp"
#include "containerd_shim.pb.h"
#include "shim/task_service.hpp"

namespace cellrund::shim {

inline base::Error malformed_request() { return {base::Errc::kInvalidArgument, "malformed request"}; }

inline void set_time(shimapi::Timestamp* out, base::WallTime time) {
  out->set_seconds(time.seconds);
  out->set_nanos(time.nanos);
}

template <typename Request>
Task* TaskService::task_of(const std::string& payload, Request& request, ttrpc::Reply& reply) {
  if (!request.ParseFromString(payload)) {
    std::move(reply).fail(malformed_request());
    return nullptr;
  }
  if (!task_ || !created_ || request.id() != task_->request().id) {
    std::move(reply).fail(base::Error(base::Errc::kNotFound, "no such task: " + base::log::quoted(request.id())));
    return nullptr;
  }
  if constexpr (requires { request.exec_id(); }) {
    // Only Exec itself names one that is new.
    if (!request.exec_id().empty() && !requires { request.spec(); } && task_->exec(request.exec_id()) == nullptr) {
      std::move(reply).fail(base::Error(base::Errc::kNotFound, "no such exec: " + base::log::quoted(request.exec_id())));
      return nullptr;
    }
  }
  return task_.get();
}

}  // namespace cellrund::shim
