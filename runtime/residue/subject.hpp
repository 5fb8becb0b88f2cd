// Whose objects a scan is about: the one place that turns a name, path or number into "this belongs to the cell", with
// the reason, or into "not ours". Look-alikes (another node's tag, a longer uid, a name that only contains ours) are not
// claimed. Internal to residue; immutable, so safe to read from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"
#include "base/process.hpp"
#include "residue/scope.hpp"

namespace cellrund::residue {

enum class Breadth { kCell, kNode };

// "dev:ino", or "dev:ino:cookie" for a network namespace (SO_NETNS_COOKIE, never reused in one boot).
struct ObjectId {
  base::FileId file;
  std::optional<std::uint64_t> cookie;
};
[[nodiscard]] std::optional<ObjectId> parse_object_id(std::string_view identity) noexcept;
// "pid:start_time"
[[nodiscard]] std::optional<base::ProcessId> parse_process_id(std::string_view identity) noexcept;
// "ifindex@dev:ino" of the namespace that holds the link.
struct LinkId {
  std::uint32_t ifindex = 0;
  base::FileId netns;
};
[[nodiscard]] std::optional<LinkId> parse_link_id(std::string_view identity) noexcept;
[[nodiscard]] std::optional<std::uint64_t> parse_number(std::string_view digits) noexcept;
[[nodiscard]] std::string to_text(const base::FileId& id);
// 36 characters, lower-case hex and hyphens where RFC 9562 has them.
[[nodiscard]] bool is_uuid(std::string_view text) noexcept;

class Subject {
 public:
  explicit Subject(const CellScope& scope);
  explicit Subject(const NodeScope& scope);

  [[nodiscard]] Breadth breadth() const noexcept { return breadth_; }
  [[nodiscard]] const model::NodeTag& node() const noexcept { return node_; }
  [[nodiscard]] const std::string& uid() const noexcept { return uid_; }  // empty for a node
  [[nodiscard]] const Paths& paths() const noexcept { return paths_; }    // with every default filled in
  [[nodiscard]] std::optional<std::uint32_t> vmm_uid() const noexcept { return vmm_uid_; }
  [[nodiscard]] std::vector<model::InventoryItem> items(model::ItemKind kind) const;
  [[nodiscard]] bool has(model::ItemKind kind) const;
  // Of cells that may exist.
  [[nodiscard]] bool is_live(model::ItemKind kind, std::string_view identity) const;
  [[nodiscard]] bool is_live_uid(std::string_view uid) const;

  // Whether only root or the node makes things under this uid.
  [[nodiscard]] bool trusts_uid(std::uint32_t uid) const noexcept;
  // Below a folder in which only root and the node make names.
  [[nodiscard]] bool in_node_folder(std::string_view path) const noexcept;

  // Each answers why the object is claimed; empty: it is not ours.
  [[nodiscard]] std::string why_uid(std::string_view uid) const;         // a uid out of an exact marker
  [[nodiscard]] std::string why_text(std::string_view text) const;       // "cr-<tag>-<uid>" anywhere, as a word
  [[nodiscard]] std::string why_path(std::string_view path) const;       // the same, or below <run>/cells/<uid>
  [[nodiscard]] std::string why_cgroup(std::string_view path) const;     // …/cellrun/<tag>/<uid>
  [[nodiscard]] std::string why_link(std::string_view name) const;
  [[nodiscard]] std::string why_bpf(std::string_view name) const;
  // A path of the inventory, or below it. Names that carry the cell are claimed by why_path already; this is for the
  // others, where only identity can tell (see FileProbe).
  [[nodiscard]] const model::InventoryItem* journalled_path(std::string_view path) const;
  // The journalled file or socket that is this very object, whatever its path is now.
  [[nodiscard]] const model::InventoryItem* journalled_file(const base::FileId& id) const;

 private:
  void fill_defaults();
  [[nodiscard]] bool wants(std::string_view uid) const;
  [[nodiscard]] std::string why_slot(std::string_view name, std::string_view prefix) const;

  Breadth breadth_;
  model::NodeTag node_;
  std::string uid_;
  std::optional<std::uint32_t> vmm_uid_;
  std::vector<UidRange> node_uids_;
  Paths paths_;
  model::Inventory inventory_;
  std::set<std::string, std::less<>> own_slots_;   // base 36
  std::set<std::string, std::less<>> live_slots_;
  std::set<std::string, std::less<>> live_uids_;
  std::set<std::pair<model::ItemKind, std::string>> live_ids_;
  std::set<std::pair<model::ItemKind, std::string>> live_names_;
};

}  // namespace cellrund::residue
