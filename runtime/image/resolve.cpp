#include "image/resolve.hpp"

#include <algorithm>

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;

// What OCI runtimes and shells assume; without it no plain command name could be found.
constexpr std::string_view kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

void set(model::StringMap& into, const std::string& name, const std::string& value) {
  const auto known = std::find_if(into.begin(), into.end(), [&](const auto& pair) { return pair.first == name; });
  if (known != into.end()) {
    known->second = value;
  } else {
    into.emplace_back(name, value);
  }
}

}  // namespace

Result<ResolvedProcess> resolve_process(const model::ImageConfig& image, const model::Container& container) {
  ResolvedProcess out;
  out.args = container.command.value_or(image.entrypoint);
  const std::vector<std::string> rest = container.args.has_value()
                                            ? *container.args
                                            : (container.command.has_value() ? std::vector<std::string>{} : image.cmd);
  out.args.insert(out.args.end(), rest.begin(), rest.end());
  if (out.args.empty() || out.args.front().empty()) {
    return Error(Errc::kInvalidArgument, "neither the job nor the image names a command");
  }
  model::StringMap env = image.env;
  for (const auto& [name, value] : container.env) {
    set(env, name, value);
  }
  if (std::none_of(env.begin(), env.end(), [](const auto& pair) { return pair.first == "PATH"; })) {
    env.emplace_back("PATH", kDefaultPath);
  }
  for (const auto& [name, value] : env) {
    out.env.push_back(name + "=" + value);
  }
  out.cwd =
      !container.working_dir.empty() ? container.working_dir : (!image.working_dir.empty() ? image.working_dir : "/");
  if (out.cwd.front() != '/') {
    return Error(Errc::kInvalidArgument, "the working directory is not absolute");
  }
  return out;
}

}  // namespace cellrund::image
