// Task, first half: from the request to a VMM that runs confined.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>

#include "base/log.hpp"
#include "shim/confinement.hpp"
#include "shim/tap.hpp"
#include "shim/task.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

constexpr std::chrono::seconds kRootfsBudget(300);
constexpr std::chrono::seconds kCheckBudget(20);  // QEMU's start to its answer on QMP, on a loaded machine
// A cell that makes no use of its scratch disk still has one; so much of the host's disk may a hostile guest fill.
constexpr std::uint64_t kScratchBytes = 64 * kMebibyte;
// What QEMU takes besides the guest's memory: its own heap, the translation cache, page tables.
constexpr std::uint64_t kVmmOverhead = 192 * kMebibyte;
constexpr std::uint64_t kVmmThreads = 64;

// The collector's socket. The shim never reads or writes it: its end becomes the VMM's.
Result<base::UniqueFd> connect_outputs(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Error(Errc::kInvalidArgument, "outputs: " + path + " is too long for a socket path");
  }
  path.copy(address.sun_path, path.size());
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Error::from_errno("outputs: connect to " + path);
  }
  return fd;
}

}  // namespace

std::unique_ptr<Task> Task::create(Env env, Config config, TaskRequest request, Answer created,
                                   std::function<void(const TaskEnd&)> ended,
                                   std::function<void(const std::string&, const TaskEnd&)> exec_ended) {
  std::unique_ptr<Task> task(new Task(std::move(env), std::move(config), std::move(request), std::move(created),
                                      std::move(ended), std::move(exec_ended)));
  task->go_on(task->prepare());
  return task;
}

Task::Task(Env env, Config config, TaskRequest request, Answer created, std::function<void(const TaskEnd&)> ended,
           std::function<void(const std::string&, const TaskEnd&)> exec_ended)
    : env_(std::move(env)),
      config_(std::move(config)),
      request_(std::move(request)),
      created_(std::move(created)),
      on_end_(std::move(ended)),
      on_exec_end_(std::move(exec_ended)) {}

Task::~Task() {
  for (const base::PidFd* helper : {&probe_, build_.has_value() ? &build_->builder : nullptr}) {
    if (helper != nullptr && helper->valid()) {
      env_.children.forget(helper->id().pid);
      (void)helper->signal(SIGKILL);  // reaped by Children
    }
  }
}

void Task::go_on(Status step) {
  if (!step.ok()) {
    fail_create(std::move(step).error());
  }
}

void Task::fail_create(Error error) {
  if (state_ == State::kStopped) {
    return;
  }
  state_ = State::kStopped;
  const auto failure = std::make_shared<Error>(std::move(error).context("create " + request_.id));
  // Not here: the machine may be the caller.
  env_.loop.post([this, failure] {
    machine_.reset();  // kills and reaps
    step_timer_.reset();
    secret_channel_.reset();
    secrets_.reset();
    release();
    std::exchange(created_, nullptr)(std::move(*failure));
  });
}

Status Task::prepare() {
  plan_ = CR_TRY(load_spec(request_.bundle));
  if (plan_.workload.terminal.has_value() != request_.stdio.terminal) {
    return Error(Errc::kInvalidArgument, "terminal in the request, or in the OCI spec, alone");
  }
  CR_CHECK(base::make_dirs(config_.state_dir, 0700));
  step_timer_ = CR_TRY(Timer::create(env_.loop, [this] {
    if (state_ == State::kPreparing) {
      fail_create(Error(Errc::kDeadlineExceeded, "a step took too long"));
    } else if (state_ == State::kStopping) {
      kill_vmm("VMM");
    } else {
      stop_because(EndKind::kAgentUnreachable, 0,
                   "the guest did not come up within " + std::to_string(config_.boot_timeout.count()) + " s");
    }
  }));
  stdio_ = CR_TRY(ProcessStdio::open(env_.loop, request_.stdio, machine_));
  if (!plan_.annotations.secrets_socket.empty()) {
    secret_channel_ = CR_TRY(SecretChannel::open(env_.loop, plan_.annotations.secrets_socket, [this](auto received) {
      if (!received.ok()) {
        const std::string why = received.error().message();
        // Before the VMM is there its creation fails, afterwards it is ended: without them nothing starts.
        if (state_ == State::kPreparing) {
          fail_create(std::move(received).error());
        } else {
          stop_because(EndKind::kAgentUnreachable, 0, why);
        }
        return;
      }
      secrets_ = std::move(received).value();
      begin_if_ready();
    }));
  }
  images_ = CR_TRY(load_guest_images(config_));
  return find_accelerator();
}

