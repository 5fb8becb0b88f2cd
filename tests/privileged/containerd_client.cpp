// The client against a real containerd with runc, kept by a real keeper. Needs root, containerd, runc and busybox.
#define DOCTEST_CONFIG_IMPLEMENT
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <mutex>

#include "base/guarded.hpp"
#include "base/hex.hpp"
#include "containerd_fixture.hpp"
#include "crypto/digest.hpp"

using namespace cellrund;
using namespace cellrund::test;
using containerd::Client;

namespace {

std::string digest_of(std::string_view bytes) {
  return crypto::digest_text(base::as_bytes(bytes));
}

containerd::BlobReader reader_of(const std::string& bytes, std::uint64_t* lowest_offset = nullptr,
                                 std::uint64_t fail_at = ~0ULL) {
  return
      [&bytes, lowest_offset, fail_at](std::uint64_t offset, std::span<std::uint8_t> out) -> base::Result<std::size_t> {
        if (lowest_offset != nullptr) {
          *lowest_offset = std::min(*lowest_offset, offset);
        }
        if (offset >= fail_at) {
          return base::Error(base::Errc::kDataLoss, "the source broke");
        }
        const std::size_t n = std::min<std::size_t>(out.size(), bytes.size() - offset);
        std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), n, out.begin());
        return n;
      };
}

// A runc container whose first process is `busybox sh -c script`.
struct Box {
  Box(Node& owner, const std::string& name, const std::string& script) : node(owner), id(name) {
    const std::string rootfs = node.dir + "/rootfs-" + id;
    std::filesystem::create_directories(rootfs + "/bin");
    std::filesystem::create_directories(rootfs + "/proc");
    std::filesystem::create_directories(rootfs + "/dev");
    std::filesystem::copy_file("/bin/busybox", rootfs + "/bin/busybox");
    out_path = node.dir + "/" + id + ".out";
    REQUIRE(::mkfifo(out_path.c_str(), 0600) == 0);
    out = base::UniqueFd(::open(out_path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    containerd::Container container;
    container.id = id;
    container.labels = {{"cellrun.dev/test", "yes"}};
    container.runtime = "io.containerd.runc.v2";
    const std::string runc_root = node.dir + "/runc";
    // containerd.runc.v1.Options.root = 7: runc's state goes below our folder and not to /run/containerd/runc.
    container.runtime_options = containerd::Any{
        "containerd.runc.v1.Options", "\x3a" + std::string(1, static_cast<char>(runc_root.size())) + runc_root};
    container.spec_json =
        R"({"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["/bin/busybox","sh","-c",")" + script +
        R"("],"cwd":"/","noNewPrivileges":true},"root":{"path":"rootfs","readonly":true},)" +
        R"("mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs"}],"linux":{"cgroupsPath":"/)" +
        std::filesystem::path(node.dir).filename().string() + "-" + id +
        R"(","namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network"}]}})";
    const auto created = node.client->create_container(container, in(10s));
    REQUIRE_MESSAGE(created.ok(), why(created));
    const auto task =
        node.client->create_task(id, {{"bind", rootfs, {"rbind", "ro"}}}, {"", out_path, out_path}, in(30s));
    REQUIRE_MESSAGE(task.ok(), why(task));
    pid = *task;
  }
  Box(const Box&) = delete;
  Box& operator=(const Box&) = delete;
  ~Box() {
    (void)node.client->kill_task(id, SIGKILL, in(10s));
    (void)node.client->wait_task(id, in(10s));
    const auto deleted = node.client->delete_task(id, in(60s));
    CHECK_MESSAGE(deleted.ok(), why(deleted));
    CHECK(node.client->delete_container(id, in(10s)).ok());
  }

  Node& node;
  std::string id, out_path;
  base::UniqueFd out;
  std::uint32_t pid = 0;
};

}  // namespace

TEST_CASE("containerd says who it is") {
  Node node;
  const auto version = node.client->version(in(10s));
  REQUIRE_MESSAGE(version.ok(), why(version));
  CHECK_FALSE(version->version.empty());
  const auto server = node.client->server_info(in(10s));
  REQUIRE(server.ok());
  CHECK(server->uuid.size() == 36);
  const auto plugins = node.client->plugins(in(10s));
  REQUIRE(plugins.ok());
  CHECK(std::any_of(plugins->begin(), plugins->end(),
                    [](const auto& p) { return p.id == "tasks" && p.init_error.empty(); }));
  CHECK(std::none_of(plugins->begin(), plugins->end(), [](const auto& p) { return p.id == "cri"; }));
  CHECK(node.client->ensure_namespace(in(10s)).ok());
}

