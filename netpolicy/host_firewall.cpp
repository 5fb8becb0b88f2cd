#include "netpolicy/host_firewall.hpp"

#include "model/ipv4.hpp"
#include "netpolicy/names.hpp"

namespace cellrund::netpolicy {
namespace {

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

// Replies to what others of this host sent, and what somebody's own rules send on to a container, go where they went before.
// Everything else that the interface now forwards only because of us it does not.
std::string guard_rules(const std::string& interface) {
  const std::string foreign = "    iifname " + quoted(interface) + " oifname != " + quoted(std::string(kHostLinkPrefix) + "*") + " ";
  return foreign + "ct state established,related accept\n" +
         foreign + "ct status dnat accept\n" +
         foreign + "counter name foreign drop\n";
}

}  // namespace

// The host's own addresses are those that its input hook sees, whatever has been translated before. An accept here ends this
// chain only: a host firewall with a forward policy of its own still has its say.
std::string host_table_ruleset(const HostTable& table) {
  const std::string name = "inet " + host_table(table.node);
  const std::string link = quoted(uplink_host_link(table.node));
  const std::string interface = quoted(table.interface);
  const std::string source = "ip saddr " + model::format_ipv4(table.address);
  return host_table_removal(table.node) +
         "table " + name + " {\n"
         "  counter to_host {}\n"
         "  counter sent {}\n"
         "  counter elsewhere {}\n"
         "  counter returned {}\n"
         "  counter uninvited {}\n"
         "  counter foreign {}\n"
         "  chain input {\n"
         "    type filter hook input priority filter; policy accept;\n"
         "    iifname " + link + " counter name to_host drop\n"
         "  }\n"
         "  chain forward {\n"
         "    type filter hook forward priority filter; policy accept;\n"
         "    iifname " + link + " oifname " + interface + " " + source + " ct state new,established,related counter name sent accept\n"
         "    iifname " + link + " counter name elsewhere drop\n"
         "    iifname " + interface + " oifname " + link + " ct state established,related counter name returned accept\n"
         "    oifname " + link + " counter name uninvited drop\n" +
         (table.guard ? guard_rules(table.interface) : "") +
         "  }\n"
         "  chain postrouting {\n"
         "    type nat hook postrouting priority srcnat; policy accept;\n"
         "    " + source + " oifname " + interface + " masquerade\n"
         "  }\n"
         "}\n";
}

// `table` before `delete table`: deleting one that does not exist would fail the transaction.
std::string host_table_removal(const model::NodeTag& node) {
  const std::string name = "inet " + host_table(node);
  return "table " + name + "\ndelete table " + name + "\n";
}

}  // namespace cellrund::netpolicy
