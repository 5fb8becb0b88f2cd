// A node in memory, for tests of the sockets. Accepts every submission but the word "refuse".
#pragma once

#include <condition_variable>
#include <map>
#include <string>

#include "base/guarded.hpp"
#include "cell/node.hpp"

namespace daemon_test {

using namespace cellrund;

inline const std::string kMine = "0199c1f2-7b1e-7c3a-9d2e-000000000001";
inline const std::string kOther = "0199c1f2-7b1e-7c3a-9d2e-000000000002";

class FakeNode final : public cell::Node {
 public:
  struct Job {
    cell::JobView view;
    std::string out, err;
    model::EgressFacts egress;
    bool log_cut = false;
    model::OutputFacts outputs;
    std::string output_bytes;  // of its one output
    bool unfiltered = false;  // ended, and not sealed yet
    bool cancelled = false, by_operator = false;
  };
  struct State {
    std::map<std::string, Job> jobs;
    std::map<std::uint32_t, std::uint64_t> dropped;
    std::uint64_t submissions = 0;
    bool draining = false;
    bool kill_switch = false;
    bool disk_full = false;
  };

  base::Result<std::variant<cell::Accepted, model::Refusal>> submit(base::BytesView envelope,
                                                                    const model::PeerFacts& peer) override {
    auto state = state_.lock();
    ++state->submissions;
    if (state->disk_full) {
      return base::Error(base::Errc::kDataLoss, "the ledger stopped");
    }
    using Answer = std::variant<cell::Accepted, model::Refusal>;
    if (base::as_text(envelope) == "refuse") {
      return Answer(model::Refusal{model::Reason::kExpired, "the jobspec expired", "sign a new one", "metadata.expiresAt"});
    }
    const bool known = state->jobs.contains(kMine);
    state->jobs[kMine].view.uid = kMine;
    state->jobs[kMine].view.owner_uid = peer.uid;
    return Answer(cell::Accepted{kMine, known});
  }
  base::Result<std::optional<image::InputStore::Upload>> begin_upload(const std::string& digest, std::uint64_t size,
                                                                      std::uint32_t peer_uid) override {
    if (inputs == nullptr) {
      return base::Error(base::Errc::kUnimplemented, "this node takes no files");
    }
    return inputs->begin(digest, size, peer_uid);
  }
  image::InputStore* inputs = nullptr;

