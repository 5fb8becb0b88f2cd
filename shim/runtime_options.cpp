#include "shim/runtime_options.hpp"

#include "base/log.hpp"
#include "containerd_shim.pb.h"

namespace cellrund::shim {

using base::Errc;
using base::Error;
using base::Result;

Result<std::string> config_path_from_options(const std::string& type_url, const std::string& value) {
  if (type_url.empty() && value.empty()) {
    return std::string();
  }
  if (type_url != "runtimeoptions.v1.Options") {
    return Error(Errc::kUnimplemented, "runtime options: unknown type " + base::log::quoted(type_url));
  }
  shimapi::RuntimeOptions options;
  if (!options.ParseFromString(value)) {
    return Error(Errc::kInvalidArgument, "runtime options: malformed");
  }
  if (!options.config_body().empty()) {
    return Error(Errc::kUnimplemented, "runtime options: config_body is not supported, give config_path");
  }
  if (!options.config_path().empty() && options.config_path().front() != '/') {
    return Error(Errc::kInvalidArgument, "runtime options: config_path is not absolute");
  }
  return options.config_path();
}

Result<std::string> config_path_from_start_input(const std::string& input, std::string_view id,
                                                 std::string_view containerd_namespace) {
  shimapi::BootstrapParams params;
  if (params.ParseFromString(input) && params.instance_id() == id && params.namespace_() == containerd_namespace) {
    for (const shimapi::BootstrapExtension& extension : params.extensions()) {
      if (extension.value().type_url() == "runtimeoptions.v1.Options") {
        return config_path_from_options(extension.value().type_url(), extension.value().value());
      }
    }
    return std::string();
  }
  shimapi::Any any;
  if (!any.ParseFromString(input)) {
    return Error(Errc::kInvalidArgument, "standard input: neither runtime options nor bootstrap parameters");
  }
  return config_path_from_options(any.type_url(), any.value());
}

}  // namespace cellrund::shim
