#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {

base::Status Client::create_lease(const std::string& id, std::chrono::seconds lifetime, const Labels& labels,
                                  const Call& call) {
  wire::leases::CreateRequest request;
  request.set_id(id);
  request.mutable_labels()->insert(labels.begin(), labels.end());
  base::WallTime expires = base::WallTime::now();
  expires.seconds += lifetime.count();
  (*request.mutable_labels())["containerd.io/gc.expire"] = base::format_rfc3339(expires);
  wire::leases::CreateResponse response;
  return impl_->unary(*impl_->leases, &wire::leases::Leases::Stub::Create, request, response, call,
                      "Leases.Create " + id);
}

base::Status Client::delete_lease(const std::string& id, const Call& call) {
  wire::leases::DeleteRequest request;
  request.set_id(id);
  request.set_sync(true);
  google::protobuf::Empty response;
  auto deleted =
      impl_->unary(*impl_->leases, &wire::leases::Leases::Stub::Delete, request, response, call, "Leases.Delete " + id);
  if (!deleted.ok() && deleted.error().code() == base::Errc::kNotFound) {
    return base::ok();
  }
  return deleted;
}

base::Result<std::vector<Lease>> Client::list_leases(const Call& call) {
  wire::leases::ListResponse response;
  CR_CHECK(impl_->unary(*impl_->leases, &wire::leases::Leases::Stub::List, wire::leases::ListRequest(), response, call,
                        "Leases.List"));
  std::vector<Lease> out;
  for (const auto& lease : response.leases()) {
    out.push_back({lease.id(), to_labels(lease.labels())});
  }
  return out;
}

}  // namespace cellrund::containerd
