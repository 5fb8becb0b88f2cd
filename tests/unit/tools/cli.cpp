// The command line without a daemon: parsing, errors, formats, exit codes.
#include "command.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "base/fd.hpp"
#include "base/file.hpp"

using namespace cellrund;

namespace {

struct Ran {
  int exit_code = 0;
  std::string out, err;
};

// Runs a command line with stdout and stderr captured in files.
Ran run(const std::vector<std::string>& words, std::vector<std::string> environment = {}) {
  environment.emplace_back("CELLRUN_PATHS_RUN=/tmp/cellrun-no-daemon-here");
  std::array<std::string, 2> paths = {"/tmp/cellrun-cli-XXXXXX", "/tmp/cellrun-cli-XXXXXX"};
  std::array<int, 2> saved{};
  for (int i = 0; i < 2; ++i) {
    const base::UniqueFd file(::mkostemp(paths[i].data(), O_CLOEXEC));
    saved[i] = ::fcntl(i + 1, F_DUPFD_CLOEXEC, 10);
    REQUIRE(::dup2(file.get(), i + 1) == i + 1);
  }
  Ran ran;
  ran.exit_code = cli::run_cli(words, environment);
  for (int i = 0; i < 2; ++i) {
    REQUIRE(::dup2(saved[i], i + 1) == i + 1);
    REQUIRE(::close(saved[i]) == 0);
    (i == 0 ? ran.out : ran.err) = base::read_file(paths[i], std::size_t{1} << 20U).value();
    REQUIRE(base::remove_file(paths[i]).ok());
  }
  return ran;
}

class Folder {
 public:
  Folder() {
    std::string pattern = "/tmp/cellrun-cli-dir-XXXXXX";
    CR_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Folder() {
    if (const auto names = base::list_dir(path_, 100); names.ok()) {
      for (const std::string& name : *names) {
        (void)base::remove_file(path_ + "/" + name);
      }
    }
    (void)base::remove_dir(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] std::string write(const std::string& name, const std::string& content) const {
    CR_ASSERT(base::write_file_atomic(file(name), content, 0600).ok());
    return file(name);
  }

 private:
  std::string path_;
};

const std::string kSpec = R"({"apiVersion": "cellrun.dev/v1", "kind": "Job",
 "metadata": {"name": "hello", "uid": "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11", "namespace": "demo",
   "issuedAt": "2026-11-21T10:00:00Z", "expiresAt": "2026-11-21T11:00:00Z"},
 "spec": {"container": {"image": "registry.example/x@sha256:0000000000000000000000000000000000000000000000000000000000000000"},
   "resources": {"limits": {"cpu": "1", "memory": "128Mi", "pids": 64}}, "activeDeadlineSeconds": 60}})";

}  // namespace

TEST_CASE("egress explain answers from a bare jobspec, and refuses what is no target") {
  const std::string path = "/tmp/cellrun-cli-explain-" + std::to_string(::getpid()) + ".json";
  const std::string spec = R"({"apiVersion":"cellrun.dev/v1","kind":"Job","metadata":{"name":"m","uid":"0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11","namespace":"n",
    "issuedAt":"2026-11-21T10:00:00Z","expiresAt":"2026-11-21T11:00:00Z"},"spec":{"container":{"image":"a@sha256:)" + std::string(64, 'a') +
    R"("},"resources":{"limits":{"cpu":"1","memory":"64Mi","pids":4}},"activeDeadlineSeconds":9,
    "network":{"egress":{"rules":[{"to":{"cidr":"203.0.113.0/24"},"ports":[443]}]}}}})";
  REQUIRE(base::write_file_atomic(path, spec, 0600).ok());
  Ran ran = run({"egress", "explain", path, "203.0.113.9:443"});
  CHECK(ran.exit_code == 0);
  CHECK(ran.out.starts_with("allowed: 203.0.113.9:443/tcp by spec.network.egress.rules[0]"));
  ran = run({"egress", "explain", path, "203.0.113.9:443/udp"});
  CHECK(ran.exit_code == 3);
  CHECK(ran.out.starts_with("denied: 203.0.113.9:443/udp: default-deny"));
  ran = run({"egress", "explain", path, "169.254.169.254:443", "--json"});
  CHECK(ran.exit_code == 3);
  CHECK(ran.out.find("\"metadata\"") != std::string::npos);
  CHECK(run({"egress", "explain", path, "203.0.113.9"}).exit_code == 64);
  CHECK(run({"egress", "explain", path, "example.com:443"}).exit_code == 3);  // no rule names it
  CHECK(run({"egress", "explain", path, "example:443"}).exit_code == 64);
  REQUIRE(base::remove_file(path).ok());
}

