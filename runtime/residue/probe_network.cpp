// Network namespaces, the links in them, and Unix sockets bound to the cell's paths.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <set>

#include "base/file.hpp"
#include "residue/link_list.hpp"
#include "residue/namespace_visit.hpp"
#include "residue/probes.hpp"
#include "residue/unix_list.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxNamespaces = 65536;

bool vanished(int err) noexcept { return err == ENOENT || err == ESRCH || err == ENOTDIR; }

std::string holder_path(const Subject& subject, const NamespaceHolder& holder) {
  return subject.paths().proc + "/" + std::to_string(holder.pid) + "/" + holder.via;
}

// Network namespaces bound in the node's folder: the names tell whose an inode number is now, for numbers are reused.
class BoundNamespaces {
 public:
  static base::Result<BoundNamespaces> read(const Subject& subject) {
    BoundNamespaces bound;
    auto names = base::list_dir(subject.paths().netns_dir, kMaxNamespaces);
    if (!names.ok()) {
      if (vanished(names.error().os_errno())) {
        return bound;
      }
      return std::move(names).error();
    }
    for (std::string& name : *names) {
      auto id = base::file_id(subject.paths().netns_dir + "/" + name);
      if (id.ok()) {
        bound.entries_.push_back({std::move(name), *id});
      } else if (!vanished(id.error().os_errno())) {
        return std::move(id).error();
      }
    }
    return bound;
  }
  struct Entry {
    std::string name;
    base::FileId id;
  };
  [[nodiscard]] const std::vector<Entry>& entries() const noexcept { return entries_; }
  // Bound under a name that is not the subject's.
  [[nodiscard]] bool belongs_to_other(const Subject& subject, std::uint64_t ino) const {
    for (const Entry& entry : entries_) {
      if (entry.id.ino == ino && subject.why_text(entry.name).empty()) {
        return true;
      }
    }
    return false;
  }

 private:
  std::vector<Entry> entries_;
};

// The journal's cookie, where it has one, decides whether a namespace with the right inode number is the right one.
bool is_other_namespace(const Subject& subject, const NamespaceHolder& holder, const ObjectId& id, Look& look) {
  if (!id.cookie) {
    return false;
  }
  const auto fd = base::open_file(holder_path(subject, holder), O_RDONLY);
  if (!fd.ok()) {
    return vanished(fd.error().os_errno());  // gone meanwhile
  }
  const auto cookie = network_cookie(fd->get());
  if (!cookie.ok()) {
    look.blind(cookie.error());
    return false;
  }
  return *cookie != *id.cookie;
}

class LinkLook {
 public:
  explicit LinkLook(Pass& pass) : pass_(pass), subject_(pass.subject()), look_("link", "RTM_GETLINK by name and ifindex") {}

  Look run() {
    journalled();
    if (auto socket = open_route_socket(); socket.ok()) {
      claim(socket->get(), "our network namespace", std::nullopt, true);
    } else {
      look_.blind(socket.error());
    }
    visit(subject_.paths().router_netns, true);
    if (subject_.breadth() == Breadth::kNode) {
      for (const auto& [ino, holders] : pass_.walk().network) {
        if (!seen_.contains(ino) && !holders.empty()) {
          visit(holder_path(subject_, holders.front()), false);
        }
      }
      pass_.add_walk_failures(look_);
    }
    return std::move(look_);
  }

 private:
  void journalled() {
    for (const model::InventoryItem& item : subject_.items(model::ItemKind::kLink)) {
      const auto id = parse_link_id(item.identity);
      if (id) {
        by_index_.push_back({item, *id});
      } else if (!item.identity.empty()) {
        look_.blind("journalled link " + item.name + ": identity is not ifindex@dev:ino");
      }
    }
  }

