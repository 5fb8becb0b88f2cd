#include "containerd/client.hpp"
#include "containerd/impl.hpp"

namespace cellrund::containerd {
namespace {

// containerd client.go: the JSON of an OCI runtime spec goes under this URL.
constexpr const char* kSpecTypeUrl = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

// Protocol Buffers encoding, wire type 2: tag, length as varint, bytes.
void append_field(std::string& out, unsigned number, std::string_view value) {
  constexpr unsigned kLengthDelimited = 2;
  constexpr std::size_t kVarintBits = 7;
  constexpr std::size_t kVarintMask = 0x7f;
  constexpr std::size_t kMore = 0x80;
  out.push_back(static_cast<char>(number << 3U | kLengthDelimited));
  std::size_t length = value.size();
  for (; length > kVarintMask; length >>= kVarintBits) {
    out.push_back(static_cast<char>((length & kVarintMask) | kMore));
  }
  out.push_back(static_cast<char>(length));
  out.append(value);
}

Container from_wire(const wire::containers::Container& container) {
  Container out;
  out.id = container.id();
  out.image = container.image();
  out.labels = to_labels(container.labels());
  out.runtime = container.runtime().name();
  if (container.runtime().has_options()) {
    out.runtime_options = Any{container.runtime().options().type_url(), container.runtime().options().value()};
  }
  out.spec_json = container.spec().value();
  return out;
}

}  // namespace

Any shim_options(const std::string& config_path) {
  Any out;
  out.type_url = "runtimeoptions.v1.Options";
  append_field(out.value, 2, config_path);
  return out;
}

base::Status Client::create_container(const Container& container, const Call& call) {
  wire::containers::CreateContainerRequest request;
  auto& out = *request.mutable_container();
  out.set_id(container.id);
  out.set_image(container.image);
  out.mutable_labels()->insert(container.labels.begin(), container.labels.end());
  out.mutable_runtime()->set_name(container.runtime);
  if (container.runtime_options.has_value()) {
    // Not PackFrom(): it would put "type.googleapis.com/" in front, and containerd compares the whole string.
    out.mutable_runtime()->mutable_options()->set_type_url(container.runtime_options->type_url);
    out.mutable_runtime()->mutable_options()->set_value(container.runtime_options->value);
  }
  out.mutable_spec()->set_type_url(kSpecTypeUrl);
  out.mutable_spec()->set_value(container.spec_json);
  wire::containers::CreateContainerResponse response;
  return impl_->unary(*impl_->containers, &wire::containers::Containers::Stub::Create, request, response, call,
                      "Containers.Create " + container.id);
}

base::Result<Container> Client::get_container(const std::string& id, const Call& call) {
  wire::containers::GetContainerRequest request;
  request.set_id(id);
  wire::containers::GetContainerResponse response;
  CR_CHECK(impl_->unary(*impl_->containers, &wire::containers::Containers::Stub::Get, request, response, call,
                        "Containers.Get " + id));
  return from_wire(response.container());
}

base::Result<std::vector<Container>> Client::list_containers(const Call& call) {
  wire::containers::ListContainersResponse response;
  CR_CHECK(impl_->unary(*impl_->containers, &wire::containers::Containers::Stub::List,
                        wire::containers::ListContainersRequest(), response, call, "Containers.List"));
  std::vector<Container> out;
  for (const auto& container : response.containers()) {
    out.push_back(from_wire(container));
  }
  return out;
}

base::Status Client::delete_container(const std::string& id, const Call& call) {
  wire::containers::DeleteContainerRequest request;
  request.set_id(id);
  google::protobuf::Empty response;
  auto deleted = impl_->unary(*impl_->containers, &wire::containers::Containers::Stub::Delete, request, response, call,
                              "Containers.Delete " + id);
  if (!deleted.ok() && deleted.error().code() == base::Errc::kNotFound) {
    return base::ok();
  }
  return deleted;
}

}  // namespace cellrund::containerd