TEST_CASE("blobs are stored once, resumed, and refused when the bytes are not what the digest says") {
  Node node;
  REQUIRE(node.client->create_lease("lease-1", 1h, {{"cellrun.dev/test", "yes"}}, in(10s)).ok());
  const containerd::Call leased(in(60s), "lease-1");
  std::string bytes(5 * 1024 * 1024 + 17, 'x');
  for (std::size_t i = 0; i < bytes.size(); i += 7) {
    bytes[i] = static_cast<char>(i);
  }
  const std::string digest = digest_of(bytes);

  const auto broken = node.client->ingest(digest, bytes.size(), reader_of(bytes, nullptr, 2 << 20), {}, leased);
  CHECK(broken.error().code() == base::Errc::kDataLoss);
  std::uint64_t lowest = ~0ULL;
  const auto resumed = node.client->ingest(digest, bytes.size(), reader_of(bytes, &lowest), {{"a.b/c", "1"}}, leased);
  CHECK_MESSAGE(resumed.ok(), why(resumed));
  CHECK(lowest == 2 << 20);

  lowest = ~0ULL;
  const auto again = node.client->ingest(digest, bytes.size(), reader_of(bytes, &lowest), {{"d.e/f", "2"}}, leased);
  CHECK_MESSAGE(again.ok(), why(again));
  CHECK(lowest == ~0ULL);  // nothing was read
  const auto info = node.client->blob_info(digest, in(10s));
  REQUIRE(info.ok());
  CHECK(info->size == bytes.size());
  CHECK(info->labels.at("a.b/c") == "1");
  CHECK(info->labels.at("d.e/f") == "2");

  const auto text = node.client->read_blob_text(digest, bytes.size(), in(30s));
  CHECK((text.ok() && *text == bytes));
  CHECK(node.client->read_blob_text(digest, bytes.size() - 1, in(30s)).error().code() ==
        base::Errc::kResourceExhausted);
  CHECK(node.client->read_blob_text(digest_of("absent"), 100, in(10s)).error().code() == base::Errc::kNotFound);

  const std::string good = "good bytes", bad = "evil bytes";
  const auto refused = node.client->ingest(digest_of(good), good.size(), reader_of(bad), {}, leased);
  CHECK(refused.error().code() == base::Errc::kDataLoss);
  const auto then_good = node.client->ingest(digest_of(good), good.size(), reader_of(good), {}, leased);
  CHECK_MESSAGE(then_good.ok(), why(then_good));

  // A broken-off attempt with wrong bytes does not spoil the blob for ever.
  const std::string late(3 << 20, 'l'), spoiled(3 << 20, 's');
  (void)node.client->ingest(digest_of(late), late.size(), reader_of(spoiled, nullptr, 1 << 20), {}, leased);
  const auto recovered = node.client->ingest(digest_of(late), late.size(), reader_of(late), {}, leased);
  CHECK_MESSAGE(recovered.ok(), why(recovered));

  // An image keeps its target; without image and lease the collection on deletion takes it at once.
  REQUIRE(
      node.client->put_image({"repo@" + digest_of(good), {"text/plain", digest_of(good), good.size()}, {}, {}}, in(10s))
          .ok());
  REQUIRE(node.client
              ->put_image({"repo@" + digest_of(good), {"text/plain", digest_of(good), good.size()}, {{"k", "v"}}, {}},
                          in(10s))
              .ok());
  CHECK(node.client->list_leases(in(10s))->size() == 1);
  REQUIRE(node.client->delete_lease("lease-1", in(60s)).ok());
  CHECK(node.client->delete_lease("lease-1", in(60s)).ok());
  CHECK(node.client->blob_info(digest, in(10s)).error().code() == base::Errc::kNotFound);
  const auto image = node.client->get_image("repo@" + digest_of(good), in(10s));
  REQUIRE_MESSAGE(image.ok(), why(image));
  CHECK(image->target.digest == digest_of(good));
  CHECK(image->labels.at("k") == "v");
  CHECK(image->created_at.seconds > 0);
  CHECK(node.client->list_images(in(10s))->size() == 1);
  REQUIRE(node.client->delete_image(image->name, in(60s)).ok());
  CHECK(node.client->blob_info(digest_of(good), in(10s)).error().code() == base::Errc::kNotFound);
  CHECK(node.client->get_image(image->name, in(10s)).error().code() == base::Errc::kNotFound);
}