TEST_CASE("a typing error names what was probably meant, and leaves with 64") {
  struct Case {
    std::vector<std::string> words;
    std::string err;
  };
  const std::vector<Case> cases = {
      {{"sumbit"}, "cellrun: unknown command sumbit (InvalidArgument)\nhint: did you mean submit?\n"},
      {{"frobnicate"}, "cellrun: unknown command frobnicate (InvalidArgument)\nhint: cellrun help lists the commands\n"},
      {{"quarantine", "engage"}, "cellrun: unknown command quarantine (InvalidArgument)\nhint: cellrun help lists the commands\n"},
      {{"evidence", "shwo"}, "cellrun: unknown command evidence shwo (InvalidArgument)\nhint: did you mean evidence show?\n"},
      {{"config"}, "cellrun: config needs a command (InvalidArgument)\nhint: one of: default, dump, validate, sources\n"},
      {{"ps", "--al"}, "cellrun: ps: unknown flag --al (InvalidArgument)\nhint: did you mean --all?\n"},
      {{"ps", "-x"}, "cellrun: ps: unknown flag -x (InvalidArgument)\nhint: --help lists the flags\n"},
      {{"ps", "now"}, "cellrun: ps: too many arguments (InvalidArgument)\nhint: cellrun ps [-a]\n"},
      {{"inspect"}, "cellrun: inspect: an argument is missing (InvalidArgument)\nhint: cellrun inspect JOB\n"},
      {{"ps", "-a", "--all"}, "cellrun: ps: --all is given twice (InvalidArgument)\nhint: give it once\n"},
      {{"ps", "--all=yes"}, "cellrun: ps: --all takes no value (InvalidArgument)\nhint: write --all alone\n"},
      {{"sign", "f", "--key"}, "cellrun: sign: --key needs a value (InvalidArgument)\nhint: --key FILE\n"},
      {{"ps", "-o", "yaml"}, "cellrun: output format yaml is unknown (InvalidArgument)\nhint: -o table, wide, json or jsonl\n"},
      {{"ps", "--json", "-o", "wide"}, "cellrun: --json and -o wide contradict each other (InvalidArgument)\nhint: give one of them\n"},
      {{"--jsn", "ps"}, "cellrun: unknown flag --jsn before a command (InvalidArgument)\nhint: cellrun help\n"},
      {{"-o", "wide", "ps", "now"}, "cellrun: ps: too many arguments (InvalidArgument)\nhint: cellrun ps [-a]\n"},
      {{"--socket", "/x"}, "cellrun: a command is missing (InvalidArgument)\nhint: cellrun help lists the commands\n"},
      {{"completion", "tcsh"}, "cellrun: completion: shell tcsh is unknown (InvalidArgument)\nhint: bash, zsh or fish\n"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.words.front());
    const Ran ran = run(c.words);
    CHECK(ran.exit_code == 64);
    CHECK(ran.out.empty());
    if (c.words[0] != "--json" && (c.words.size() < 2 || c.words[1] != "--json")) {
      CHECK(ran.err == c.err);
    }
  }
}

TEST_CASE("an error in JSON mode is one object with every field") {
  const Ran ran = run({"inspect", "--json"});
  CHECK(ran.exit_code == 64);
  CHECK(ran.out.empty());
  CHECK(ran.err == "{\"code\":\"InvalidArgument\",\"reason\":\"\",\"message\":\"inspect: an argument is missing\","
                   "\"hint\":\"cellrun inspect JOB\",\"retryable\":false,\"field\":\"\",\"uid\":\"\"}\n");
}

