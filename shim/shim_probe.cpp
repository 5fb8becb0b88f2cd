#include "shim/shim_probe.hpp"

#include <unistd.h>

#include "base/file.hpp"
#include "base/json.hpp"
#include "containerd_shim.pb.h"
#include "shim/accel.hpp"
#include "shim/config.hpp"

namespace cellrund::shim {

using base::Status;

Status run_probe(const CommandLine& line) {
  const Config config = CR_TRY(load_config(line.config));
  const AccelAnswer answer = CR_TRY(probe_accel(config));
  const base::json::Object value{
      {"accel", std::string(to_string(answer.accel))}, {"why", answer.why}, {"tscKhz", answer.tsc_khz}};
  return base::write_all(STDOUT_FILENO, base::as_bytes(base::json::write(value) + "\n"));
}

Status print_version() {
  return base::write_all(STDOUT_FILENO, base::as_bytes("containerd-shim-cellrun-v2 " CELLRUN_VERSION "\n"));
}

Status print_info() {
  shimapi::RuntimeInfo info;
  info.set_name("io.containerd.cellrun.v2");
  info.mutable_version()->set_version(CELLRUN_VERSION);
  return base::write_all(STDOUT_FILENO, base::as_bytes(info.SerializeAsString()));
}

}  // namespace cellrund::shim
