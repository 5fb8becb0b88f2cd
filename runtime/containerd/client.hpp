// Client: containerd's gRPC services as this project uses them, in one containerd namespace.
//
// Works with containerd 1.6 to 2.x. All members are thread-safe and block at most until the deadline of their call.
// Everything that comes from containerd is bounded (16 MiB a message) and never trusted further than its type; blob
// bytes are not checked against their digest here, since whoever consumes them has to hash them anyway. Failures:
// kNotFound, kAlreadyExists and so on as containerd said it; kUnavailable when it cannot be reached; kDeadlineExceeded;
// kCancelled after shutdown().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "base/until.hpp"
#include "containerd/timeouts.hpp"
#include "containerd/types.hpp"

namespace cellrund::containerd {

// How long a call may take, and the lease under which it acts (objects that it makes are kept by that lease). A stop
// cancels the call (kCancelled); containerd may or may not have acted.
struct Call {
  Call(base::Deadline until) : deadline(until) {}  // NOLINT(google-explicit-constructor): most calls need no more
  Call(const base::Until& until) : deadline(until.deadline), stop(until.stop) {}  // NOLINT(google-explicit-constructor)
  Call(base::Deadline until, std::string lease_id) : deadline(until), lease(std::move(lease_id)) {}
  base::Deadline deadline;
  std::stop_token stop;
  std::string lease;
};

// Tasks.Wait in flight. Dropping it cancels the call.
class TaskWait {
 public:
  class State;
  explicit TaskWait(std::shared_ptr<State> state);
  TaskWait(TaskWait&&) noexcept;
  TaskWait& operator=(TaskWait&&) noexcept;
  TaskWait(const TaskWait&) = delete;
  TaskWait& operator=(const TaskWait&) = delete;
  ~TaskWait();

  // Readable once the call has ended, with an exit or with a failure. Stays readable; not to be read from.
  [[nodiscard]] int fd() const noexcept;
  // kDeadlineExceeded while the task lives on; may be called again. kUnavailable when containerd went away: the task
  // may well live, so wait anew once it is back.
  [[nodiscard]] base::Result<TaskExit> wait(base::Deadline deadline) const;

 private:
  std::shared_ptr<State> state_;  // shared with the call itself, which ends some time after its cancellation
};

// A subscription with a thread of its own; the destructor ends and joins it. Handlers run on that thread and must not
// destroy the subscription.
class EventStream {
 public:
  class State;
  explicit EventStream(std::unique_ptr<State> state);
  EventStream(EventStream&&) noexcept;
  EventStream& operator=(EventStream&&) noexcept;
  EventStream(const EventStream&) = delete;
  EventStream& operator=(const EventStream&) = delete;
  ~EventStream();

 private:
  std::unique_ptr<State> state_;
};

struct EventHandlers {
  std::function<void(const Event&)> on_event;
  // Called after the stream is whole again.
  std::function<void(const EventGap&)> on_gap;
};

class Client {
 public:
  // Does not connect yet: the first call does, and every later one reconnects when containerd was restarted.
  // kInvalidArgument for a socket path that is not absolute or too long, or a malformed namespace.
  static base::Result<Client> create(const std::string& socket_path, const std::string& containerd_namespace);
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  // Cancels what is in flight. No other thread may be inside a member any more.
  ~Client();

  // Cancels everything in flight and fails every later call with kCancelled.
  void shutdown();
  // Blocks until containerd answers a Version call: after its start it listens before it serves.
  base::Status wait_ready(base::Deadline deadline);

  // server.cpp
  base::Result<VersionInfo> version(const Call& call);
  base::Result<ServerInfo> server_info(const Call& call);
  base::Result<std::vector<Plugin>> plugins(const Call& call);
  // An existing one is fine.
  base::Status ensure_namespace(const Call& call);
  // kFailedPrecondition while it is not empty; a missing one is success.
  base::Status delete_namespace(const Call& call);

  // leases.cpp. `lifetime`: containerd drops the lease itself when we never come back.
  base::Status create_lease(const std::string& id, std::chrono::seconds lifetime, const Labels& labels,
                            const Call& call);
  // Synchronous: on return nothing that only this lease held is left. A missing one is success.
  base::Status delete_lease(const std::string& id, const Call& call);
  base::Result<std::vector<Lease>> list_leases(const Call& call);

  // content.cpp
  base::Result<BlobInfo> blob_info(const std::string& digest, const Call& call);
  // Postcondition: a blob of that digest and size is there and carries the labels. Bytes already there are not sent
  // again; a broken-off earlier attempt is resumed. kDataLoss when the bytes are not what the digest says.
  base::Status ingest(const std::string& digest, std::uint64_t size, const BlobReader& reader, const Labels& labels,
                      const Call& call);
  // kResourceExhausted when the blob is longer than `limit`.
  base::Status read_blob(const std::string& digest, std::uint64_t limit, const BlobSink& sink, const Call& call);
  base::Result<std::string> read_blob_text(const std::string& digest, std::size_t limit, const Call& call);
  base::Status read_blob_to_fd(const std::string& digest, std::uint64_t limit, int fd, const Call& call);
  // Adds or replaces these labels and leaves the others.
  base::Status set_blob_labels(const std::string& digest, const Labels& labels, const Call& call);
  base::Status delete_blob(const std::string& digest, const Call& call);

  // images.cpp
  // Creates the record, or points the existing one of that name at this target with these labels.
  base::Status put_image(const Image& image, const Call& call);
  base::Result<Image> get_image(const std::string& name, const Call& call);
  base::Result<std::vector<Image>> list_images(const Call& call);
  // Synchronous: content that nothing else holds is gone on return. kNotFound for an unknown name.
  base::Status delete_image(const std::string& name, const Call& call);

  // containers.cpp
  base::Status create_container(const Container& container, const Call& call);
  base::Result<Container> get_container(const std::string& id, const Call& call);
  base::Result<std::vector<Container>> list_containers(const Call& call);
  // A missing one is success. kFailedPrecondition while it has a task.
  base::Status delete_container(const std::string& id, const Call& call);

  // tasks.cpp. The pid is the one that the shim reports: runc's init, or the VMM. A stop gives containerd kTaskCreateSettle
  // to come to the end of a task that it is making.
  base::Result<std::uint32_t> create_task(const std::string& id, const std::vector<Mount>& rootfs, const TaskIo& io,
                                          const Call& call);
  base::Result<std::uint32_t> start_task(const std::string& id, const Call& call);
  // Success says that the shim took the signal, not that anything died. kNotFound when there is no such task.
  base::Status kill_task(const std::string& id, int signo, const Call& call);
  // To be called before start_task; needs the task to exist. It has no deadline: TaskWait::wait has.
  base::Result<TaskWait> begin_wait(const std::string& id);
  // Blocks until the exit or the deadline.
  base::Result<TaskExit> wait_task(const std::string& id, const Call& call);
  // A missing one is success; a running one is a failure. The call's deadline bounds how long we wait, not how long
  // containerd may work: after kDeadlineExceeded the deletion goes on in the background (kTaskDeleteBudget).
  base::Status delete_task(const std::string& id, const Call& call);
  base::Result<Task> get_task(const std::string& id, const Call& call);
  base::Result<std::vector<Task>> list_tasks(const Call& call);
  base::Result<std::vector<std::uint32_t>> task_pids(const std::string& id, const Call& call);

  // events.cpp. Task events of our namespace. On return the subscription is known to be live: no event from now on is
  // missed without a gap being reported. The client must outlive the stream.
  base::Result<EventStream> subscribe(EventHandlers handlers, const Call& call);

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cellrund::containerd
