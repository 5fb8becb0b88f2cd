#include "shim/command_line.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "containerd_shim.pb.h"
#include "shim/runtime_options.hpp"
#include "shim/shim_start.hpp"

using namespace cellrund;
using shim::Action;

namespace {

base::Result<shim::CommandLine> parse(std::vector<std::string> words) {
  std::vector<char*> args;
  words.insert(words.begin(), "containerd-shim-cellrun-v2");
  for (std::string& word : words) {
    args.push_back(word.data());
  }
  return shim::parse_command_line(args);
}

std::string options_any(const std::string& config_path) {
  shimapi::RuntimeOptions options;
  options.set_config_path(config_path);
  shimapi::Any any;
  any.set_type_url("runtimeoptions.v1.Options");
  any.set_value(options.SerializeAsString());
  return any.SerializeAsString();
}

}  // namespace

TEST_CASE("containerd's own words are understood") {
  const auto line = parse({"-namespace", "default", "-address", "/run/containerd/containerd.sock", "-publish-binary",
                           "/usr/bin/containerd", "-id", "t1", "-debug", "start"});
  REQUIRE(line.ok());
  CHECK(line->action == Action::kStart);
  CHECK(line->containerd_namespace == "default");
  CHECK(line->publish_binary == "/usr/bin/containerd");
  CHECK(line->id == "t1");
  CHECK(line->debug);
  const auto removal = parse({"--namespace=k8s.io", "-id=a.b-c_d", "-bundle", "/b", "delete"});
  REQUIRE(removal.ok());
  CHECK(removal->bundle == "/b");
  CHECK(parse({"-v"})->action == Action::kVersion);
  CHECK(parse({"probe", "--config", "/c"})->config == "/c");
}

TEST_CASE("words that are not understood, and ids that would be paths, are refused") {
  const std::vector<std::vector<std::string>> wrong{
      {},
      {"start"},
      {"-id", "t1", "start"},
      {"-id", "../x", "-namespace", "n", "start"},
      {"-id", "a/b", "-namespace", "n", "start"},
      {"-id", std::string(77, 'a'), "-namespace", "n", "start"},
      {"-id", "t1", "-namespace", "n", "restart"},
      {"-id", "t1", "-namespace", "n", "start", "delete"},
      {"-id", "t1", "-namespace", "n", "-unheard-of", "start"},
      {"-id", "t1", "start", "-namespace"},
  };
  for (const auto& words : wrong) {
    CHECK_FALSE(parse(words).ok());
  }
}

TEST_CASE("the socket is where containerd's own formula puts it") {
  // printf /run/containerd/containerd.sock/default/t1 | sha256sum
  CHECK(shim::socket_path_of("/run/containerd/containerd.sock", "default", "t1") ==
        "/run/containerd/s/df6a0c5cd2e9a1a16d9a3f2447365d9fc6021bc1d3d9a4caa2f5b2c4f773758f");
}

TEST_CASE("the configuration path is found in either shape of standard input") {
  CHECK(*shim::config_path_from_start_input("", "t1", "default") == "");
  CHECK(*shim::config_path_from_start_input(options_any("/etc/x.toml"), "t1", "default") == "/etc/x.toml");

  shimapi::BootstrapParams params;
  params.set_instance_id("t1");
  params.set_namespace_("default");
  CHECK(*shim::config_path_from_start_input(params.SerializeAsString(), "t1", "default") == "");
  REQUIRE(params.add_extensions()->mutable_value()->ParseFromString(options_any("/etc/y.toml")));
  CHECK(*shim::config_path_from_start_input(params.SerializeAsString(), "t1", "default") == "/etc/y.toml");
  // For another task they are no parameters, but options of a type that is not known here.
  CHECK_FALSE(shim::config_path_from_start_input(params.SerializeAsString(), "t2", "default").ok());
  CHECK_FALSE(shim::config_path_from_start_input(options_any("relative.toml"), "t1", "default").ok());
  CHECK_FALSE(shim::config_path_from_start_input("\xff\xff\xff", "t1", "default").ok());
}