Status Task::find_accelerator() {
  if (std::optional<AccelAnswer> known = CR_TRY(remembered_accel(config_, *images_)); known.has_value()) {
    accel_ = *std::move(known);
    return make_rootfs();
  }
  base::SpawnOptions options;
  options.argv = {env_.self};
  if (!env_.config_path.empty()) {
    options.argv.insert(options.argv.end(), {"-config", env_.config_path});
  }
  options.argv.emplace_back("probe");
  if (const char* config = ::secure_getenv("CELLRUN_SHIM_CONFIG")) {
    options.env.push_back(std::string("CELLRUN_SHIM_CONFIG=") + config);
  }
  options.fds = {{STDERR_FILENO, 2}};  // the shim's log
  probe_ = CR_TRY(base::spawn(options));
  CR_CHECK(step_timer_->arm_after(2 * config_.probe_timeout + std::chrono::seconds(10)));
  env_.children.on_exit(probe_.id().pid, [this](base::ExitStatus) {
    probe_ = {};
    const auto next = [this]() -> Status {
      std::optional<AccelAnswer> known = CR_TRY(remembered_accel(config_, *images_));
      if (!known.has_value()) {
        return Error(Errc::kUnavailable, "the boot probe gave no answer");
      }
      accel_ = *std::move(known);
      return make_rootfs();
    };
    go_on(next());
  });
  return base::ok();
}

Status Task::make_rootfs() {
  auto opened = CR_TRY(open_rootfs(request_.rootfs, request_.bundle, config_));
  if (auto* image = std::get_if<base::UniqueFd>(&opened)) {
    rootfs_ = std::move(*image);
    return launch();
  }
  build_ = std::move(std::get<RootfsBuild>(opened));
  CR_CHECK(step_timer_->arm_after(kRootfsBudget));
  env_.children.on_exit(build_->builder.id().pid, [this](base::ExitStatus exit) {
    RootfsBuild build = std::move(*build_);
    build_.reset();
    const auto next = [&]() -> Status {
      rootfs_ = CR_TRY(finish_build(std::move(build), exit));
      return launch();
    };
    go_on(next());
  });
  return base::ok();
}

Status Task::launch() {
  if (plan_.annotations.vmm_uid.has_value()) {
    uid_ = {*plan_.annotations.vmm_uid, {}};
  } else {
    uid_ = CR_TRY(take_uid(config_));
  }
  base::UniqueFd tap;
  if (!plan_.netns_path.empty()) {
    netns_ = CR_TRY(base::open_file(plan_.netns_path, O_RDONLY).context("network namespace"));
    if (plan_.annotations.network.has_value()) {
      tap = CR_TRY(make_tap(netns_.get()));
    }
  }
  base::UniqueFd outputs;
  if (plan_.annotations.outputs.has_value()) {
    outputs = CR_TRY(connect_outputs(plan_.annotations.outputs->socket));
  }
  base::UniqueFd inputs;
  if (!plan_.inputs_path.empty()) {
    inputs = CR_TRY(open_image(plan_.inputs_path).context("inputs"));
  }
  MachinePlan plan;
  plan.name = request_.id;
  plan.accel = accel_.accel;
  plan.vcpus = plan_.vcpus;
  plan.memory_bytes = plan_.memory_bytes;
  plan.tsc_khz = accel_.tsc_khz;
  plan.uid = uid_.uid;
  plan.images = &*images_;
  plan.rootfs_fd = rootfs_.get();
  plan.inputs_fd = inputs.get();
  plan.scratch_dir = config_.state_dir;
  plan.scratch_bytes = kScratchBytes;
  plan.netns_fd = netns_.get();
  plan.tap_fd = tap.get();
  plan.outputs_fd = outputs.get();
  if (plan_.annotations.network.has_value()) {
    plan.mac = plan_.annotations.network->mac;
  }
  plan.before_exec = [this](const base::ProcessId& vmm) -> Status {
    CR_CHECK(write_vmm_pid(request_.bundle, vmm));
    // The host's OOM killer shall take a cell before anything else. Raising needs no privilege (proc(5)).
    CR_CHECK(base::write_kernel_file("/proc/" + std::to_string(vmm.pid) + "/oom_score_adj", "900"));
    return enter_cgroup(vmm);
  };
  Machine::Callbacks callbacks;
  callbacks.checked = [this](Result<VmmStatus> checked) { on_checked(std::move(checked)); };
  callbacks.event = [this](wire::Event& event) { on_event(event); };
  callbacks.restarted = [this] { on_restarted(); };
  callbacks.committed = [this](Status committed) { on_committed(std::move(committed)); };
  callbacks.paused = [this](bool paused) { on_paused(paused); };
  callbacks.died = [this](base::ExitStatus exit) { on_died(exit); };
  CR_CHECK(step_timer_->arm_after(kCheckBudget));
  machine_ = CR_TRY(Machine::launch(env_.loop, env_.children, plan, std::move(callbacks)).context("launch"));
  // What the VMM has now, it has; the memory and the image need not be held twice.
  images_->kernel.reset();
  images_->initrd.reset();
  rootfs_.reset();
  netns_.reset();
  return base::ok();
}