  void visit(const std::string& path, bool router) {
    const auto fd = base::open_file(path, O_RDONLY);
    if (!fd.ok()) {
      // A router namespace that is bound nowhere can only live on in a process or descriptor, and then its links are
      // found there; without either it is gone, and every link in it.
      if (!vanished(fd.error().os_errno())) {
        look_.blind(fd.error());
      } else if (router) {
        router_unbound();
      }
      return;
    }
    const auto id = base::file_id(fd->get());
    if (!id.ok()) {
      look_.blind(id.error());
      return;
    }
    base::Result<base::UniqueFd> socket = base::UniqueFd();
    const auto entered = in_network_namespace(fd->get(), [&] { socket = open_route_socket(); });
    if (!entered.ok() || !socket.ok()) {
      look_.blind((entered.ok() ? socket.error().message() : entered.error().message()) + " in " + path);
      return;
    }
    seen_.insert(id->ino);
    // In a network namespace of their own users give links any name.
    claim(socket->get(), path, *id, router || owned_by_root(fd->get()));
  }

  void router_unbound() {
    for (const auto& [item, id] : by_index_) {
      const auto held = pass_.walk().network.find(id.netns.ino);
      if (held != pass_.walk().network.end() && !held->second.empty() && !seen_.contains(id.netns.ino)) {
        visit(holder_path(subject_, held->second.front()), false);
      }
    }
    pass_.add_walk_failures(look_);
  }

  void claim(int socket, const std::string& where, std::optional<base::FileId> netns, bool names_count) {
    const auto links = list_links(socket, pass_.deadline());
    if (!links.ok()) {
      look_.blind("links of " + where + ": " + links.error().message());
      return;
    }
    for (const Link& link : *links) {
      std::string identity = std::to_string(link.ifindex);
      if (netns) {
        identity += "@" + to_text(*netns);
      }
      if (subject_.is_live(model::ItemKind::kLink, identity)) {
        continue;
      }
      std::string why = names_count ? subject_.why_link(link.name) : std::string();
      if (why.empty() && netns) {
        why = renamed(link, *netns);
      }
      if (!why.empty()) {
        look_.found({{model::ItemKind::kLink, link.name, identity, why + ", in " + where}, true});
      }
    }
  }

  // The journalled ifindex in the journalled namespace under another name. Indexes are handed out in ascending order,
  // so this is our link renamed, unless somebody asked for that very number; a name of another cell's slot says so.
  std::string renamed(const Link& link, const base::FileId& netns) const {
    if (link.name.starts_with("cj" + subject_.node().value)) {
      return {};
    }
    for (const auto& [item, id] : by_index_) {
      if (id.ifindex == link.ifindex && id.netns == netns) {
        return "journalled ifindex of " + item.name;
      }
    }
    return {};
  }

  Pass& pass_;
  const Subject& subject_;
  Look look_;
  std::vector<std::pair<model::InventoryItem, LinkId>> by_index_;
  std::set<std::uint64_t> seen_;
};

// Anybody can bind any name: an abstract one, or a path in a mount namespace of their own. So it counts only from root or
// the node, or where the path leads to this very socket in our own mount namespace, in a folder of the node.
bool made_by_node(const Subject& subject, const UnixSocket& socket) {
  if (!socket.uid || subject.trusts_uid(*socket.uid)) {
    return true;
  }
  struct stat st {};
  return socket.file && subject.in_node_folder(socket.name) && ::lstat(socket.name.c_str(), &st) == 0 &&
         base::FileId{st.st_dev, st.st_ino} == *socket.file;
}

// Of the network namespace that the calling thread is in.
void claim_sockets(const Subject& subject, base::Deadline deadline, Look& look, std::set<std::string>& seen) {
  const auto sockets = list_unix_sockets(deadline);
  if (!sockets.ok()) {
    look.blind(sockets.error());
    return;
  }
  for (const UnixSocket& socket : *sockets) {
    std::string why = subject.why_path(socket.name);
    if (why.empty()) {
      const model::InventoryItem* item = subject.journalled_path(socket.name);
      if (item != nullptr && item->kind == model::ItemKind::kSocket && item->name == socket.name) {
        why = "journalled path";
      }
    }
    if (!why.empty() && made_by_node(subject, socket) && seen.insert(socket.name).second) {
      look.found({{model::ItemKind::kSocket, socket.name, "sockfs:" + std::to_string(socket.inode), why}, true});
    }
  }
}

