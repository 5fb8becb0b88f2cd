// The Node that the daemon serves: submission, the cell threads, and the views over table, ledger and logs.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "admit/admission.hpp"
#include "base/guarded.hpp"
#include "cell/expiry.hpp"
#include "cell/kill_switch.hpp"
#include "cell/node.hpp"
#include "cell/services.hpp"
#include "job/verifier.hpp"

namespace cellrund::cell {

struct NodeOptions {
  std::string trust_dir;
  job::VerifyPolicy verify;
  admit::NodePolicy policy;
  std::string accel;  // of the microvm lane: kvm | tcg | ""
};

class NodeImpl final : public Node {
 public:
  // `services` outlives the node.
  static base::Result<std::unique_ptr<NodeImpl>> create(Services& services, NodeOptions options);
  ~NodeImpl() override;  // shutdown()

  // Cancels every job (NodeShutdown) and waits until all are closed.
  void shutdown();

  base::Result<std::variant<Accepted, model::Refusal>> submit(base::BytesView envelope,
                                                              const model::PeerFacts& peer) override;
  base::Result<std::optional<image::InputStore::Upload>> begin_upload(const std::string& digest, std::uint64_t size,
                                                                      std::uint32_t peer_uid) override {
    return services_.inputs.begin(digest, size, peer_uid);
  }
  std::optional<base::Error> stopped() override;
  void count_dropped(std::uint32_t peer_uid, std::uint64_t submissions) override;
  std::optional<JobView> get(const std::string& uid, Viewer viewer) override;
  std::vector<JobView> list(std::size_t limit) override;
  void wait_change(const std::string& uid, std::uint64_t seen, std::uint64_t log_bytes_seen,
                   base::Deadline deadline) override;
  std::uint64_t log_bytes(const std::string& uid) override;
  base::Result<std::string> read_log(const std::string& uid, Stream stream, std::uint64_t offset,
                                     std::size_t limit) override;
  base::Result<std::optional<LogPiece>> read_log_piece(const std::string& uid, LogCursor& cursor, std::size_t limit) override;
  bool log_was_cut(const std::string& uid) override;
  base::Status cancel(const std::string& uid, bool by_operator) override;
  base::Result<std::string> evidence(const std::string& uid, Viewer viewer) override;
  base::Result<model::EgressFacts> flows(const std::string& uid, Viewer viewer) override;
  base::Result<model::OutputFacts> outputs(const std::string& uid) override;
  base::Result<OutputSource> open_output(const std::string& uid, const std::string& path) override;
  CapacityView capacity() override;
  void set_draining(bool draining) override { draining_.store(draining); }
  base::Result<KillSwitchView> set_kill_switch(bool engaged) override;
  base::Result<KillSwitchView> kill_switch() override;

 private:
  using SubmitResult = base::Result<std::variant<Accepted, model::Refusal>>;
  NodeImpl(Services& services, NodeOptions options, admit::Admission admission, KillSwitch kill_switch)
      : services_(services), options_(std::move(options)), admission_(std::move(admission)),
        kill_switch_(std::move(kill_switch)), expiry_(services.paths.state) {}

  // Seals the refusal; an Error only when that is impossible.
  SubmitResult refuse(model::Refusal refusal, model::RequestFacts request);
  SubmitResult accept(model::AdmittedJob job, base::BytesView envelope, const model::PeerFacts& peer);
  std::optional<model::Refusal> node_refuses() const;
  std::uint64_t open_jobs_of(const std::string& signer_key_id);
  std::vector<std::string> open_uids();  // of the jobs that are accepted and not yet closed
  void seal_dropped(std::uint32_t peer_uid, std::uint64_t count);
  void housekeeping(const std::stop_token& stop);
  void join_finished();
  std::optional<JobView> refused(const std::string& uid, Viewer viewer);
  // The folder of a closed job.
  base::Result<std::string> closed_folder(const std::string& uid);

  struct Thread {
    std::jthread thread;
    bool finished = false;
  };
  struct Dropped {
    std::map<std::uint32_t, std::uint64_t> by_peer;
  };

  Services& services_;
  NodeOptions options_;
  admit::Admission admission_;
  std::mutex deciding_;  // held from the look at what is known and open until the new job counts as both
  KillSwitch kill_switch_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> stopping_{false};
  base::Guarded<std::map<std::string, Thread>> threads_;                        // by uid
  base::Guarded<std::map<std::string, std::string>> open_;                      // uid → signer, accepted and not closed
  base::Guarded<Dropped> dropped_;
  Expiry expiry_;
  std::condition_variable_any wake_;
  std::jthread housekeeper_;
};

}  // namespace cellrund::cell