  std::optional<base::Error> stopped() override {
    return state_.lock()->disk_full ? std::optional(base::Error(base::Errc::kDataLoss, "the ledger stopped")) : std::nullopt;
  }
  void count_dropped(std::uint32_t uid, std::uint64_t n) override { state_.lock()->dropped[uid] += n; }
  std::optional<cell::JobView> get(const std::string& uid, cell::Viewer /*viewer*/) override {
    auto state = state_.lock();
    const auto job = state->jobs.find(uid);
    return job == state->jobs.end() ? std::nullopt : std::optional(job->second.view);
  }
  std::vector<cell::JobView> list(std::size_t limit) override {
    auto state = state_.lock();
    std::vector<cell::JobView> views;
    for (const auto& [uid, job] : state->jobs) {
      if (views.size() < limit) {
        views.push_back(job.view);
      }
    }
    return views;
  }
  void wait_change(const std::string& uid, std::uint64_t seen, std::uint64_t log_bytes_seen,
                   base::Deadline deadline) override {
    auto state = state_.lock();
    while (!deadline.expired()) {
      const Job& job = state->jobs[uid];
      if (job.view.version > seen || job.out.size() + job.err.size() > log_bytes_seen) {
        return;
      }
      state.wait(changed_, deadline);
    }
  }
  std::uint64_t log_bytes(const std::string& uid) override {
    auto state = state_.lock();
    return state->jobs[uid].out.size() + state->jobs[uid].err.size();
  }
  base::Result<std::string> read_log(const std::string& uid, cell::Stream stream, std::uint64_t offset,
                                     std::size_t limit) override {
    auto state = state_.lock();
    const std::string& text = stream == cell::Stream::kStdout ? state->jobs[uid].out : state->jobs[uid].err;
    return offset >= text.size() ? std::string() : text.substr(offset, limit);
  }
  // Of stdout alone; each piece bears the offset as its time.
  base::Result<std::optional<cell::LogPiece>> read_log_piece(const std::string& uid, cell::LogCursor& cursor,
                                                             std::size_t limit) override {
    const std::string text = *read_log(uid, cell::Stream::kStdout, cursor.offsets[0], limit);
    if (text.empty()) {
      return std::optional<cell::LogPiece>();
    }
    cell::LogPiece piece{cell::Stream::kStdout, cursor.offsets[0], static_cast<std::int64_t>(cursor.offsets[0]) + 1, text};
    cursor.offsets[0] += text.size();
    return std::optional(std::move(piece));
  }
  bool log_was_cut(const std::string& uid) override { return state_.lock()->jobs[uid].log_cut; }
  base::Status cancel(const std::string& uid, bool by_operator) override {
    change([&](State& state) {
      state.jobs[uid].cancelled = true;
      state.jobs[uid].by_operator = by_operator;
    });
    return base::ok();
  }
  base::Result<std::string> evidence(const std::string& uid, cell::Viewer /*viewer*/) override {
    if (!state_.lock()->jobs[uid].view.closed) {
      return base::Error(base::Errc::kFailedPrecondition, "evidence of " + uid + ": not sealed yet");
    }
    return std::string("{}");
  }
  base::Result<model::EgressFacts> flows(const std::string& uid, cell::Viewer /*viewer*/) override {
    auto state = state_.lock();
    if (state->jobs[uid].unfiltered) {
      return base::Error(base::Errc::kFailedPrecondition, "the job has ended, and its record is not sealed yet");
    }
    return state->jobs[uid].egress;
  }
  base::Result<model::OutputFacts> outputs(const std::string& uid) override {
    auto state = state_.lock();
    if (!state->jobs[uid].view.closed) {
      return base::Error(base::Errc::kFailedPrecondition, "the job is not closed yet");
    }
    return state->jobs[uid].outputs;
  }
  base::Result<cell::OutputSource> open_output(const std::string& uid, const std::string& path) override {
    auto state = state_.lock();
    const Job& job = state->jobs[uid];
    for (const model::OutputFile& file : job.outputs.files) {
      if (file.path == path) {
        return cell::OutputSource{CR_TRY(base::sealed_memfd("output", base::as_bytes(job.output_bytes))), 0, file};
      }
    }
    return base::Error(base::Errc::kNotFound, "the job has no output of this name");
  }
  cell::CapacityView capacity() override {
    cell::CapacityView view;
    view.draining = state_.lock()->draining;
    return view;
  }
  void set_draining(bool draining) override { state_.lock()->draining = draining; }
  base::Result<cell::KillSwitchView> set_kill_switch(bool engaged) override {
    state_.lock()->kill_switch = engaged;
    return kill_switch();
  }
  base::Result<cell::KillSwitchView> kill_switch() override {
    auto state = state_.lock();
    cell::KillSwitchView view{state->kill_switch, {}};
    for (const auto& [uid, job] : state->jobs) {
      view.jobs.push_back({uid, job.view.name, job.view.state, state->kill_switch ? "cut" : "open"});
    }
    return view;
  }

  template <typename F>
  void change(const F& f) {
    {
      auto state = state_.lock();
      f(*state);
    }
    changed_.notify_all();
  }
  // A job of `owner` with something to hide.
  void add(const std::string& uid, std::uint32_t owner) {
    change([&](State& state) {
      Job& job = state.jobs[uid];
      job.view.uid = uid;
      job.view.name = "secretive";
      job.view.owner_uid = owner;
      job.view.image = "registry.example/x@sha256:00";
      job.view.spec_digest = "sha256:11";
      job.view.version = 1;
      job.view.timeline = {{model::State::kAccepted, {1700000000, 0}, {1}, ""}};
      job.view.outcome.message = "contents";
    });
  }
  void close(const std::string& uid) {
    change([&](State& state) {
      state.jobs[uid].view.closed = true;
      state.jobs[uid].view.state = model::State::kSucceeded;
      ++state.jobs[uid].view.version;
    });
  }
  [[nodiscard]] State snapshot() { return *state_.lock(); }

 private:
  base::Guarded<State> state_;
  std::condition_variable changed_;
};

}  // namespace daemon_test