Status Task::enter_cgroup(const base::ProcessId& vmm) {
  if (plan_.cgroup_path.empty()) {
    return base::ok();
  }
  host::CgroupTree tree = CR_TRY(host::CgroupTree::discover());
  Result<host::Cgroup> group = tree.adopt(plan_.cgroup_path);
  const bool ours = !group.ok();
  if (ours && group.error().code() != Errc::kNotFound) {
    return std::move(group).error();
  }
  // Written first, so that `delete` finds what a crash would leave.
  CR_CHECK(write_owned(request_.bundle, {env_.shim, env_.socket_path, plan_.cgroup_path, ours}));
  if (ours) {
    group = tree.create(plan_.cgroup_path,
                        {.memory_bytes = plan_.memory_bytes + kVmmOverhead, .pids = kVmmThreads, .cpu_millis = 0});
  }
  group_ = CellGroup{std::move(tree), CR_TRY(std::move(group)), ours};
  return group_->cgroup.add(vmm.pid);
}

void Task::on_checked(Result<VmmStatus> checked) {
  if (!checked.ok()) {
    fail_create(std::move(checked).error());
    return;
  }
  // The guest has not run an instruction that we would have heard of: its first bytes are parsed by the loop's next turn.
  if (Status confined = confine(*checked); !confined.ok()) {
    fail_create(std::move(confined).error());
    return;
  }
  state_ = State::kCreated;
  step_timer_->disarm();
  if (const Status armed = step_timer_->arm_after(config_.boot_timeout); !armed.ok()) {
    base::log::error("boot timer: " + armed.error().message());
  }
  std::exchange(created_, nullptr)(pid());
}

Status Task::confine(const VmmStatus& checked) {
  CR_CHECK(env_.broker.start({.vmm = machine_->pidfd(),
                              .group = group_.has_value() ? &*group_ : nullptr,
                              .bundle = request_.bundle,
                              .socket_path = env_.socket_path,
                              .facts = {.vmm_path = images_->qemu_path,
                                        .vmm_digest = images_->qemu_digest,
                                        .vmm_version = machine_->qemu_version(),
                                        .vmm = machine_->id(),
                                        .seccomp = checked.seccomp,
                                        .uid = uid_.uid,
                                        .no_new_privs = checked.no_new_privs,
                                        .effective_capabilities = checked.effective_capabilities,
                                        .shim = env_.shim,
                                        .accel = std::string(to_string(accel_.accel)),
                                        .kernel_digest = images_->kernel_digest,
                                        .initrd_digest = images_->initrd_digest,
                                        .guest_kernel_release = {},
                                        .started = {},
                                        .deadline = std::nullopt},
                              .active_deadline = plan_.annotations.active_deadline,
                              .grace = plan_.annotations.grace,
                              .publisher = env_.publisher,
                              .source = {request_.id, pid(), request_.creation}}));
  machine_->killed_by([this] { env_.broker.kill(); });
  std::vector<std::string> readable;  // its load, for metrics
  if (group_.has_value()) {
    for (const model::InventoryItem& directory : group_->cgroup.items()) {
      readable.push_back(directory.name);
    }
  }
  const int landlock = CR_TRY(confine_shim(readable));
  if (landlock == 0) {
    base::log::warn("this kernel has no Landlock: the shim of " + request_.id + " may read files of root's");
  }
  return base::ok();
}

void Task::release() {
  execs_.clear();
  leaving_.clear();
  stdio_.reset();
  if (env_.broker.running()) {
    if (const Status removed = env_.broker.remove_group(); !removed.ok()) {
      base::log::error("remove cgroup: " + removed.error().message());
    }
  } else if (group_.has_value()) {
    group_->remove();
  }
  group_.reset();
  uid_ = {};
}

}  // namespace cellrund::shim
