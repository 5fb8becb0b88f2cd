#include "image/oci.hpp"

#include <doctest/doctest.h>

#include "image/resolve.hpp"
#include "image/unpack/request.hpp"

using namespace cellrund;
using namespace cellrund::image;

namespace {

const std::string kDigest = "sha256:" + std::string(64, 'a');

std::string replace(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

const std::string kManifest =
    R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","unknown":{"x":[1,null]},)"
    R"("config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":")" +
    kDigest +
    R"(","size":10},)"
    R"("layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":")" +
    kDigest + R"(","size":20}]})";

const std::string kConfig =
    R"({"created":"2026-01-01T00:00:00Z","os":"linux","architecture":"amd64","config":{"Entrypoint":null,"Cmd":["/bin/sh"],)"
    R"("Env":["A=1","B=x=y","A=2"],"WorkingDir":"/w","User":"1000"},"rootfs":{"type":"layers","diff_ids":[")" +
    kDigest + R"("]}})";

}  // namespace

TEST_CASE("a manifest is read, unknown fields and all") {
  const auto manifest = parse_manifest(kManifest);
  REQUIRE(manifest.ok());
  CHECK(manifest->config.digest == kDigest);
  REQUIRE(manifest->layers.size() == 1);
  CHECK(manifest->layers[0].blob.size == 20);
  CHECK(manifest->layers[0].compression == LayerCompression::kGzip);
  CHECK(parse_manifest(replace(replace(replace(kManifest, "oci.image.manifest.v1", "docker.distribution.manifest.v2"),
                                       "oci.image.config.v1", "docker.container.image.v1"),
                               "oci.image.layer.v1.tar+gzip", "docker.image.rootfs.diff.tar.gzip"))
            .ok());
}

TEST_CASE("manifests that are wrong or ambiguous are refused") {
  const std::vector<std::string> rows{
      "",
      "[]",
      "{}",
      replace(kManifest, R"("schemaVersion":2)", R"("schemaVersion":1)"),
      replace(kManifest, R"("schemaVersion":2)", R"("schemaVersion":"2")"),
      replace(kManifest, R"("schemaVersion":2)", R"("schemaVersion":2,"manifests":[])"),
      replace(kManifest, R"("schemaVersion":2)", R"("schemaVersion":2,"schemaVersion":2)"),
      replace(kManifest, "image.manifest.v1+json", "image.index.v1+json"),
      replace(kManifest, "oci.image.manifest.v1+json", "else"),
      replace(kManifest, "oci.image.config.v1+json", "oci.empty.v1+json"),
      replace(kManifest, "oci.image.layer.v1.tar+gzip", "oci.image.layer.nondistributable.v1.tar+gzip"),
      replace(kManifest, "oci.image.layer.v1.tar+gzip", "docker.image.rootfs.foreign.diff.tar.gzip"),
      replace(kManifest, "layer.v1.tar+gzip", "layer.v1.tar+bzip2"),
      replace(kManifest, R"("size":20)", R"("size":20,"urls":["http://169.254.169.254/"])"),
      replace(kManifest, R"("size":20)", R"("size":-20)"),
      replace(kManifest, R"("size":20)", R"("size":0)"),
      replace(kManifest, R"("size":20)", R"("size":99999999999999)"),
      replace(kManifest, R"("size":20)", R"("size":"20")"),
      replace(kManifest, R"("size":10)", R"("size":10000000)"),
      replace(kManifest, kDigest, "sha256:" + std::string(64, 'A')),
      replace(kManifest, kDigest, "sha512:" + std::string(128, 'a')),
      replace(kManifest, kDigest, "sha256:../../../../etc/passwd"),
      replace(kManifest, R"("layers":[)", R"("layers":[],"other":[)"),
      replace(kManifest, R"("layers":[)", R"("layers":null,"other":[)"),
      replace(kManifest, R"("layers":[)", R"("layers":[null,)"),
      replace(kManifest, R"("config":{)", R"("config":[],"other":{)"),
      kManifest + "x",
      kManifest.substr(0, kManifest.size() / 2),
  };
  for (const std::string& row : rows) {
    CAPTURE(row);
    CHECK_FALSE(parse_manifest(row).ok());
  }
  std::string many =
      R"({"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":")" + kDigest +
      R"(","size":1},"layers":[)";
  for (int i = 0; i < 200; ++i) {
    many += std::string(i == 0 ? "" : ",") + R"({"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":")" +
            kDigest + R"(","size":1})";
  }
  CHECK_FALSE(parse_manifest(many + "]}").ok());
  CHECK_FALSE(parse_manifest(std::string(100000, '[')).ok());
}

TEST_CASE("an index gives platforms and names, the full name before the mere tag") {
  const auto index = parse_index(
      R"({"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":")" +
      kDigest +
      R"(","size":5,"platform":{"os":"linux","architecture":"amd64"},"annotations":{"org.opencontainers.image.ref.name":"latest","io.containerd.image.name":"docker.io/library/x:latest"}},)"
      R"({"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":")" +
      kDigest + R"(","size":5}]})");
  REQUIRE(index.ok());
  REQUIRE(index->size() == 2);
  CHECK((*index)[0].os == "linux");
  CHECK((*index)[0].name == "docker.io/library/x:latest");
  CHECK((*index)[1].name.empty());
  CHECK_FALSE(parse_index(kManifest).ok());
  CHECK_FALSE(parse_index(R"({"schemaVersion":2})").ok());
}

