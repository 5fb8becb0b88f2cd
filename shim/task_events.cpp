#include "shim/task_events.hpp"

#include "containerd_shim.pb.h"

namespace cellrund::shim {
namespace {

template <typename Event>
Event about(const EventSource& source) {
  Event event;
  event.set_container_id(source.id);
  if constexpr (requires { event.set_pid(0); }) {
    event.set_pid(static_cast<std::uint32_t>(source.pid));
  }
  return event;
}

template <typename Event>
void set_end(Event& event, const TaskEnd& end) {
  event.set_exit_status(end.status);
  event.mutable_exited_at()->set_seconds(end.at.seconds);
  event.mutable_exited_at()->set_nanos(end.at.nanos);
}

}  // namespace

EncodedEvent encode(const TaskEvent& event, const EventSource& source) {
  switch (event.topic) {
    case Topic::kCreate: {
      shimapi::TaskCreate out;
      (void)out.ParseFromString(source.creation);  // our own
      out.set_container_id(source.id);
      out.set_pid(static_cast<std::uint32_t>(source.pid));
      return {"/tasks/create", "containerd.events.TaskCreate", out.SerializeAsString()};
    }
    case Topic::kStart:
      return {"/tasks/start", "containerd.events.TaskStart", about<shimapi::TaskStart>(source).SerializeAsString()};
    case Topic::kExecAdded: {
      auto out = about<shimapi::TaskExecAdded>(source);
      out.set_exec_id(event.exec_id);
      return {"/tasks/exec-added", "containerd.events.TaskExecAdded", out.SerializeAsString()};
    }
    case Topic::kExecStarted: {
      auto out = about<shimapi::TaskExecStarted>(source);
      out.set_exec_id(event.exec_id);
      return {"/tasks/exec-started", "containerd.events.TaskExecStarted", out.SerializeAsString()};
    }
    case Topic::kPaused:
      return {"/tasks/paused", "containerd.events.TaskPaused", about<shimapi::TaskPaused>(source).SerializeAsString()};
    case Topic::kResumed:  // TaskResumed has the same one field
      return {"/tasks/resumed", "containerd.events.TaskResumed", about<shimapi::TaskPaused>(source).SerializeAsString()};
    case Topic::kExit: {
      auto out = about<shimapi::TaskExit>(source);
      out.set_id(event.exec_id.empty() ? source.id : event.exec_id);
      set_end(out, event.end);
      return {"/tasks/exit", "containerd.events.TaskExit", out.SerializeAsString()};
    }
    case Topic::kDelete: break;
  }
  auto out = about<shimapi::TaskDelete>(source);
  set_end(out, event.end);
  return {"/tasks/delete", "containerd.events.TaskDelete", out.SerializeAsString()};
}

}  // namespace cellrund::shim
