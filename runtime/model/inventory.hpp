// What a cell may own on the host. Journalled by the ledger, intent before creation and identity after it, so that the
// way back works after a crash at any point; the residue scan proves the absence of each entry.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cellrund::model {

enum class ItemKind {
  kProcess,         // name: role (vmm, shim, cell-init, box); identity "pid:start_time"
  kCgroup,          // name: absolute path of the directory; identity "dev:ino"
  kNetns,           // name: path of the bind mount; identity "dev:ino:cookie" (SO_NETNS_COOKIE), or "dev:ino"
  kLink,            // name: link name; identity "ifindex@netns_dev:netns_ino"
  kBpfProgram,      // name: program name; identity: id
  kBpfMap,          // name: map name; identity: id
  kBpfLink,         // name: attach point; identity: id
  kBpfPin,          // name: path; identity "dev:ino"
  kMount,           // name: mount point; identity: mount id
  kFile,            // name: path (file, FIFO or folder); identity "dev:ino"
  kSocket,          // name: path of a Unix socket; identity "dev:ino"
  kContainer,       // name: containerd container id
  kTask,            // name: containerd task id
  kLease,           // name: containerd lease id
  kSnapshot,        // name: snapshotter/key
};
[[nodiscard]] std::string_view to_string(ItemKind kind) noexcept;
[[nodiscard]] std::optional<ItemKind> parse_item_kind(std::string_view text) noexcept;

struct InventoryItem {
  ItemKind kind = ItemKind::kFile;
  std::string name;
  std::string identity;  // empty while only the intent is known
  friend bool operator==(const InventoryItem&, const InventoryItem&) = default;
};

using Inventory = std::vector<InventoryItem>;

}  // namespace cellrund::model