TEST_CASE("a task runs, is seen, killed and deleted, and its events come in order") {
  Node node;
  base::Guarded<std::vector<containerd::Event>> events;
  {
    auto stream =
        node.client->subscribe({[&](const containerd::Event& e) { events.lock()->push_back(e); }, {}}, in(20s));
    REQUIRE_MESSAGE(stream.ok(), why(stream));
    {
      Box box(node, "box-1", "echo hello; exec sleep 1000");
      CHECK(node.client->get_task("box-1", in(10s))->status == containerd::TaskStatus::kCreated);
      auto wait = node.client->begin_wait("box-1");
      REQUIRE(wait.ok());
      const auto started = node.client->start_task("box-1", in(30s));
      REQUIRE_MESSAGE(started.ok(), why(started));
      CHECK(*started == box.pid);
      REQUIRE(base::wait_readable(box.out.get(), in(10s)).ok());
      std::array<char, 64> text{};
      CHECK(::read(box.out.get(), text.data(), text.size()) == 6);
      CHECK(std::string(text.data()) == "hello\n");
      const auto tasks = node.client->list_tasks(in(10s));
      REQUIRE(tasks->size() == 1);
      CHECK(tasks->front().container_id == "box-1");
      CHECK(tasks->front().status == containerd::TaskStatus::kRunning);
      CHECK(node.client->task_pids("box-1", in(10s))->front() == box.pid);
      CHECK(node.client->get_container("box-1", in(10s))->labels.at("cellrun.dev/test") == "yes");
      CHECK_FALSE(node.client->delete_task("box-1", in(10s)).ok());
      CHECK(wait->wait(in(10ms)).error().code() == base::Errc::kDeadlineExceeded);
      REQUIRE(node.client->kill_task("box-1", SIGKILL, in(10s)).ok());
      const auto exit = wait->wait(in(20s));
      REQUIRE_MESSAGE(exit.ok(), why(exit));
      CHECK(exit->exit_status == 137);
    }
    CHECK(node.client->list_containers(in(10s))->empty());
    CHECK(node.client->kill_task("box-1", SIGKILL, in(10s)).error().code() == base::Errc::kNotFound);
    CHECK(node.client->delete_task("box-1", in(10s)).ok());
    const auto deadline = in(10s);
    while (events.lock()->size() < 4 && !deadline.expired()) {
      (void)base::wait_readable(node.kept.keeper.fd(), in(20ms));
    }
  }
  std::vector<containerd::EventKind> kinds;
  for (const auto& event : *events.lock()) {
    CHECK(event.container_id == "box-1");
    kinds.push_back(event.kind);
    if (event.kind == containerd::EventKind::kTaskExit) {
      CHECK(event.exit_status == 137);
    }
  }
  using enum containerd::EventKind;
  CHECK(kinds == std::vector{kTaskCreate, kTaskStart, kTaskExit, kTaskDelete});
}

TEST_CASE("a task outlives containerd, and whoever follows it is told of the gap") {
  Node node;
  base::Guarded<std::vector<std::string>> gaps;
  auto stream = node.client->subscribe(
      {[](const containerd::Event&) {}, [&](const containerd::EventGap& gap) { gaps.lock()->push_back(gap.why); }},
      in(20s));
  REQUIRE_MESSAGE(stream.ok(), why(stream));
  Box box(node, "box-2", "exec sleep 1000");
  auto wait = node.client->begin_wait("box-2");
  REQUIRE(node.client->start_task("box-2", in(30s)).ok());
  const auto before = node.kept.containerd;
  REQUIRE(base::PidFd::open(before.process)->signal(SIGKILL).ok());
  CHECK(wait->wait(in(20s)).error().code() == base::Errc::kUnavailable);
  const auto after = node.await_generation_after(before.generation);
  CHECK(after.process != before.process);
  REQUIRE(node.client->wait_ready(in(30s)).ok());
  CHECK(node.client->get_task("box-2", in(10s))->status == containerd::TaskStatus::kRunning);
  CHECK(node.client->wait_task("box-2", in(100ms)).error().code() == base::Errc::kDeadlineExceeded);
  const auto deadline = in(20s);
  while (gaps.lock()->empty() && !deadline.expired()) {
    (void)base::wait_readable(node.kept.keeper.fd(), in(20ms));
  }
  CHECK(gaps.lock()->size() == 1);
}

