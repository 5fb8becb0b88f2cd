#include "daemon/config.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <string>

#include "base/file.hpp"

using namespace cellrund;
using daemon::ConfigInput;
using daemon::load_config;

namespace {

// A folder like /etc/cellrun.
class Etc {
 public:
  Etc() {
    std::string pattern = "/tmp/cellrun-config-XXXXXX";
    CR_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Etc() {
    for (const std::string& folder : {path_ + "/config.d", path_}) {
      if (const auto names = base::list_dir(folder, 100); names.ok()) {
        for (const std::string& name : *names) {
          (void)base::remove_file(folder + "/" + name);
        }
      }
      (void)base::remove_dir(folder);
    }
  }
  Etc(const Etc&) = delete;
  Etc& operator=(const Etc&) = delete;
  Etc(Etc&&) = delete;
  Etc& operator=(Etc&&) = delete;

  void write(const std::string& name, const std::string& content, unsigned mode = 0644) const {
    CR_ASSERT(base::make_dir(path_ + "/config.d", 0755).ok());
    CR_ASSERT(base::write_file_atomic(path_ + "/" + name, content, mode).ok());
  }
  [[nodiscard]] ConfigInput input(std::vector<std::string> environment = {}) const {
    return {path_ + "/config.toml", true, std::move(environment)};
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The error for one bad file, without the folder in front.
std::string error_of(const std::string& content) {
  const Etc etc;
  etc.write("config.toml", content);
  const auto loaded = load_config(etc.input());
  return loaded.ok() ? "" : loaded.error().message().substr(etc.path().size() + 1);
}

}  // namespace

TEST_CASE("without a file everything is built in and the derived paths are filled in") {
  const Etc etc;
  ConfigInput input = etc.input();
  input.file_must_exist = false;
  const auto loaded = load_config(input).value();
  CHECK_FALSE(loaded.config.node.id.empty());
  CHECK(loaded.config.paths.socket == "/run/cellrun/cellrund.sock");
  CHECK(loaded.config.containerd.root == "/var/lib/cellrun/containerd");
  CHECK_FALSE(loaded.config.lanes.allow_emulated_tier2);
  for (const auto& source : loaded.sources) {
    CHECK(source.source == "built in");
  }
}

TEST_CASE("the environment beats config.d, which beats the file, and each value knows its source") {
  const Etc etc;
  etc.write("config.toml", "[node]\nid = \"a\"\n[paths]\nrun = \"/run/one\"\nstate = \"/one\"\n[capacity]\ncells = 1\n");
  etc.write("config.d/20.toml", "[paths]\nstate = \"/three\"\n");
  etc.write("config.d/10.toml", "[paths]\nstate = \"/two\"\n[capacity]\ncells = 2\n");
  etc.write("config.d/ignored.bak", "nonsense");
  const auto loaded =
      load_config(etc.input({"CELLRUN_CAPACITY_CELLS=3", "CELLRUN_NODE_POOLS=x,y", "CELLRUN_OUTPUT=json", "HOME=/"})).value();
  CHECK(loaded.config.paths.state == "/three");
  CHECK(loaded.config.paths.socket == "/run/one/cellrund.sock");
  CHECK(loaded.config.capacity.cells == 3);
  CHECK(loaded.config.node.pools == std::vector<std::string>{"x", "y"});
  for (const auto& source : loaded.sources) {
    if (source.key == "paths.state") {
      CHECK(source.source == etc.path() + "/config.d/20.toml:2");
      CHECK(source.value == "\"/three\"");
    } else if (source.key == "capacity.cells") {
      CHECK(source.source == "environment variable CELLRUN_CAPACITY_CELLS");
    } else if (source.key == "node.id") {
      CHECK(source.source == etc.path() + "/config.toml:2");
    }
  }
}

TEST_CASE("a wrong file is refused with its line") {
  CHECK(error_of("[paths]\nstat = \"/x\"\n") == "config.toml:2: paths.stat: unknown key");
  CHECK(error_of("\n[path]\n") == "config.toml:2: path: unknown key");
  CHECK(error_of("paths = 1\n") == "config.toml:1: paths: must be a table");
  CHECK(error_of("[capacity]\ncells = \"4\"\n") == "config.toml:2: capacity.cells: must be an integer");
  CHECK(error_of("[capacity]\ncells = -1\n") == "config.toml:2: capacity.cells: must be from 0 to 46656");
  CHECK(error_of("[paths]\nstate = \"relative\"\n").find("must be an absolute path") != std::string::npos);
  CHECK(error_of("[paths]\nstate = \"/a/../b\"\n").find("must be an absolute path") != std::string::npos);
  CHECK(error_of("[lanes]\naccel = \"hvf\"\n") == "config.toml:2: lanes.accel: must be one of auto, kvm, tcg");
  CHECK(error_of("[lanes]\nenabled = [\"microvm\", \"runc\"]\n") ==
        "config.toml:2: lanes.enabled: entry 2 must be one of microvm, process");
  // What nothing would act on is an error, not a wish.
  CHECK(error_of("[network]\ndns_upstream = [\"192.0.2.53\"]\n").empty());
  CHECK(error_of("[network]\ndns_upstream = [\"dns.example.com\"]\n").find("must be an IPv4 address") != std::string::npos);
  CHECK(error_of("[network]\ndns_upstream = [\"127.0.0.53\"]\n").find("must not be a loopback address") != std::string::npos);
  for (const char* name : {"", "all", "default", "lo", "..", "a name", "eth0/forwarding", "sixteen-letters.", "eth0\\\"; x"}) {
    CAPTURE(name);
    CHECK(error_of(std::string("[network]\nuplink = \"") + name + "\"\n") ==
          "config.toml:2: network.uplink: must be \"none\" or the name of a network interface");
  }
  CHECK(error_of("[network]\nuplink = \"eth0.100\"\n").empty());
  CHECK(error_of("[network]\nuplink = \"none\"\ndns_upstream = []\n").empty());
  CHECK(error_of("[node]\nid = \"a b\"\n").find("letters, digits") != std::string::npos);
  CHECK(error_of("[lanes]\nallow_emulated_tier2 = 1\n").find("must be true or false") != std::string::npos);
  CHECK(error_of("[lanes\n").find("config.toml:1: ") == 0);
  CHECK(error_of("[node]\nid = \"a\"\nid = \"b\"\n").find("config.toml:3: ") == 0);
}

TEST_CASE("values that only together are wrong are refused") {
  const Etc etc;
  const auto error = [&etc](const std::string& content) {
    etc.write("config.toml", content);
    const auto loaded = load_config(etc.input());
    return loaded.ok() ? std::string() : loaded.error().message();
  };
  CHECK(error("[paths]\nsocket = \"/a\"\nadmin_socket = \"/a\"\n") == "paths.admin_socket: must differ from paths.socket");
  CHECK(error("[paths]\nrun = \"/" + std::string(100, 'x') + "\"\n").find("too long for a Unix socket") != std::string::npos);
  CHECK(error("[lanes]\nuid_base = 60000\nuid_count = 10000\n").find("nobody") != std::string::npos);
  CHECK(error("[lanes]\nuid_count = 4\n[capacity]\ncells = 5\n").find("more cells") != std::string::npos);
  std::string many;
  for (int i = 0; i < 9; ++i) {
    many += "\"192.0.2.53\", ";
  }
  CHECK(error("[network]\ndns_upstream = [" + many + "]\n") == "network.dns_upstream: at most 8 name servers");
  CHECK(error("[paths]\ntrust = \"\"\n") == "paths.trust: must not be empty");
}

TEST_CASE("a bad environment variable is refused") {
  const Etc etc;
  etc.write("config.toml", "");
  CHECK(load_config(etc.input({"CELLRUN_CAPACITY_CELLS=many"})).error().message() ==
        "environment variable CELLRUN_CAPACITY_CELLS: must be an integer");
  CHECK(load_config(etc.input({"CELLRUN_CAPACITY_CELLS=4x"})).error().message() ==
        "environment variable CELLRUN_CAPACITY_CELLS: must be an integer");
}

TEST_CASE("a file that others can write is not trusted") {
  const Etc etc;
  etc.write("config.toml", "", 0664);
  CHECK(load_config(etc.input()).error().code() == base::Errc::kPermissionDenied);
}

TEST_CASE("a dump reads back to the same configuration and the same digest") {
  const Etc etc;
  etc.write("config.toml", "[node]\nid = \"n1\"\nfleet = \"f\"\npools = [\"a\", \"b\"]\n[lanes]\naccel = \"tcg\"\n");
  const auto first = load_config(etc.input()).value();
  etc.write("config.toml", daemon::dump_config(first.config));
  const auto second = load_config(etc.input()).value();
  CHECK(daemon::dump_config(second.config) == daemon::dump_config(first.config));
  CHECK(daemon::config_digest(second.config) == daemon::config_digest(first.config));
  CHECK(daemon::config_digest(first.config).starts_with("sha256:"));
}

TEST_CASE("the printed default is a valid configuration") {
  const Etc etc;
  etc.write("config.toml", daemon::default_config_text());
  const auto loaded = load_config(etc.input());
  CHECK_MESSAGE(loaded.ok(), (loaded.ok() ? "" : loaded.error().message()));
}
