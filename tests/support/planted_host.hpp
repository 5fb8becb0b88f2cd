// Kernel objects that a test plants on this very host under a node tag of its own, and takes away again whatever happens:
// the run folder with a bpffs, a router namespace, cgroups, processes, BPF objects. Test support: aborts on failure.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/process.hpp"

namespace cellrund::test {

class PlantedHost {
 public:
  // A fresh folder below /tmp, a tag made of our pid, a router namespace bound as <run>/netns/cr-<tag>-router.
  explicit PlantedHost(std::string tag);
  PlantedHost(const PlantedHost&) = delete;
  PlantedHost& operator=(const PlantedHost&) = delete;
  PlantedHost(PlantedHost&&) = delete;
  PlantedHost& operator=(PlantedHost&&) = delete;
  ~PlantedHost();

  [[nodiscard]] const std::string& run_dir() const noexcept { return run_dir_; }
  [[nodiscard]] const std::string& tag() const noexcept { return tag_; }

  // A process that does nothing but hold `fds` as its descriptors 3, 4, …; killed and reaped at the end.
  base::ProcessId process(const std::vector<int>& fds = {}, const std::string& program = "/bin/sleep",
                          const std::vector<std::string>& arguments = {"3600"});
  // A shell script in a mount namespace of its own; returns once the script has printed "ready".
  base::ProcessId private_mounts(const std::string& script);
  void kill(const base::ProcessId& id);   // and reap
  void kill_unreaped(const base::ProcessId& id);

  std::string cgroup(const std::string& hierarchy, const std::string& path);  // "pids", "/cellrun/…"; returns the folder
  void enter(const std::string& cgroup_folder, const base::ProcessId& id);

  base::UniqueFd network_namespace();              // unbound
  std::string bind_namespace(int fd, const std::string& name);  // as <run>/netns/<name>
  void unbind(const std::string& path);
  void command_in(const std::string& netns_path, const std::vector<std::string>& argv);

  base::UniqueFd bpf_map(const std::string& name);
  base::UniqueFd bpf_program(const std::string& name);
  base::UniqueFd bpf_link_to_loopback(int program);  // in the calling thread's network namespace; none while it has one
  void pin(int fd, const std::string& path);
  static std::string bpf_id(int fd);               // of a map or program, from fdinfo

  std::string folder(const std::string& path);     // below the run folder
  std::string file(const std::string& path);
  std::string fifo(const std::string& path);
  base::UniqueFd socket(const std::string& path);

 private:
  std::string tag_;
  std::string run_dir_;
  std::vector<base::PidFd> children_;
  std::vector<std::string> cgroups_;
  std::vector<std::string> mounts_;
};

// "dev:ino", and with the cookie behind it.
std::string identity_of(int fd);
std::string netns_identity_of(int fd);

}  // namespace cellrund::test
