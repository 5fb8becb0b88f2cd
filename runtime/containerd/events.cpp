// Events.Subscribe with a thread of its own.
//
// containerd neither replays events nor acknowledges a subscription. So after each (re)connection the thread publishes
// a marker of its own until that comes back through the stream; from then on nothing can be missed unnoticed.
#include <poll.h>
#include <sys/random.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <thread>

#include <containerd/task_events.pb.h>

#include "base/guarded.hpp"
#include "base/hex.hpp"
#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {
namespace {

constexpr std::chrono::milliseconds kMarkerInterval{20};

gpr_timespec after(std::chrono::nanoseconds delay) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(delay.count(), GPR_TIMESPAN));
}

template <typename Message>
Event task_event(EventKind kind, const std::string& bytes) {
  Event out;
  Message message;
  if (!message.ParseFromString(bytes)) {
    return out;
  }
  out.kind = kind;
  out.container_id = message.container_id();
  if constexpr (requires { message.pid(); }) {
    out.pid = message.pid();
  }
  if constexpr (requires { message.exit_status(); }) {
    out.exit_status = message.exit_status();
    out.exec_id = message.id();
  }
  return out;
}

Event to_event(const wire::events::Envelope& envelope) {
  namespace messages = ::containerd::events;
  const std::string& topic = envelope.topic();
  const std::string& bytes = envelope.event().value();
  Event out;
  if (topic == "/tasks/create") {
    out = task_event<messages::TaskCreate>(EventKind::kTaskCreate, bytes);
  } else if (topic == "/tasks/start") {
    out = task_event<messages::TaskStart>(EventKind::kTaskStart, bytes);
  } else if (topic == "/tasks/exit") {
    out = task_event<messages::TaskExit>(EventKind::kTaskExit, bytes);
  } else if (topic == "/tasks/delete") {
    out = task_event<messages::TaskDelete>(EventKind::kTaskDelete, bytes);
  } else if (topic == "/tasks/oom") {
    out = task_event<messages::TaskOOM>(EventKind::kTaskOom, bytes);
  }
  out.topic = topic;
  out.time = to_wall_time(envelope.timestamp());
  return out;
}

}  // namespace

