#include "host/process_facts.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <set>

namespace cellrund::host {
namespace {

using base::Errc;
using base::Error;
using base::Result;

constexpr std::size_t kMaxText = 64UL * 1024;
constexpr std::size_t kMaxThreads = 1024;
constexpr std::size_t kMaxFiles = 1024;
constexpr int kMaxListings = 16;

Result<std::string> read_at(int dir, const std::string& name) {
  const base::UniqueFd fd = CR_TRY(base::open_at(dir, name, O_RDONLY | O_NOFOLLOW));
  return base::read_fd(fd.get(), kMaxText).context(name);
}

Result<base::UniqueFd> folder_at(int dir, const std::string& name) {
  return base::open_at(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

// What a link of procfs leads to.
Result<base::FileId> id_at(int dir, const std::string& name) {
  struct stat info {};
  if (::fstatat(dir, name.c_str(), &info, 0) != 0) {
    return Error::from_errno("stat " + name);
  }
  return base::FileId{info.st_dev, info.st_ino};
}

Result<std::string> link_at(int dir, const std::string& name) {
  std::array<char, 4096> target{};
  const ssize_t length = ::readlinkat(dir, name.c_str(), target.data(), target.size());
  if (length < 0) {
    return Error::from_errno("readlink " + name);
  }
  return std::string(target.data(), static_cast<std::size_t>(length));
}

// The entries of a folder whose names are numbers.
Result<std::set<int>> numbers_in(int dir, const std::string& name, std::size_t limit) {
  base::UniqueFd folder = CR_TRY(folder_at(dir, name));
  const std::unique_ptr<DIR, int (*)(DIR*)> list(::fdopendir(folder.get()), &::closedir);
  if (!list) {
    return Error::from_errno("list " + name);
  }
  (void)folder.release();  // closedir(3) closes it
  std::set<int> out;
  errno = 0;
  while (const dirent* entry = ::readdir(list.get())) {  // NOLINT(concurrency-mt-unsafe): each DIR has one user
    const std::string_view text(entry->d_name);
    int number = 0;
    const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (err != std::errc() || end != text.data() + text.size()) {
      continue;
    }
    if (out.size() == limit) {
      return Error(Errc::kResourceExhausted, name + " has more than " + std::to_string(limit) + " entries");
    }
    out.insert(number);
    errno = 0;
  }
  if (errno != 0) {
    return Error::from_errno("list " + name);
  }
  return out;
}

// The value of "Name:\t<value>\n" (proc(5), /proc/pid/status).
std::optional<std::string_view> field(std::string_view status, std::string_view name) {
  for (std::size_t at = 0; at < status.size();) {
    const std::size_t end = std::min(status.find('\n', at), status.size());
    std::string_view line = status.substr(at, end - at);
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ':') {
      line.remove_prefix(name.size() + 1);
      return line;
    }
    at = end + 1;
  }
  return std::nullopt;
}

template <typename Number>
Result<std::vector<Number>> numbers_of(std::string_view status, std::string_view name, int base = 10) {
  const std::optional<std::string_view> text = field(status, name);
  if (!text.has_value()) {
    return Error(Errc::kDataLoss, "status has no " + std::string(name));
  }
  std::vector<Number> out;
  std::string_view rest = *text;
  while (true) {
    rest.remove_prefix(std::min(rest.find_first_not_of("\t "), rest.size()));
    if (rest.empty()) {
      return out;
    }
    Number value{};
    const auto [end, err] = std::from_chars(rest.data(), rest.data() + rest.size(), value, base);
    if (err != std::errc()) {
      return Error(Errc::kDataLoss, "status: " + std::string(name) + " is no list of numbers");
    }
    out.push_back(value);
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  }
}

template <typename Number>
Result<Number> number_of(std::string_view status, std::string_view name, int base = 10) {
  const std::vector<Number> all = CR_TRY(numbers_of<Number>(status, name, base));
  if (all.size() != 1) {
    return Error(Errc::kDataLoss, "status: " + std::string(name) + " is not one number");
  }
  return all.front();
}

Result<std::array<std::uint32_t, 4>> ids_of(std::string_view status, std::string_view name) {
  const std::vector<std::uint32_t> all = CR_TRY(numbers_of<std::uint32_t>(status, name));
  std::array<std::uint32_t, 4> out{};
  if (all.size() != out.size()) {
    return Error(Errc::kDataLoss, "status: " + std::string(name) + " is not four numbers");
  }
  std::copy(all.begin(), all.end(), out.begin());
  return out;
}

Result<Namespaces> namespaces_at(int dir) {
  const base::UniqueFd folder = CR_TRY(folder_at(dir, "ns"));
  Namespaces out;
  for (const char* kind : kNamespaceKinds) {
    auto id = id_at(folder.get(), kind);
    if (id.ok()) {
      out.emplace(kind, *id);
    } else if (id.error().os_errno() != ENOENT) {
      return std::move(id).error();
    }
  }
  return out;
}

Result<ThreadFacts> read_thread(int tasks, pid_t tid) {
  const base::UniqueFd dir = CR_TRY(folder_at(tasks, std::to_string(tid)));
  ThreadFacts out;
  out.tid = tid;
  const std::string status = CR_TRY(read_at(dir.get(), "status"));
  out.credentials = CR_TRY(parse_credentials(status));
  out.namespaces = CR_TRY(namespaces_at(dir.get()));
  out.cgroups = CR_TRY(read_at(dir.get(), "cgroup"));
  return out;
}

bool is_gone(const Error& error) { return error.os_errno() == ENOENT || error.os_errno() == ESRCH; }

// A thread that ends meanwhile is left out; one that starts meanwhile is found by the next listing.
Result<std::vector<ThreadFacts>> read_threads(int dir, pid_t leader) {
  const base::UniqueFd tasks = CR_TRY(folder_at(dir, "task"));
  std::map<int, ThreadFacts> known;
  for (int i = 0; i < kMaxListings; ++i) {
    const std::set<int> now = CR_TRY(numbers_in(dir, "task", kMaxThreads));
    bool grown = false;
    for (const int tid : now) {
      if (known.contains(tid)) {
        continue;
      }
      grown = true;
      auto thread = read_thread(tasks.get(), tid);
      if (thread.ok()) {
        known.emplace(tid, std::move(thread).value());
      } else if (!is_gone(thread.error())) {
        return std::move(thread).error().context("thread " + std::to_string(tid));
      }
    }
    if (!grown) {
      if (!known.contains(leader)) {
        return Error(Errc::kNotFound, "its first thread has ended", ESRCH);
      }
      std::vector<ThreadFacts> out;
      out.push_back(std::move(known.extract(leader).mapped()));
      for (auto& [tid, thread] : known) {
        out.push_back(std::move(thread));
      }
      return out;
    }
  }
  return Error(Errc::kResourceExhausted, "it starts threads faster than they can be read");
}

Result<OpenFile> read_open_file(int fds, int infos, int number) {
  const std::string name = std::to_string(number);
  OpenFile out;
  out.number = number;
  out.target = CR_TRY(link_at(fds, name));
  struct stat info {};
  if (::fstatat(fds, name.c_str(), &info, 0) == 0) {
    out.type = info.st_mode & S_IFMT;
    out.id = {info.st_dev, info.st_ino};
    out.links = info.st_nlink;
    out.device = info.st_rdev;
  }
  const std::string fdinfo = CR_TRY(read_at(infos, name));
  const unsigned flags = CR_TRY(number_of<unsigned>(fdinfo, "flags", 8));
  out.writable = (flags & O_ACCMODE) != O_RDONLY;
  if (out.type == S_IFREG) {
    // Opening it again is the way to its seals. O_NONBLOCK: whatever it turns out to be, this does not wait.
    const base::UniqueFd again(::openat(fds, name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (again) {
      out.seals = ::fcntl(again.get(), F_GET_SEALS);
    }
  }
  return out;
}

Result<std::vector<OpenFile>> read_files(int dir) {
  const base::UniqueFd fds = CR_TRY(folder_at(dir, "fd"));
  const base::UniqueFd infos = CR_TRY(folder_at(dir, "fdinfo"));
  std::vector<OpenFile> out;
  for (const int number : CR_TRY(numbers_in(dir, "fd", kMaxFiles))) {
    auto file = read_open_file(fds.get(), infos.get(), number);
    if (file.ok()) {
      out.push_back(std::move(file).value());
    } else if (!is_gone(file.error())) {
      return std::move(file).error();
    }
  }
  return out;
}

// Field 22 of stat, counted after the last ')' (proc(5)): what stands in parentheses is the process's own word.
Result<std::uint64_t> start_time_at(int dir) {
  const std::string text = CR_TRY(read_at(dir, "stat"));
  std::string_view rest = std::string_view(text).substr(std::min(text.rfind(')'), text.size()));
  constexpr int kBlanks = 20;  // between ")" and the start time
  for (int i = 0; i < kBlanks; ++i) {
    const std::size_t blank = rest.find(' ');
    rest.remove_prefix(blank == std::string_view::npos ? rest.size() : blank + 1);
  }
  std::uint64_t value = 0;
  if (std::from_chars(rest.data(), rest.data() + rest.size(), value).ec != std::errc()) {
    return Error(Errc::kDataLoss, "stat has no start time");
  }
  return value;
}

Result<ProcessFacts> read_from(int dir, const base::ProcessId& id) {
  if (CR_TRY(start_time_at(dir)) != id.start_time) {
    return Error(Errc::kNotFound, "it has ended, and its number is another's", ESRCH);
  }
  ProcessFacts out;
  out.id = id;
  out.program = CR_TRY(link_at(dir, "exe"));
  out.root = CR_TRY(id_at(dir, "root"));
  out.arguments = CR_TRY(read_at(dir, "cmdline"));
  const std::string mountinfo = CR_TRY(read_at(dir, "mountinfo"));
  out.mounts = CR_TRY(parse_mounts(mountinfo));
  out.files = CR_TRY(read_files(dir));
  out.threads = CR_TRY(read_threads(dir, id.pid));
  return out;
}

}  // namespace

Result<Credentials> parse_credentials(std::string_view status) {
  Credentials out;
  out.uids = CR_TRY(ids_of(status, "Uid"));
  out.gids = CR_TRY(ids_of(status, "Gid"));
  out.groups = CR_TRY(numbers_of<std::uint32_t>(status, "Groups"));
  for (std::size_t i = 0; i < kCapabilitySets.size(); ++i) {
    out.capabilities[i] = CR_TRY(number_of<std::uint64_t>(status, kCapabilitySets[i], 16));
  }
  out.no_new_privs = CR_TRY(number_of<int>(status, "NoNewPrivs")) == 1;
  out.seccomp = CR_TRY(number_of<int>(status, "Seccomp"));
  out.namespace_pids = CR_TRY(numbers_of<pid_t>(status, "NSpid"));
  return out;
}

// "36 35 98:0 /root /point opts [tags] - type source super" (proc(5), /proc/pid/mountinfo). Blanks in a path are "\040".
Result<std::vector<MountFacts>> parse_mounts(std::string_view mountinfo) {
  std::vector<MountFacts> out;
  while (!mountinfo.empty()) {
    const std::size_t end = std::min(mountinfo.find('\n'), mountinfo.size());
    std::string_view line = mountinfo.substr(0, end);
    mountinfo.remove_prefix(std::min(end + 1, mountinfo.size()));
    std::vector<std::string_view> words;
    while (!line.empty()) {
      const std::size_t blank = std::min(line.find(' '), line.size());
      words.push_back(line.substr(0, blank));
      line.remove_prefix(std::min(blank + 1, line.size()));
    }
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 7 || dash - words.begin() < 6 || words.end() - dash < 2) {
      return Error(Errc::kDataLoss, "mountinfo: a line is malformed");
    }
    MountFacts mount;
    mount.point = std::string(words[4]);
    mount.type = std::string(dash[1]);
    mount.read_only = words[5] == "ro" || words[5].starts_with("ro,");
    out.push_back(std::move(mount));
  }
  return out;
}

Result<ProcessFacts> read_process(const base::ProcessId& id, const std::string& proc) {
  const std::string what = "process " + std::to_string(id.pid);
  auto dir = base::open_file(proc + "/" + std::to_string(id.pid), O_RDONLY | O_DIRECTORY);
  auto facts = dir.ok() ? read_from(dir->get(), id) : Result<ProcessFacts>(std::move(dir).error());
  if (!facts.ok()) {
    if (is_gone(facts.error())) {
      return Error(Errc::kNotFound, what + ": " + facts.error().message(), ESRCH);
    }
    return std::move(facts).error().context(what);
  }
  return facts;
}

Result<Namespaces> own_namespaces() {
  const base::UniqueFd self = CR_TRY(base::open_file("/proc/thread-self", O_RDONLY | O_DIRECTORY));
  return namespaces_at(self.get());
}

}  // namespace cellrund::host
