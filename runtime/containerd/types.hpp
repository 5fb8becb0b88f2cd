// Plain values of the containerd client. No I/O.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::containerd {

using Labels = std::map<std::string, std::string>;

// A typed blob. containerd compares type URLs as they are: no "type.googleapis.com/" in front.
struct Any {
  std::string type_url;
  std::string value;
};

struct VersionInfo {
  std::string version, revision;
};

struct ServerInfo {
  std::string uuid;       // stable for one containerd root
  std::uint64_t pid = 0;  // 0 before 1.7, which does not tell
};

struct Plugin {
  std::string type, id;    // "io.containerd.snapshotter.v1", "overlayfs"
  std::string init_error;  // empty: usable
  Labels exports;          // for example root = its folder
};

struct Lease {
  std::string id;
  Labels labels;
};

struct Descriptor {
  std::string media_type, digest;  // digest: "sha256:<64 hex>"
  std::uint64_t size = 0;
};

struct BlobInfo {
  std::string digest;
  std::uint64_t size = 0;
  Labels labels;
};

// Fills up to out.size() bytes from `offset` on and returns their number; 0 at the end. Addressed by offset, since an
// upload may resume in the middle or start over.
using BlobReader = std::function<base::Result<std::size_t>(std::uint64_t offset, std::span<std::uint8_t> out)>;
// Takes the next bytes of a blob in order.
using BlobSink = std::function<base::Status(base::BytesView bytes)>;

// Reads a regular file or memfd from its start (pread(2)). Borrowed: it must outlive the reader.
[[nodiscard]] BlobReader fd_reader(int fd);

struct Image {
  std::string name;  // this project names images by digest: "repo@sha256:…"
  Descriptor target;
  Labels labels;
  base::WallTime created_at;  // set by containerd
};

struct Mount {
  std::string type, source;
  std::vector<std::string> options;
};

struct Container {
  std::string id;
  std::string image;  // name of an image record, or empty
  Labels labels;
  std::string runtime;                 // "io.containerd.cellrun.v2"
  std::optional<Any> runtime_options;  // always here and never in the task: 2.x refuses task options of foreign types
  std::string spec_json;               // OCI runtime spec
};

// runtimeoptions.v1.Options{type_url, config_path}: how a shim that is not runc's is told its configuration file.
[[nodiscard]] Any shim_options(const std::string& config_path);

// Paths of FIFOs that the shim opens; empty: not connected. Plain FIFO paths are what every shim understands.
struct TaskIo {
  std::string stdin_path, stdout_path, stderr_path;
};

enum class TaskStatus { kUnknown, kCreated, kRunning, kStopped, kPaused, kPausing };

struct Task {
  std::string container_id;
  std::uint32_t pid = 0;
  TaskStatus status = TaskStatus::kUnknown;
  std::uint32_t exit_status = 0;  // meaningful when stopped
};

struct TaskExit {
  std::uint32_t exit_status = 0;
  base::WallTime exited_at;
};

enum class EventKind { kTaskCreate, kTaskStart, kTaskExit, kTaskDelete, kTaskOom, kOther };

// One containerd event. It is a hint: the state that decides comes from a call (Tasks.Get, Wait).
struct Event {
  EventKind kind = EventKind::kOther;
  std::string topic;         // "/tasks/exit"
  std::string container_id;  // empty for kOther
  std::string exec_id;       // of an exit: equal to container_id for the first process
  std::uint32_t pid = 0;
  std::uint32_t exit_status = 0;
  base::WallTime time;
};

// A stretch in which events may have been lost: containerd replays nothing. After it every state of interest has to be
// asked for anew.
struct EventGap {
  base::WallTime from, to;
  std::string why;
};

}  // namespace cellrund::containerd