TEST_CASE("everything in flight ends when the client is shut down") {
  Node node;
  Box box(node, "box-3", "exec sleep 1000");
  auto other = Client::create(node.config.socket, "cellrun-test");
  auto wait = other->begin_wait("box-3");
  REQUIRE(wait.ok());
  other->shutdown();
  CHECK(wait->wait(in(10s)).error().code() == base::Errc::kCancelled);
  CHECK(other->version(in(10s)).error().code() == base::Errc::kCancelled);
}

TEST_CASE("one keeper serves a run folder, and the next one adopts its containerd") {
  Node node;
  const auto containerd = node.kept.containerd;
  CHECK(node.kept.started);
  const auto second = daemon::keeper::ensure_keeper(::secure_getenv("CELLRUN_KEEPER"), node.config, in(30s));
  REQUIRE_MESSAGE(second.ok(), why(second));
  CHECK_FALSE(second->started);
  CHECK(second->keeper.id() == node.kept.keeper.id());
  CHECK(second->containerd == containerd);
  auto other_config = node.config;
  other_config.shim_dir = "/bin";
  const auto refused = daemon::keeper::ensure_keeper(::secure_getenv("CELLRUN_KEEPER"), other_config, in(30s));
  CHECK(refused.error().code() == base::Errc::kFailedPrecondition);

  REQUIRE(node.kept.keeper.signal(SIGKILL).ok());
  REQUIRE(node.kept.keeper.reap(in(10s)).ok());
  CHECK(base::is_alive(containerd.process));
  node.start();
  CHECK(node.kept.started);
  CHECK(node.kept.containerd == containerd);
}

TEST_CASE("a containerd that does not answer any more is replaced") {
  Node node;
  const auto hung = node.kept.containerd;
  const auto process = base::PidFd::open(hung.process);
  SUBCASE("on request") {
    REQUIRE(process->signal(SIGSTOP).ok());
    REQUIRE(node.kept.keeper.signal(SIGHUP).ok());
    const auto fresh = node.await_generation_after(hung.generation);
    CHECK(fresh.process != hung.process);
  }
  SUBCASE("not when it does answer") {
    REQUIRE(node.kept.keeper.signal(SIGHUP).ok());
    CHECK(node.client->version(in(10s)).ok());
    (void)base::wait_readable(node.kept.keeper.fd(), in(500ms));
    CHECK(base::is_alive(hung.process));
  }
  SUBCASE("when a new keeper finds it so") {
    REQUIRE(node.kept.keeper.signal(SIGKILL).ok());
    REQUIRE(node.kept.keeper.reap(in(10s)).ok());
    REQUIRE(process->signal(SIGSTOP).ok());
    node.start();
    CHECK(node.kept.containerd.generation == hung.generation + 1);
  }
  CHECK(node.client->wait_ready(in(20s)).ok());
}

TEST_CASE("a containerd that cannot start is an error and not a loop") {
  std::string dir = "/tmp/ctrd-test-XXXXXX";
  REQUIRE(::mkdtemp(dir.data()) != nullptr);
  const daemon::keeper::Config config{
      dir + "/run", dir + "/root", dir + "/state", dir + "/run/c.sock", "/bin/false", "/bin", ""};
  const auto kept = daemon::keeper::ensure_keeper(::secure_getenv("CELLRUN_KEEPER"), config, in(30s));
  CHECK_FALSE(kept.ok());
  CHECK(why(kept).find("containerd ended before it answered") != std::string::npos);
  CHECK(daemon::keeper::stop_keeper(config.run_dir, in(10s)).ok());
  CHECK(Node::processes_naming(dir).empty());
  std::filesystem::remove_all(dir);
}

int main(int argc, char** argv) {
  const auto skipped = [](const char* missing) {
    (void)std::fprintf(stderr, "skipped: needs %s\n", missing);
    return 77;
  };
  if (::geteuid() != 0) {
    return skipped("root");
  }
  for (const char* program :
       {"/usr/bin/containerd", "/usr/bin/containerd-shim-runc-v2", "/usr/sbin/runc", "/bin/busybox"}) {
    if (::access(program, X_OK) != 0) {
      return skipped(program);
    }
  }
  if (::secure_getenv("CELLRUN_KEEPER") == nullptr) {
    return skipped("CELLRUN_KEEPER, the path of cellrun-keeper");
  }
  doctest::Context context(argc, argv);
  return context.run();
}