TEST_CASE("without a daemon the exit code is 69 and the message names the socket") {
  for (const char* command : {"ps", "capacity"}) {
    const Ran ran = run({command});
    CHECK(ran.exit_code == 69);
    CHECK(ran.err.starts_with("cellrun: cellrund is not running at /tmp/cellrun-no-daemon-here/cellrund.sock (Unavailable)\nhint: "));
  }
  const Ran drain = run({"drain"});
  CHECK(drain.exit_code == 69);
  CHECK(drain.err.find("/tmp/cellrun-no-daemon-here/admin.sock") != std::string::npos);
  const Ran flag = run({"ps", "--socket", "/tmp/cellrun-none.sock"});
  CHECK(flag.err.find("/tmp/cellrun-none.sock") != std::string::npos);
}

TEST_CASE("the environment sets format and configuration, and a flag beats it") {
  const Folder folder;
  const std::string config = folder.write("config.toml", "[paths]\nsocket = \"/tmp/cellrun-from-config.sock\"\n");
  const Ran from_environment = run({"ps"}, {"CELLRUN_CONFIG=" + config, "CELLRUN_OUTPUT=json"});
  CHECK(from_environment.err.starts_with("{\"code\":\"Unavailable\""));
  CHECK(from_environment.err.find("/tmp/cellrun-from-config.sock") != std::string::npos);
  const Ran flag = run({"ps", "-o", "table"}, {"CELLRUN_CONFIG=" + config, "CELLRUN_OUTPUT=json"});
  CHECK(flag.err.starts_with("cellrun: "));
  const Ran missing = run({"config", "dump", "--config", folder.file("none.toml")});
  CHECK(missing.exit_code == 125);
  CHECK(missing.err.find("none.toml") != std::string::npos);
}

TEST_CASE("lint and sign refuse what a node would refuse, with its field") {
  const Folder folder;
  const std::string good = folder.write("job.json", kSpec);
  CHECK(run({"lint", good}).out == "ok: demo/hello 0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11\n");
  std::string text = kSpec;
  text.replace(text.find("128Mi"), 5, "lots!");
  const std::string bad = folder.write("bad.json", text);
  const Ran lint = run({"lint", bad});
  CHECK(lint.exit_code == 65);
  CHECK(lint.err.find("spec.resources.limits.memory") != std::string::npos);
  CHECK(lint.err.find("(SchemaInvalid)") != std::string::npos);
  CHECK(run({"lint", bad, "--json"}).err.find("\"field\":\"spec.resources.limits.memory\"") != std::string::npos);
  CHECK(run({"keygen", folder.file("k")}).exit_code == 0);
  CHECK(run({"sign", bad, "--key", folder.file("k.key")}).exit_code == 65);
}

TEST_CASE("keygen makes a pair once, and sign makes an envelope that submit takes without a key") {
  const Folder folder;
  const Ran made = run({"keygen", folder.file("k")});
  REQUIRE(made.exit_code == 0);
  CHECK(made.out.starts_with(folder.file("k.key") + "\n" + folder.file("k.pub") + "\nkey id "));
  struct stat st {};
  REQUIRE(::stat(folder.file("k.key").c_str(), &st) == 0);
  CHECK((st.st_mode & 07777U) == 0600U);
  const Ran again = run({"keygen", folder.file("k")});
  CHECK(again.exit_code == 125);
  CHECK(again.err.find("exists already (AlreadyExists)") != std::string::npos);

  const std::string spec = folder.write("job.json", kSpec);
  const Ran signed_spec = run({"sign", spec, "--key", folder.file("k.key")});
  REQUIRE(signed_spec.exit_code == 0);
  CHECK(signed_spec.out.find("\"payloadType\":\"application/vnd.cellrun.jobspec.v1+json\"") != std::string::npos);
  const std::string envelope = folder.write("job.dsse", signed_spec.out);
  CHECK(run({"submit", envelope}).exit_code == 69);
  CHECK(run({"submit", envelope, "--key", folder.file("k.key")}).exit_code == 64);
  CHECK(run({"submit", spec, "--key", folder.file("k.key")}).exit_code == 69);
  const Ran unsigned_spec = run({"submit", spec});
  CHECK(unsigned_spec.exit_code == 64);
  CHECK(unsigned_spec.err.find("--key KEY signs it first") != std::string::npos);
  CHECK(run({"sign", spec, "--key", folder.file("k.pub")}).exit_code == 125);
}

