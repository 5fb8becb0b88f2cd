#include "residue/subject.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace cellrund::residue {
namespace {

constexpr std::size_t kUuidLength = 36;

bool is_lower_hex(char c) noexcept { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }
bool is_base36(char c) noexcept { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z'); }
bool is_alnum(char c) noexcept { return is_base36(c) || (c >= 'A' && c <= 'Z'); }

std::string slot_text(const model::NodeTag& node, const std::string& uid, std::uint32_t slot) {
  const std::string prefix = "cj" + node.value;
  return model::CellName{node, uid, slot}.host_link().substr(prefix.size());
}

// `path` is `root` or lies below it.
bool below(std::string_view path, std::string_view root) noexcept {
  return !root.empty() && path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

}  // namespace

bool is_uuid(std::string_view text) noexcept {
  if (text.size() != kUuidLength) {
    return false;
  }
  for (std::size_t i = 0; i < kUuidLength; ++i) {
    const bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
    if (hyphen ? text[i] != '-' : !is_lower_hex(text[i])) {
      return false;
    }
  }
  return true;
}

std::optional<std::uint64_t> parse_number(std::string_view digits) noexcept {
  std::uint64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
    return std::nullopt;
  }
  return value;
}

std::string to_text(const base::FileId& id) { return std::to_string(id.dev) + ":" + std::to_string(id.ino); }

std::optional<ObjectId> parse_object_id(std::string_view identity) noexcept {
  const std::size_t first = identity.find(':');
  if (first == std::string_view::npos) {
    return std::nullopt;
  }
  const std::size_t second = identity.find(':', first + 1);
  const auto dev = parse_number(identity.substr(0, first));
  const auto ino = parse_number(identity.substr(first + 1, second == std::string_view::npos ? second : second - first - 1));
  if (!dev || !ino) {
    return std::nullopt;
  }
  ObjectId id{{*dev, *ino}, std::nullopt};
  if (second != std::string_view::npos) {
    id.cookie = parse_number(identity.substr(second + 1));
    if (!id.cookie) {
      return std::nullopt;
    }
  }
  return id;
}

std::optional<base::ProcessId> parse_process_id(std::string_view identity) noexcept {
  const auto id = parse_object_id(identity);
  if (!id || id->cookie || id->file.dev == 0 || id->file.dev > INT32_MAX) {
    return std::nullopt;
  }
  return base::ProcessId{static_cast<pid_t>(id->file.dev), id->file.ino};
}

std::optional<LinkId> parse_link_id(std::string_view identity) noexcept {
  const std::size_t at = identity.find('@');
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  const auto ifindex = parse_number(identity.substr(0, at));
  const auto netns = parse_object_id(identity.substr(at + 1));
  if (!ifindex || *ifindex == 0 || *ifindex > UINT32_MAX || !netns) {
    return std::nullopt;
  }
  return LinkId{static_cast<std::uint32_t>(*ifindex), netns->file};
}

model::Inventory of_this_boot(model::Inventory inventory, const std::string& boot_id) {
  if (boot_id.empty()) {
    return inventory;
  }
  const auto now = base::boot_id();
  if (now.ok() && *now == boot_id) {
    return inventory;
  }
  for (model::InventoryItem& item : inventory) {
    switch (item.kind) {
      case model::ItemKind::kProcess: case model::ItemKind::kCgroup: case model::ItemKind::kNetns:
      case model::ItemKind::kLink: case model::ItemKind::kBpfProgram: case model::ItemKind::kBpfMap:
      case model::ItemKind::kBpfLink: case model::ItemKind::kBpfPin: case model::ItemKind::kMount:
      case model::ItemKind::kSocket:
        item.identity.clear();
        break;
      case model::ItemKind::kFile: case model::ItemKind::kContainer: case model::ItemKind::kTask:
      case model::ItemKind::kLease: case model::ItemKind::kSnapshot:
        break;  // on disk: a reboot changes nothing
    }
  }
  return inventory;
}

Subject::Subject(const CellScope& scope)
    : breadth_(Breadth::kCell), node_(scope.node), uid_(scope.uid), vmm_uid_(scope.vmm_uid), node_uids_(scope.node_uids), paths_(scope.paths),
      inventory_(of_this_boot(scope.inventory, scope.boot_id)) {
  if (scope.slot) {
    own_slots_.insert(slot_text(node_, uid_, *scope.slot));
  }
  fill_defaults();
}

Subject::Subject(const NodeScope& scope)
    : breadth_(Breadth::kNode), node_(scope.node), node_uids_(scope.node_uids), paths_(scope.paths), inventory_(scope.inventory) {
  for (const LiveCell& cell : scope.live) {
    live_uids_.insert(cell.uid);
    if (cell.slot) {
      live_slots_.insert(slot_text(node_, cell.uid, *cell.slot));
    }
    for (const model::InventoryItem& item : cell.inventory) {
      live_names_.emplace(item.kind, item.name);
      if (!item.identity.empty()) {
        live_ids_.emplace(item.kind, item.identity);
      }
    }
  }
  fill_defaults();
}

void Subject::fill_defaults() {
  const auto trim = [](std::string& path) {
    while (path.size() > 1 && path.back() == '/') {
      path.pop_back();
    }
  };
  trim(paths_.run_dir);
  trim(paths_.state_dir);
  if (paths_.netns_dir.empty()) {
    paths_.netns_dir = paths_.run_dir + "/netns";
  }
  if (paths_.bpf_dir.empty()) {
    paths_.bpf_dir = paths_.run_dir + "/bpf";
  }
  if (paths_.router_netns.empty()) {
    paths_.router_netns = paths_.netns_dir + "/" + model::router_name(node_);
  }
  trim(paths_.proc);
}

std::vector<model::InventoryItem> Subject::items(model::ItemKind kind) const {
  std::vector<model::InventoryItem> out;
  std::copy_if(inventory_.begin(), inventory_.end(), std::back_inserter(out),
               [&](const model::InventoryItem& item) { return item.kind == kind; });
  return out;
}

bool Subject::has(model::ItemKind kind) const {
  return std::any_of(inventory_.begin(), inventory_.end(),
                     [&](const model::InventoryItem& item) { return item.kind == kind; });
}

bool Subject::is_live(model::ItemKind kind, std::string_view identity) const {
  return live_ids_.contains({kind, std::string(identity)});
}

bool Subject::trusts_uid(std::uint32_t uid) const noexcept {
  return uid == 0 || std::any_of(node_uids_.begin(), node_uids_.end(),
                                 [&](const UidRange& range) { return uid >= range.base && uid - range.base < range.count; });
}

bool Subject::in_node_folder(std::string_view path) const noexcept {
  if (path.find("/../") != std::string_view::npos || path.ends_with("/..")) {
    return false;  // a socket's name is what bind(2) was given
  }
  if (below(path, paths_.run_dir) || below(path, paths_.state_dir) || below(path, paths_.netns_dir) ||
      below(path, paths_.bpf_dir)) {
    return true;
  }
  const auto& containerd = paths_.containerd;
  return containerd &&
         (below(path, containerd->state) || below(path, containerd->root) || below(path, containerd->shim_sockets));
}

bool Subject::is_live_uid(std::string_view uid) const { return live_uids_.contains(uid); }

bool Subject::wants(std::string_view uid) const {
  return breadth_ == Breadth::kCell ? uid == uid_ : !live_uids_.contains(uid);
}

std::string Subject::why_uid(std::string_view uid) const {
  return is_uuid(uid) && wants(uid) ? "marker of cell " + std::string(uid) : std::string();
}

std::string Subject::why_text(std::string_view text) const {
  const std::string prefix = "cr-" + node_.value + "-";
  for (std::size_t at = text.find(prefix); at != std::string_view::npos; at = text.find(prefix, at + 1)) {
    // As a word: "xcr-…", "my-cr-…" and "cr-…-<uid>0" are other people's names; ".cr-…" is containerd's hidden bundle.
    if (at > 0 && (is_alnum(text[at - 1]) || text[at - 1] == '-' || text[at - 1] == '_')) {
      continue;
    }
    const std::string_view uid = text.substr(at + prefix.size(), kUuidLength);
    const std::size_t end = at + prefix.size() + kUuidLength;
    if (end < text.size() && is_alnum(text[end])) {
      continue;
    }
    if (std::string why = why_uid(uid); !why.empty()) {
      return why;
    }
  }
  return {};
}

std::string Subject::why_path(std::string_view path) const {
  const std::string cells = paths_.run_dir + "/cells/";
  if (path.starts_with(cells)) {
    const std::string_view rest = path.substr(cells.size());
    const std::string_view name = rest.substr(0, rest.find_first_of("/ "));
    if (!name.empty() && wants(name)) {
      return "run folder of cell " + std::string(name);
    }
  }
  return why_text(path);
}

std::string Subject::why_cgroup(std::string_view path) const {
  const std::string prefix = "/cellrun/" + node_.value + "/";
  for (std::size_t at = path.find(prefix); at != std::string_view::npos; at = path.find(prefix, at + 1)) {
    const std::string_view rest = path.substr(at + prefix.size());
    const std::string_view name = rest.substr(0, rest.find_first_of("/ "));  // "… (deleted)"
    if (is_uuid(name) && wants(name)) {
      return "cgroup of cell " + std::string(name);
    }
  }
  return {};
}

std::string Subject::why_slot(std::string_view name, std::string_view prefix) const {
  if (!name.starts_with(prefix)) {
    return {};
  }
  const std::string_view rest = name.substr(prefix.size());
  const auto end = static_cast<std::size_t>(std::find_if_not(rest.begin(), rest.end(), is_base36) - rest.begin());
  const std::string_view slot = rest.substr(0, end);
  if (slot.empty() || slot.size() > 3) {
    return {};  // the node's own (no slot), or no name of ours
  }
  if (breadth_ == Breadth::kCell) {
    return own_slots_.contains(slot) ? "name of slot " + std::string(slot) : std::string();
  }
  if (live_slots_.contains(slot)) {
    return {};
  }
  return "name with the node's tag, slot " + std::string(slot) + " is not live";
}

std::string Subject::why_link(std::string_view name) const {
  if (live_names_.contains({model::ItemKind::kLink, std::string(name)})) {
    return {};
  }
  for (const model::InventoryItem& item : inventory_) {
    if (item.kind == model::ItemKind::kLink && item.name == name && name.find(node_.value) != std::string_view::npos) {
      return "journalled name";
    }
  }
  return why_slot(name, "cj" + node_.value);
}

std::string Subject::why_bpf(std::string_view name) const {
  // Names of objects in the kernel are cut to 15 characters, and kept for the object's life.
  constexpr std::size_t kNameLength = 15;
  if (live_names_.contains({model::ItemKind::kBpfProgram, std::string(name)}) ||
      live_names_.contains({model::ItemKind::kBpfMap, std::string(name)})) {
    return {};
  }
  for (const model::InventoryItem& item : inventory_) {
    const bool bpf = item.kind == model::ItemKind::kBpfProgram || item.kind == model::ItemKind::kBpfMap;
    if (bpf && !name.empty() && std::string_view(item.name).substr(0, kNameLength) == name &&
        name.find(node_.value) != std::string_view::npos) {
      return "journalled name";
    }
  }
  return why_slot(name, "cr" + node_.value);
}

const model::InventoryItem* Subject::journalled_path(std::string_view path) const {
  for (const model::InventoryItem& item : inventory_) {
    switch (item.kind) {
      case model::ItemKind::kFile: case model::ItemKind::kSocket: case model::ItemKind::kNetns:
      case model::ItemKind::kBpfPin: case model::ItemKind::kMount:
        if (below(path, item.name)) {
          return &item;
        }
        break;
      case model::ItemKind::kProcess: case model::ItemKind::kCgroup: case model::ItemKind::kLink:
      case model::ItemKind::kBpfProgram: case model::ItemKind::kBpfMap: case model::ItemKind::kBpfLink:
      case model::ItemKind::kContainer: case model::ItemKind::kTask: case model::ItemKind::kLease:
      case model::ItemKind::kSnapshot:
        break;
    }
  }
  return nullptr;
}

const model::InventoryItem* Subject::journalled_file(const base::FileId& id) const {
  for (const model::InventoryItem& item : inventory_) {
    if (item.kind != model::ItemKind::kFile && item.kind != model::ItemKind::kSocket) {
      continue;
    }
    if (const auto known = parse_object_id(item.identity); known && known->file == id) {
      return &item;
    }
  }
  return nullptr;
}

}  // namespace cellrund::residue
