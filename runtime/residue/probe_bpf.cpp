// BPF programs, maps and links: every id that the kernel has. An object that nothing pins lives on in whatever process
// holds a descriptor, so the walk over ids, not the file system, is the proof. Source: bpf(2); include/uapi/linux/bpf.h.
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <set>
#include <thread>

#include "residue/probes.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxObjects = 1UL << 18U;

long bpf(bpf_cmd command, bpf_attr& attribute) noexcept {
  return ::syscall(SYS_bpf, command, &attribute, sizeof attribute);
}

// Whoever makes a link gives it an id before attaching it, and until then it cannot be opened (kernel/bpf/syscall.c,
// bpf_link_by_id: EAGAIN). That is waited for; a link that stays so stays unknown. Without a descriptor, errno tells why.
constexpr std::chrono::milliseconds kSettling{200};

base::UniqueFd open_object(bpf_cmd open, std::uint32_t id, base::Deadline deadline) {
  const base::Deadline settled = base::Deadline::after(kSettling);
  while (true) {
    bpf_attr attribute{};
    attribute.prog_id = id;  // one union: also map_id and link_id
    base::UniqueFd fd(static_cast<int>(bpf(open, attribute)));  // O_CLOEXEC always
    if (fd || errno != EAGAIN || settled.expired() || deadline.expired()) {
      return fd;
    }
    std::this_thread::yield();
  }
}

std::string name_of(const char (&name)[BPF_OBJ_NAME_LEN]) { return {name, ::strnlen(name, sizeof name)}; }

template <typename Info>
base::Result<Info> info_of(int fd) {
  Info info{};
  bpf_attr attribute{};
  attribute.info.bpf_fd = static_cast<std::uint32_t>(fd);
  attribute.info.info_len = sizeof info;
  attribute.info.info = reinterpret_cast<std::uintptr_t>(&info);
  if (bpf(BPF_OBJ_GET_INFO_BY_FD, attribute) != 0) {
    return base::Error::from_errno("BPF_OBJ_GET_INFO_BY_FD");
  }
  return info;
}

class BpfLook {
 public:
  explicit BpfLook(Pass& pass)
      : pass_(pass), subject_(pass.subject()), look_("bpf", "BPF_{PROG,MAP,LINK}_GET_NEXT_ID and names") {}

  Look run() {
    const std::set<std::uint32_t> programs = journalled(model::ItemKind::kBpfProgram);
    const std::set<std::uint32_t> maps = journalled(model::ItemKind::kBpfMap);
    const std::set<std::uint32_t> links = journalled(model::ItemKind::kBpfLink);
    each(BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID, "program", [&](std::uint32_t id, int fd) -> base::Status {
      const bpf_prog_info info = CR_TRY(info_of<bpf_prog_info>(fd));
      if (claim(model::ItemKind::kBpfProgram, id, name_of(info.name), programs, subject_.trusts_uid(info.created_by_uid))) {
        claimed_programs_.insert(id);
      }
      return base::ok();
    });
    each(BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID, "map", [&](std::uint32_t id, int fd) -> base::Status {
      const bpf_map_info info = CR_TRY(info_of<bpf_map_info>(fd));
      (void)claim(model::ItemKind::kBpfMap, id, name_of(info.name), maps, true);
      return base::ok();
    });
    each(BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID, "link", [&](std::uint32_t id, int fd) -> base::Status {
      const bpf_link_info info = CR_TRY(info_of<bpf_link_info>(fd));
      const std::string text = std::to_string(id);
      if (subject_.is_live(model::ItemKind::kBpfLink, text)) {
        return base::ok();
      }
      if (links.contains(id)) {
        look_.found({{model::ItemKind::kBpfLink, "link of program " + std::to_string(info.prog_id), text, "journalled id"}, true});
      } else if (claimed_programs_.contains(info.prog_id)) {
        look_.found({{model::ItemKind::kBpfLink, "link of program " + std::to_string(info.prog_id), text,
                     "runs a program of the cell"},
                    true});
      }
      return base::ok();
    });
    return std::move(look_);
  }

 private:
  std::set<std::uint32_t> journalled(model::ItemKind kind) {
    std::set<std::uint32_t> ids;
    for (const model::InventoryItem& item : subject_.items(kind)) {
      if (item.identity.empty()) {
        continue;
      }
      const auto id = parse_number(item.identity);
      if (!id || *id > UINT32_MAX) {
        look_.blind("journalled " + std::string(model::to_string(kind)) + " " + item.name + ": identity is no id");
        continue;
      }
      ids.insert(static_cast<std::uint32_t>(*id));
    }
    return ids;
  }

  // Ids are handed out in ascending order and come round after 2^31 objects; an object keeps its name for life. So the
  // journalled id under another name, where both are known, is another object.
  bool claim(model::ItemKind kind, std::uint32_t id, const std::string& name, const std::set<std::uint32_t>& ids,
             bool name_counts) {
    const std::string text = std::to_string(id);
    if (subject_.is_live(kind, text)) {
      return false;
    }
    std::string why = name_counts ? subject_.why_bpf(name) : std::string();
    if (why.empty() && ids.contains(id) && !is_reused(kind, text, name)) {
      why = "journalled id";
    }
    if (why.empty()) {
      return false;
    }
    look_.found({{kind, name, text, why}, true});
    return true;
  }

  bool is_reused(model::ItemKind kind, const std::string& identity, const std::string& name) const {
    for (const model::InventoryItem& item : subject_.items(kind)) {
      if (item.identity == identity) {
        return !name.empty() && item.name.substr(0, BPF_OBJ_NAME_LEN - 1) != name;
      }
    }
    return false;
  }

  void each(bpf_cmd next, bpf_cmd open, const std::string& what,
            const std::function<base::Status(std::uint32_t, int)>& visit) {
    std::uint32_t id = 0;
    for (std::size_t count = 0; count < kMaxObjects; ++count) {
      if (pass_.deadline().expired()) {
        look_.blind("walk over BPF " + what + " ids: the deadline passed");
        return;
      }
      bpf_attr attribute{};
      attribute.start_id = id;
      if (bpf(next, attribute) != 0) {
        if (errno != ENOENT) {  // ENOENT: that was the last one
          look_.blind(base::Error::from_errno("walk over BPF " + what + " ids"));
        }
        return;
      }
      id = attribute.next_id;
      const base::UniqueFd fd = open_object(open, id, pass_.deadline());
      if (!fd) {
        if (errno != ENOENT) {  // freed in between
          look_.blind(base::Error::from_errno("open BPF " + what + " " + std::to_string(id)));
        }
        continue;
      }
      if (auto visited = visit(id, fd.get()); !visited.ok()) {
        look_.blind("BPF " + what + " " + std::to_string(id) + ": " + visited.error().message());
      }
    }
    look_.blind("more than " + std::to_string(kMaxObjects) + " BPF objects of one kind");
  }

  Pass& pass_;
  const Subject& subject_;
  Look look_;
  std::set<std::uint32_t> claimed_programs_;
};

}  // namespace

Look look_at_bpf_objects(Pass& pass) { return BpfLook(pass).run(); }

}  // namespace cellrund::residue
