// What a task tells containerd. The broker writes these events from ids of its own, so that a shim that was taken over
// can speak of its own task alone.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "shim/exec.hpp"

namespace cellrund::shim {

// In requests to the broker as their number.
enum class Topic : std::uint32_t { kCreate, kStart, kExecAdded, kExecStarted, kPaused, kResumed, kExit, kDelete };
inline constexpr std::uint32_t kTopics = 8;

struct TaskEvent {
  Topic topic = Topic::kCreate;
  std::string exec_id;  // of kExecAdded, kExecStarted, kExit; empty: of the task itself
  TaskEnd end{};        // of kExit, kDelete
};

// Whose events they are.
struct EventSource {
  std::string id;
  pid_t pid = 0;         // the VMM's, for every process of the cell
  std::string creation;  // a serialised TaskCreate without pid
};

struct EncodedEvent {
  std::string_view topic, type;
  std::string bytes;
};
[[nodiscard]] EncodedEvent encode(const TaskEvent& event, const EventSource& source);

}  // namespace cellrund::shim