TEST_CASE("a config is read; null is absent and the last variable of a name wins") {
  const auto config = parse_config(kConfig);
  REQUIRE(config.ok());
  CHECK(config->process.entrypoint.empty());
  CHECK(config->process.cmd == std::vector<std::string>{"/bin/sh"});
  CHECK(config->process.env == model::StringMap{{"A", "2"}, {"B", "x=y"}});
  CHECK(config->diff_ids == std::vector<std::string>{kDigest});
  CHECK(parse_config(replace(kConfig, R"("config":)", R"("other":)")).ok());
}

TEST_CASE("configs that are wrong are refused") {
  for (const std::string& row : {
           std::string("{}"),
           replace(kConfig, R"("type":"layers")", R"("type":"disk")"),
           replace(kConfig, kDigest, "sha256:x"),
           replace(kConfig, R"("Cmd":["/bin/sh"])", R"("Cmd":"/bin/sh")"),
           replace(kConfig, R"("Cmd":["/bin/sh"])", R"("Cmd":[1])"),
           replace(kConfig, "A=1", "A"),
           replace(kConfig, "A=1", "=1"),
           replace(kConfig, R"("/w")", R"("w")"),
           replace(kConfig, "A=1", "A=\\u0000"),
           replace(kConfig, "A=1", "A=" + std::string(200000, 'x')),
       }) {
    CAPTURE(row.substr(0, 200));
    CHECK_FALSE(parse_config(row).ok());
  }
}

TEST_CASE("a name is cut down to its repository") {
  CHECK(repository_of("docker.io/library/busybox:latest").value() == "docker.io/library/busybox");
  CHECK(repository_of("localhost:5000/x").value() == "localhost:5000/x");
  CHECK(repository_of("localhost:5000/x:1@" + kDigest).value() == "localhost:5000/x");
  for (const char* bad : {"", ":tag", "@sha256:x", "a//b", "../x", "a b", "/abs", "x/", "a\nb", "\xc3\xa9", "Upper/case", "-a", "a/-b", "a___b"}) {
    CAPTURE(bad);
    CHECK_FALSE(repository_of(bad).ok());
  }
}

TEST_CASE("command and args follow Kubernetes' rules") {
  const model::ImageConfig image{
      .entrypoint = {"/entry"}, .cmd = {"cmd"}, .env = {{"A", "1"}, {"PATH", "/bin"}}, .working_dir = "/w"};
  using Strings = std::vector<std::string>;
  const auto args = [&](std::optional<Strings> command, std::optional<Strings> arguments) {
    model::Container container;
    container.command = std::move(command);
    container.args = std::move(arguments);
    const auto process = resolve_process(image, container);
    REQUIRE(process.ok());
    return process->args;
  };
  CHECK(args({}, {}) == Strings{"/entry", "cmd"});
  CHECK(args(Strings{"/own"}, {}) == Strings{"/own"});
  CHECK(args({}, Strings{"a", "b"}) == Strings{"/entry", "a", "b"});
  CHECK(args(Strings{"/own"}, Strings{"a"}) == Strings{"/own", "a"});
  CHECK(args({}, Strings{}) == Strings{"/entry"});
}

TEST_CASE("the job's environment and folder win, and there is always a PATH") {
  model::Container container;
  container.env = {{"A", "2"}, {"C", "3"}};
  const auto process = resolve_process({.entrypoint = {"x"}, .env = {{"A", "1"}, {"B", "1"}}}, container);
  REQUIRE(process.ok());
  CHECK(process->env == std::vector<std::string>{"A=2", "B=1", "C=3",
                                                 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"});
  CHECK(process->cwd == "/");
  container.working_dir = "/job";
  CHECK(resolve_process({.entrypoint = {"x"}, .working_dir = "/image"}, container)->cwd == "/job");
  CHECK_FALSE(resolve_process({}, container).ok());
  container.working_dir = "relative";
  CHECK_FALSE(resolve_process({.entrypoint = {"x"}}, container).ok());
}

TEST_CASE("request and answer of the unpacker survive the way there and back") {
  UnpackRequest request;
  request.layers = {{Compression::kGzip, kDigest, ""}, {Compression::kNone, kDigest, "task"}};
  request.inputs_of = UnpackRequest::Owner{4294967294U, 7};
  request.max_bytes = 1ULL << 40U;
  request.id_count = 65536;
  request.mkfs_program = "/usr/bin/mkfs.erofs";
  const auto back = parse_request(write_request(request));
  REQUIRE(back.ok());
  CHECK(back->layers.size() == 2);
  CHECK(back->layers[0].compression == Compression::kGzip);
  CHECK(back->layers[1].folder == "task");
  REQUIRE(back->inputs_of.has_value());
  CHECK(back->inputs_of->uid == 4294967294U);
  CHECK(back->inputs_of->gid == 7);
  CHECK(back->max_bytes == request.max_bytes);
  const auto answer = parse_answer(write_answer({UnpackVerdict::kMismatch, "why"}));
  REQUIRE(answer.ok());
  CHECK(answer->verdict == UnpackVerdict::kMismatch);
  CHECK(answer->message == "why");
  for (const char* bad : {"", "{}", R"({"verdict":"great","message":""})", R"({"verdict":"unpacked"})",
                          R"({"verdict":"unpacked","message":""}{"verdict":"unpacked","message":""})"}) {
    CHECK_FALSE(parse_answer(bad).ok());
  }
}