TEST_CASE("keygen --uuid prints a UUIDv7") {
  const Ran ran = run({"keygen", "--uuid"});
  REQUIRE(ran.out.size() == 37);
  CHECK(ran.out[14] == '7');
  CHECK(run({"keygen"}).exit_code == 64);
  CHECK(run({"keygen", "x", "--algorithm", "rsa"}).exit_code == 64);
}

TEST_CASE("the configuration prints, validates, and names its sources") {
  const Folder folder;
  const std::string good = folder.write("config.toml", "[lanes]\naccel = \"tcg\"\n");
  CHECK(run({"config", "validate", "--config", good}).exit_code == 0);
  CHECK(run({"config", "dump", "--config", good}).out.find("accel = \"tcg\"") != std::string::npos);
  const Ran sources = run({"config", "sources", "--config", good});
  CHECK(sources.out.find("lanes.accel") != std::string::npos);
  CHECK(sources.out.find(good + ":2") != std::string::npos);
  const std::string bad = folder.write("bad.toml", "[lanes]\nacel = \"tcg\"\n");
  const Ran invalid = run({"config", "validate", "--config", bad});
  CHECK(invalid.exit_code == 1);
  CHECK(invalid.err.find(bad + ":2: lanes.acel: unknown key (InvalidArgument)") != std::string::npos);
  CHECK(run({"ps", "--config", bad}).exit_code == 125);
}

TEST_CASE("verifying evidence needs neither daemon nor configuration, and says when it could not look") {
  const Folder folder;
  REQUIRE(run({"keygen", folder.file("node")}).exit_code == 0);
  const std::string garbage = folder.write("e.json", "{}");
  const std::string bad_config = folder.write("bad.toml", "nonsense");
  CHECK(run({"evidence", "verify", garbage, "--key", folder.file("node.pub"), "--config", bad_config}).exit_code == 3);
  CHECK(run({"evidence", "verify", folder.file("none.json"), "--key", folder.file("node.pub")}).exit_code == 4);
  CHECK(run({"evidence", "verify", garbage, "--key", folder.file("none.pub")}).exit_code == 4);
}

TEST_CASE("help knows every command, and completion offers what the table lists") {
  const Ran overview = run({"help"});
  const Ran bash = run({"completion", "bash"});
  CHECK(run({"completion", "fish"}).exit_code == 0);
  CHECK(run({"completion", "zsh"}).out.starts_with("#compdef cellrun\n"));
  for (const cli::Command& command : cli::commands()) {
    CAPTURE(command.name);
    CHECK(overview.out.find("\n  " + std::string(command.name) + " ") != std::string::npos);
    CHECK(bash.out.find("'" + std::string(command.name)) != std::string::npos);
    std::vector<std::string> words = {std::string(command.name)};
    if (const std::size_t space = words[0].find(' '); space != std::string::npos) {
      words = {words[0].substr(0, space), words[0].substr(space + 1)};
    }
    words.emplace_back("--help");
    const Ran help = run(words);
    CHECK(help.exit_code == 0);
    CHECK(help.out.starts_with("usage: cellrun " + std::string(command.name)));
  }
  CHECK(run({"help", "exit-codes"}).out.starts_with("Exit codes of submit and wait:\n"));
  CHECK(run({"help", "sumbit"}).err.find("did you mean submit?") != std::string::npos);
  CHECK(run({}).exit_code == 64);
  CHECK(run({"--help"}).out == overview.out);
}