class EventStream::State {
 public:
  State(std::shared_ptr<Connection> connection, EventHandlers handlers, base::UniqueFd stop_event, std::string marker)
      : connection_(std::move(connection)),
        stub_(wire::events::Events::NewStub(connection_->channel())),
        handlers_(std::move(handlers)),
        stop_event_(std::move(stop_event)),
        marker_(std::move(marker)) {
    thread_ = std::thread([this] { run(); });
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  State(State&&) = delete;
  State& operator=(State&&) = delete;
  ~State() {
    {
      auto current = current_.lock();
      stopping_ = true;
      if (current->context != nullptr) {
        current->context->cancel();
      }
    }
    signal_event(stop_event_.get());
    thread_.join();
  }

  base::Status wait_live(base::Deadline deadline) {
    auto current = current_.lock();
    while (!current->was_live) {
      if (deadline.expired()) {
        return base::Error(base::Errc::kDeadlineExceeded, "containerd: Events.Subscribe: " + current->why);
      }
      current.wait(changed_, deadline);
    }
    return base::ok();
  }

 private:
  struct Current {
    CallContext* context = nullptr;  // of the running call
    bool was_live = false;
    std::string why = "no answer";
  };

  void run() {
    base::WallTime whole_until = base::WallTime::now();
    bool first = true;
    while (!stopping_) {
      CallContext context(connection_);
      current_.lock()->context = &context;
      if (stopping_) {
        context.cancel();  // the destructor may have looked just before there was a context
      }
      last_why_ = follow(context, whole_until, first);
      {
        auto current = current_.lock();
        current->context = nullptr;
        current->why = last_why_;
        first = first && !current->was_live;
      }
      pause();
    }
  }

  void pause() {
    std::array<pollfd, 2> polls{{{stop_event_.get(), POLLIN, 0}, {connection_->stop_fd(), POLLIN, 0}}};
    (void)::poll(polls.data(), polls.size(), static_cast<int>(kRetryInterval.count()));  // EINTR: one retry more
    if (polls[1].revents != 0) {
      stopping_ = true;
    }
  }

  // One connection, from subscribing to its end, whose cause is returned.
  std::string follow(CallContext& context, base::WallTime& whole_until, bool first) {
    wire::events::SubscribeRequest request;
    const std::string ours = "namespace==" + connection_->containerd_namespace() + ",topic";
    request.add_filters(ours + "~=\"^/tasks/\"");
    request.add_filters(ours + "==\"" + marker_ + "\"");
    grpc::CompletionQueue queue;
    auto reader = stub_->PrepareAsyncSubscribe(context.get(), request, &queue);
    wire::events::Envelope envelope;
    void* tag = nullptr;
    bool good = false;
    reader->StartCall(&queue);
    (void)queue.Next(&tag, &good);  // bounded: a channel that cannot connect fails the call at once
    bool live = false;
    const base::Deadline live_by = base::Deadline::after(kSubscribeTimeout);
    if (good) {
      reader->Read(&envelope, &queue);
    }
    while (good) {
      const auto next =
          live ? (queue.Next(&tag, &good) ? grpc::CompletionQueue::GOT_EVENT : grpc::CompletionQueue::SHUTDOWN)
               : queue.AsyncNext(&tag, &good, after(kMarkerInterval));
      if (next == grpc::CompletionQueue::TIMEOUT) {
        if (live_by.expired()) {
          context.cancel();
        }
        publish_marker(live_by);
        continue;
      }
      if (!good) {
        break;
      }
      if (envelope.topic() == marker_) {
        if (!std::exchange(live, true)) {
          announce(whole_until, first);
        }
      } else {
        handlers_.on_event(to_event(envelope));
      }
      if (live) {
        whole_until = base::WallTime::now();
      }
      reader->Read(&envelope, &queue);
    }
    grpc::Status status;
    reader->Finish(&status, &queue);
    queue.Shutdown();
    while (queue.Next(&tag, &good)) {
    }
    return to_error(status, live ? "Events.Subscribe ended" : "Events.Subscribe").message();
  }

  void publish_marker(base::Deadline deadline) {
    wire::events::PublishRequest request;
    request.set_topic(marker_);
    request.mutable_event()->set_type_url("google.protobuf.Empty");
    google::protobuf::Empty response;
    CallContext context(connection_, Call(deadline));
    (void)stub_->Publish(context.get(), request,
                         &response);  // seen to have worked when it comes back, or else repeated
  }

  void announce(const base::WallTime& whole_until, bool first) {
    {
      auto current = current_.lock();
      current->was_live = true;
    }
    changed_.notify_all();
    if (!first && handlers_.on_gap) {
      handlers_.on_gap(EventGap{whole_until, base::WallTime::now(), last_why_});
    }
  }

  std::shared_ptr<Connection> connection_;  // see Connection
  std::unique_ptr<wire::events::Events::Stub> stub_;
  EventHandlers handlers_;
  base::UniqueFd stop_event_;
  std::string marker_;
  std::string last_why_;  // the thread's own
  base::Guarded<Current> current_;
  std::condition_variable changed_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

EventStream::EventStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
EventStream::EventStream(EventStream&&) noexcept = default;
EventStream& EventStream::operator=(EventStream&&) noexcept = default;
EventStream::~EventStream() = default;

base::Result<EventStream> Client::subscribe(EventHandlers handlers, const Call& call) {
  std::array<std::uint8_t, 8> nonce{};
  if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    return base::Error::from_errno("getrandom");
  }
  auto state = std::make_unique<EventStream::State>(impl_->connection, std::move(handlers), CR_TRY(make_event()),
                                                    "/cellrun/subscribed-" + base::to_hex(nonce));
  CR_CHECK(state->wait_live(call.deadline));
  return EventStream(std::move(state));
}

}  // namespace cellrund::containerd
