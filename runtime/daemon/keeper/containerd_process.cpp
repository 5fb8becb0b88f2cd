#include "daemon/keeper/containerd_process.hpp"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "base/file.hpp"

namespace cellrund::daemon::keeper {
namespace {

constexpr std::size_t kMaxProcesses = 1 << 20;
constexpr std::size_t kMaxCommandLine = 4096;
constexpr off_t kMaxLog = 16 << 20;
constexpr std::chrono::seconds kKillTimeout{10};

bool is_ours(const std::string& proc, const std::string& config_path) {
  struct stat st {};
  if (::stat(proc.c_str(), &st) != 0 || st.st_uid != ::geteuid()) {
    return false;
  }
  const auto line = base::read_file(proc + "/cmdline", kMaxCommandLine);
  if (!line.ok()) {
    return false;  // gone meanwhile, or longer than ours ever is
  }
  const std::size_t program = line->find('\0');
  using namespace std::string_literals;
  return program != std::string::npos && line->substr(program + 1) == "--config\0"s + config_path + "\0"s;
}

base::Status await_end(const base::PidFd& process) {
  if (!CR_TRY(process.wait_exit(base::Deadline::after(kKillTimeout)))) {
    return base::Error(base::Errc::kDeadlineExceeded,
                       "containerd (pid " + std::to_string(process.id().pid) + ") does not end even by SIGKILL");
  }
  siginfo_t info{};
  (void)::waitid(P_PIDFD, static_cast<id_t>(process.fd()), &info, WEXITED);  // ECHILD: not our child, init reaps it
  return base::ok();
}

}  // namespace

std::string containerd_dir(const std::string& run_dir) {
  return run_dir + "/containerd";
}
std::string containerd_config_path(const std::string& run_dir) {
  return containerd_dir(run_dir) + "/config.toml";
}
std::string containerd_log_path(const std::string& run_dir) {
  return containerd_dir(run_dir) + "/log";
}

base::Result<std::vector<base::PidFd>> find_containerds(const std::string& run_dir) {
  const std::string config_path = containerd_config_path(run_dir);
  std::vector<base::PidFd> out;
  for (const std::string& name : CR_TRY(base::list_dir("/proc", kMaxProcesses))) {
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    const std::string proc = "/proc/" + name;
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size() || !is_ours(proc, config_path)) {
      continue;
    }
    auto process = base::PidFd::open(pid);
    // Looked at again with the pidfd in hand: now it is known whose command line that was. A zombie's is empty.
    if (process.ok() && is_ours(proc, config_path) && base::is_alive(process->id())) {
      out.push_back(std::move(*process));
    }
  }
  return out;
}

base::Result<base::PidFd> start_containerd(const Config& config) {
  CR_CHECK(base::make_dirs(containerd_dir(config.run_dir), 0700));
  CR_CHECK(base::write_file_atomic(containerd_config_path(config.run_dir), containerd_toml(config), 0600));
  const std::string log = containerd_log_path(config.run_dir);
  struct stat st {};
  if (::stat(log.c_str(), &st) == 0 && st.st_size > kMaxLog) {
    (void)::rename(log.c_str(), (log + ".1").c_str());  // failing leaves a long log, which hurts nobody yet
  }
  const base::UniqueFd log_fd = CR_TRY(base::open_file(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600));
  base::SpawnOptions options;
  options.argv = {config.containerd, "--config", containerd_config_path(config.run_dir)};
  options.env = {"PATH=" + config.shim_dir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
  if (!config.shim_config.empty()) {
    options.env.push_back("CELLRUN_SHIM_CONFIG=" + config.shim_config);
  }
  options.fds = {{log_fd.get(), STDOUT_FILENO}, {log_fd.get(), STDERR_FILENO}};
  options.new_session = true;
  options.working_dir = "/";
  return base::spawn(options);
}

base::Status stop_containerd(const base::PidFd& process, base::Deadline polite) {
  CR_CHECK(process.signal(SIGTERM));
  // A stopped process acts on no SIGTERM before it continues.
  CR_CHECK(process.signal(SIGCONT));
  if (CR_TRY(process.wait_exit(polite))) {
    return await_end(process);
  }
  return kill_containerd(process);
}

base::Status kill_containerd(const base::PidFd& process) {
  CR_CHECK(process.signal(SIGKILL));
  return await_end(process);
}

}  // namespace cellrund::daemon::keeper
