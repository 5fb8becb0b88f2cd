// What containerd itself says it still has of the cell: containers, tasks, leases, snapshots, by calls of our own.
//
// Tasks.Get answers NOT_FOUND for a task whose container record is gone (containerd 1.6, services/tasks/local.go getTask),
// so containerd's answer alone proves nothing: the bundle, process and cgroup probes look at the same task from below.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <memory>
#include <set>

#include "containerd/containers.grpc.pb.h"
#include "containerd/leases.grpc.pb.h"
#include "containerd/snapshots.grpc.pb.h"
#include "containerd/tasks.grpc.pb.h"
#include "residue/probes.hpp"

namespace cellrund::residue {
namespace {

namespace containers = containerd::services::containers::v1;
namespace leases = containerd::services::leases::v1;
namespace snapshots = containerd::services::snapshots::v1;
namespace tasks = containerd::services::tasks::v1;

constexpr std::chrono::seconds kCallTimeout{3};
constexpr int kMaxMessage = 16 << 20;  // containerd's own cap (defaults/defaults.go)

class ContainerdLook {
 public:
  ContainerdLook(Pass& pass, const ContainerdPlace& place)
      : pass_(pass), subject_(pass.subject()), place_(place),
        look_("containerd", "Containers, Tasks, Leases, Snapshots of " + place.socket + ", namespace " + place.name_space) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMaxMessage);
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "localhost");
    // No connection state of an earlier look, or of anyone else in this process, decides this one.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel("unix:" + place.socket, grpc::InsecureChannelCredentials(), arguments);
  }

  Look run() {
    if (look_at_containers() && look_at_tasks() && look_at_leases()) {
      look_at_snapshots();
    }
    return std::move(look_);
  }

 private:
  // Every call has a deadline: the pass's own or kCallTimeout, whichever is nearer.
  std::unique_ptr<grpc::ClientContext> context() const {
    auto context = std::make_unique<grpc::ClientContext>();
    const auto budget = std::min<base::Nanoseconds>(pass_.deadline().remaining(), kCallTimeout);
    context->set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(budget.count(), GPR_TIMESPAN)));
    context->AddMetadata("containerd-namespace", place_.name_space);
    return context;
  }

  // False: containerd cannot be asked, and further calls would only wait for the same answer.
  bool told(const grpc::Status& status, const std::string& what) {
    if (status.ok()) {
      return true;
    }
    const bool away = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    look_.blind("containerd: " + what + ": " + (away ? "no answer at " + place_.socket : status.error_message()), away);
    return false;
  }

  // Ids that the scan may ask for one by one.
  std::set<std::string> ids() const {
    std::set<std::string> out;
    if (subject_.breadth() == Breadth::kCell) {
      out.insert(model::CellName{subject_.node(), subject_.uid(), 0}.marker());
    }
    for (const model::ItemKind kind : {model::ItemKind::kContainer, model::ItemKind::kTask}) {
      for (const model::InventoryItem& item : subject_.items(kind)) {
        out.insert(item.name);
      }
    }
    return out;
  }

  void found(model::ItemKind kind, const std::string& name, const std::string& why) {
    if (seen_.emplace(kind, name).second) {
      look_.found({{kind, name, place_.name_space, why}, true});
    }
  }

  bool look_at_containers() {
    const auto stub = containers::Containers::NewStub(channel_);
    for (const std::string& id : ids()) {
      containers::GetContainerRequest request;
      containers::GetContainerResponse response;
      request.set_id(id);
      const grpc::Status status = stub->Get(context().get(), request, &response);
      if (status.error_code() == grpc::StatusCode::NOT_FOUND) {
        continue;
      }
      if (!told(status, "get container " + id)) {
        return false;
      }
      found(model::ItemKind::kContainer, id, "containerd has it");
    }
    if (subject_.breadth() == Breadth::kNode) {
      containers::ListContainersRequest request;
      containers::ListContainersResponse response;
      request.add_filters("id~=\"^cr-" + subject_.node().value + "-\"");
      if (!told(stub->List(context().get(), request, &response), "list containers")) {
        return false;
      }
      for (const containers::Container& container : response.containers()) {
        if (const std::string why = subject_.why_text(container.id()); !why.empty()) {
          found(model::ItemKind::kContainer, container.id(), why);
        }
      }
    }
    return true;
  }

  bool look_at_tasks() {
    const auto stub = tasks::Tasks::NewStub(channel_);
    for (const std::string& id : ids()) {
      tasks::GetRequest request;
      tasks::GetResponse response;
      request.set_container_id(id);
      const grpc::Status status = stub->Get(context().get(), request, &response);
      if (status.error_code() == grpc::StatusCode::NOT_FOUND) {
        continue;
      }
      if (!told(status, "get task " + id)) {
        return false;
      }
      found(model::ItemKind::kTask, id, "containerd has it, pid " + std::to_string(response.process().pid()));
    }
    if (subject_.breadth() == Breadth::kNode) {
      tasks::ListTasksRequest request;
      tasks::ListTasksResponse response;
      if (!told(stub->List(context().get(), request, &response), "list tasks")) {
        return false;
      }
      for (const auto& task : response.tasks()) {
        const std::string& id = task.container_id().empty() ? task.id() : task.container_id();
        if (const std::string why = subject_.why_text(id); !why.empty()) {
          found(model::ItemKind::kTask, id, why);
        }
      }
    }
    return true;
  }

  bool look_at_leases() {
    const auto stub = leases::Leases::NewStub(channel_);
    leases::ListRequest request;  // unfiltered: a filter that containerd does not know would match nothing
    leases::ListResponse response;
    if (!told(stub->List(context().get(), request, &response), "list leases")) {
      return false;
    }
    for (const leases::Lease& lease : response.leases()) {
      std::string why = subject_.why_text(lease.id());
      for (const model::InventoryItem& item : subject_.items(model::ItemKind::kLease)) {
        if (why.empty() && item.name == lease.id()) {
          why = "journalled id";
        }
      }
      if (!why.empty()) {
        found(model::ItemKind::kLease, lease.id(), why);
      }
    }
    return true;
  }

  // Only in snapshotters that the journal names: the node's own lanes make none.
  void look_at_snapshots() {
    std::set<std::string> snapshotters;
    std::set<std::pair<std::string, std::string>> keys;
    for (const model::InventoryItem& item : subject_.items(model::ItemKind::kSnapshot)) {
      const std::size_t slash = item.name.find('/');
      if (slash == std::string::npos) {
        look_.blind("journalled snapshot " + item.name + ": name is not snapshotter/key");
        continue;
      }
      snapshotters.insert(item.name.substr(0, slash));
      keys.emplace(item.name.substr(0, slash), item.name.substr(slash + 1));
    }
    const auto stub = snapshots::Snapshots::NewStub(channel_);
    for (const std::string& snapshotter : snapshotters) {
      snapshots::ListSnapshotsRequest request;
      request.set_snapshotter(snapshotter);
      const auto call_context = context();
      const auto reader = stub->List(call_context.get(), request);
      snapshots::ListSnapshotsResponse response;
      while (reader->Read(&response)) {
        for (const snapshots::Info& info : response.info()) {
          std::string why = subject_.why_text(info.name());
          if (why.empty() && keys.contains({snapshotter, info.name()})) {
            why = "journalled key";
          }
          if (!why.empty()) {
            found(model::ItemKind::kSnapshot, snapshotter + "/" + info.name(), why);
          }
        }
      }
      if (!told(reader->Finish(), "list snapshots of " + snapshotter)) {
        return;
      }
    }
  }

  Pass& pass_;
  const Subject& subject_;
  const ContainerdPlace& place_;
  Look look_;
  std::shared_ptr<grpc::Channel> channel_;
  std::set<std::pair<model::ItemKind, std::string>> seen_;
};

}  // namespace

Look look_at_containerd(Pass& pass) {
  const auto& place = pass.subject().paths().containerd;
  if (!place) {
    Look look("containerd", "none configured");
    look.blind("no containerd is configured, but the journal names objects of one");
    return look;
  }
  try {  // protobuf and gRPC throw bad_alloc at most; nothing may leave this file
    return ContainerdLook(pass, *place).run();
  } catch (const std::exception& error) {
    Look look("containerd", place->socket);
    look.blind(std::string("containerd: ") + error.what());
    return look;
  }
}

}  // namespace cellrund::residue