void claim_sockets_of(const std::string& netns, const Subject& subject, base::Deadline deadline, Look& look,
                      std::set<std::string>& seen) {
  const auto fd = base::open_file(netns, O_RDONLY);
  if (!fd.ok()) {
    if (!vanished(fd.error().os_errno())) {
      look.blind(fd.error());
    }
    return;
  }
  const auto entered = in_network_namespace(fd->get(), [&] { claim_sockets(subject, deadline, look, seen); });
  if (!entered.ok()) {
    look.blind(entered.error().message() + " in " + netns);
  }
}

}  // namespace

Look look_at_network_namespaces(Pass& pass) {
  const Subject& subject = pass.subject();
  Look look("netns", "/proc/*/ns/net, /proc/*/fd, entries of " + subject.paths().netns_dir);
  const auto bound = BoundNamespaces::read(subject);
  if (!bound.ok()) {
    look.blind(bound.error());
    return look;
  }
  std::set<std::uint64_t> claimed;
  for (const BoundNamespaces::Entry& entry : bound->entries()) {
    const std::string why = subject.why_text(entry.name);
    if (!why.empty()) {
      claimed.insert(entry.id.ino);
      look.found({{model::ItemKind::kNetns, subject.paths().netns_dir + "/" + entry.name, to_text(entry.id), why}, false});
    }
  }
  const auto holders = [&](std::uint64_t ino, const std::string& name, const std::string& identity, const ObjectId* id,
                           const std::string& why) {
    std::size_t count = 0;
    const auto found = pass.walk().network.find(ino);
    if (found == pass.walk().network.end()) {
      return count;
    }
    for (const NamespaceHolder& holder : found->second) {
      if (id == nullptr || !is_other_namespace(subject, holder, *id, look)) {
        const auto process = identify(subject.paths().proc, holder.pid);
        look.found({{model::ItemKind::kNetns, name, identity,
                     why + ", held by " + (process.ok() ? process->comm : std::string("a process")) + " (pid " +
                         std::to_string(holder.pid) + ", " + holder.via + ")"},
                    true});
        ++count;
      }
    }
    return count;
  };
  for (const model::InventoryItem& item : subject.items(model::ItemKind::kNetns)) {
    if (item.identity.empty()) {
      continue;
    }
    const auto id = parse_object_id(item.identity);
    if (!id) {
      look.blind("journalled network namespace " + item.name + ": identity is not dev:ino");
      continue;
    }
    if (claimed.contains(id->file.ino) || subject.is_live(model::ItemKind::kNetns, item.identity)) {
      continue;
    }
    const Existence existence =
        id->cookie ? network_namespace_existence(id->file.ino, *id->cookie) : Existence::kNotTold;
    if (existence == Existence::kGone) {
      continue;  // the kernel has no such namespace: whoever has this inode number now has another one
    }
    if (existence == Existence::kNotTold && bound->belongs_to_other(subject, id->file.ino)) {
      continue;
    }
    if (holders(id->file.ino, item.name, item.identity, &*id, "journalled identity") == 0 &&
        existence == Existence::kExists) {
      look.found({{model::ItemKind::kNetns, item.name, item.identity, "exists in the kernel, held by nobody in sight"}, true});
    }
  }
  for (const std::uint64_t ino : claimed) {
    (void)holders(ino, "net:[" + std::to_string(ino) + "]", std::to_string(ino), nullptr, "bound under the cell's marker");
  }
  pass.add_walk_failures(look);
  return look;
}

Look look_at_links(Pass& pass) { return LinkLook(pass).run(); }

Look look_at_sockets(Pass& pass) {
  const Subject& subject = pass.subject();
  Look look("socket", "sock_diag of our and the router's network namespace");
  std::set<std::string> seen;
  claim_sockets(subject, pass.deadline(), look, seen);
  claim_sockets_of(subject.paths().router_netns, subject, pass.deadline(), look, seen);
  if (subject.breadth() == Breadth::kNode) {
    for (const auto& [ino, holders] : pass.walk().network) {
      for (const NamespaceHolder& holder : holders) {
        if (holder.via == "ns/net") {
          claim_sockets_of(holder_path(subject, holder), subject, pass.deadline(), look, seen);
          break;
        }
      }
    }
  }
  return look;
}

}  // namespace cellrund::residue
