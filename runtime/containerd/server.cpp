// Version, introspection and namespaces.
#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {

base::Result<VersionInfo> Client::version(const Call& call) {
  wire::version::VersionResponse response;
  CR_CHECK(impl_->unary(*impl_->version, &wire::version::Version::Stub::Version, google::protobuf::Empty(), response,
                        call, "Version"));
  return VersionInfo{response.version(), response.revision()};
}

base::Result<ServerInfo> Client::server_info(const Call& call) {
  wire::introspection::ServerResponse response;
  CR_CHECK(impl_->unary(*impl_->introspection, &wire::introspection::Introspection::Stub::Server,
                        google::protobuf::Empty(), response, call, "Introspection.Server"));
  return ServerInfo{response.uuid(), response.pid()};
}

base::Result<std::vector<Plugin>> Client::plugins(const Call& call) {
  wire::introspection::PluginsResponse response;
  CR_CHECK(impl_->unary(*impl_->introspection, &wire::introspection::Introspection::Stub::Plugins,
                        wire::introspection::PluginsRequest(), response, call, "Introspection.Plugins"));
  std::vector<Plugin> out;
  for (const auto& plugin : response.plugins()) {
    std::string init_error = plugin.init_err().message();
    if (init_error.empty() && plugin.has_init_err()) {
      init_error = "code " + std::to_string(plugin.init_err().code());
    }
    out.push_back({plugin.type(), plugin.id(), std::move(init_error), to_labels(plugin.exports())});
  }
  return out;
}

base::Status Client::ensure_namespace(const Call& call) {
  wire::namespaces::CreateNamespaceRequest request;
  request.mutable_namespace_()->set_name(impl_->connection->containerd_namespace());
  wire::namespaces::CreateNamespaceResponse response;
  auto created = impl_->unary(*impl_->namespaces, &wire::namespaces::Namespaces::Stub::Create, request, response, call,
                              "Namespaces.Create");
  if (!created.ok() && created.error().code() == base::Errc::kAlreadyExists) {
    return base::ok();
  }
  return created;
}

base::Status Client::delete_namespace(const Call& call) {
  wire::namespaces::DeleteNamespaceRequest request;
  request.set_name(impl_->connection->containerd_namespace());
  google::protobuf::Empty response;
  auto deleted = impl_->unary(*impl_->namespaces, &wire::namespaces::Namespaces::Stub::Delete, request, response, call,
                              "Namespaces.Delete");
  if (!deleted.ok() && deleted.error().code() == base::Errc::kNotFound) {
    return base::ok();
  }
  return deleted;
}

}  // namespace cellrund::containerd
