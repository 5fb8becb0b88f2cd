// The attack list of a jobspec's contents: what is wrong, and the reason and field that a submitter reads.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "example.hpp"
#include "job/parse.hpp"

using namespace cellrund;
using job::test::edited;
using model::Reason;

namespace {

constexpr auto kSchema = Reason::kSchemaInvalid;
constexpr auto kUnsupported = Reason::kUnsupportedField;
constexpr auto kUnpinned = Reason::kImageNotPinned;

std::string quoted(const std::string& text) { return "\"" + text + "\""; }
std::string list_of(std::size_t n, const std::string& item) {
  std::string out = "[";
  for (std::size_t i = 0; i < n; ++i) {
    out += (i == 0 ? "" : ",") + item;
  }
  return out + "]";
}
std::string map_of(std::size_t n) {
  std::string out = "{";
  for (std::size_t i = 0; i < n; ++i) {
    out += (i == 0 ? "\"k" : ",\"k") + std::to_string(i) + "\":\"v\"";
  }
  return out + "}";
}
const std::string kDigest = "@sha256:" + std::string(64, 'a');

struct Edit {
  const char* path;
  std::string json;  // "-": remove
  Reason reason;
  std::string field = {};  // empty: the path itself
};

const std::vector<Edit> kEdits = {
    // document
    {"apiVersion", "-", kSchema}, {"apiVersion", "\"cellrun.dev/v2\"", kSchema}, {"apiVersion", "\"v1\"", kSchema}, {"apiVersion", "1", kSchema},
    {"kind", "-", kSchema}, {"kind", "\"job\"", kSchema}, {"kind", "\"Evidence\"", kSchema}, {"kind", "null", kSchema},
    {"metadata", "-", kSchema}, {"metadata", "[]", kSchema}, {"spec", "-", kSchema}, {"spec", "\"x\"", kSchema}, {"status", "{}", kSchema},
    {"Spec", "{}", kSchema}, {"hostPath", "\"/\"", kSchema},
    // metadata
    {"metadata.name", "-", kSchema}, {"metadata.name", "\"\"", kSchema}, {"metadata.name", "\"Upper\"", kSchema}, {"metadata.name", "\"-a\"", kSchema},
    {"metadata.name", quoted(std::string(64, 'a')), kSchema}, {"metadata.name", "\"a_b\"", kSchema}, {"metadata.name", "\"a\\n\"", kSchema},
    {"metadata.name", "\"\\u0430dmin\"", kSchema}, {"metadata.name", "7", kSchema}, {"metadata.name", "\"../x\"", kSchema},
    {"metadata.namespace", "-", kSchema}, {"metadata.namespace", "\"*\"", kSchema}, {"metadata.namespace", "\"a/b\"", kSchema},
    {"metadata.uid", "-", kSchema}, {"metadata.uid", "\"\"", kSchema}, {"metadata.uid", "\"0199c1f2-7b1e-4c3a-9d2e-2f4b6a8c0e11\"", kSchema},
    {"metadata.uid", "\"0199C1F2-7B1E-7C3A-9D2E-2F4B6A8C0E11\"", kSchema}, {"metadata.uid", "\"../../../../../../../../../../etc/passwd\"", kSchema},
    {"metadata.uid", "\"0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e1\"", kSchema}, {"metadata.uid", quoted(std::string(2000, 'a')), kSchema},
    {"metadata.issuedAt", "-", kSchema}, {"metadata.issuedAt", "\"2026-11-21\"", kSchema}, {"metadata.issuedAt", "\"2026-11-21T10:00:00+01:00\"", kSchema},
    {"metadata.issuedAt", "\"2026-13-21T10:00:00Z\"", kSchema}, {"metadata.issuedAt", "1700000000", kSchema},
    {"metadata.expiresAt", "-", kSchema}, {"metadata.expiresAt", "\"2026-11-21T10:00:00Z\"", kSchema}, {"metadata.expiresAt", "\"2020-01-01T00:00:00Z\"", kSchema},
    {"metadata.expiresAt", "\"99999-01-01T00:00:00Z\"", kSchema}, {"metadata.notBefore", "\"2026-11-21T11:00:00Z\"", kSchema, "metadata.expiresAt"},
    {"metadata.notBefore", "null", kSchema}, {"metadata.labels", "[]", kSchema}, {"metadata.labels", map_of(33), kSchema},
    {"metadata.labels", R"({"a":1})", kSchema, "metadata.labels.a"}, {"metadata.labels", R"({"":"v"})", kSchema}, {"metadata.labels", R"({"a b":"v"})", kSchema},
    {"metadata.labels", R"({"a":"\u001b[2J"})", kSchema, "metadata.labels.a"}, {"metadata.annotations", R"({"a":")" + std::string(1025, 'x') + "\"}", kSchema, "metadata.annotations.a"},
    {"metadata.ownerReferences", "[]", kSchema},
    // who and where
    {"spec.audience", "\"\"", kSchema}, {"spec.audience", "\"pool a\"", kSchema}, {"spec.audience", "[\"a\"]", kSchema},
    {"spec.minTier", "-1", kSchema}, {"spec.minTier", "3", kSchema}, {"spec.minTier", "\"2\"", kSchema}, {"spec.minTier", "null", kSchema},
    {"spec.lane", "\"Microvm\"", kSchema}, {"spec.lane", "\"docker\"", kSchema}, {"spec.lane", "\"runc\"", kSchema}, {"spec.lane", "\"process\"", kSchema},
    {"spec.lane", "\"microvm\\u200b\"", kSchema}, {"spec.lane", "\"\"", kSchema},
    {"spec.principal", R"({"type":"root","id":"x"})", kSchema, "spec.principal.type"}, {"spec.principal", R"({"type":"agent"})", kSchema, "spec.principal.id"},
    {"spec.principal", R"({"type":"agent","id":""})", kSchema, "spec.principal.id"}, {"spec.principal", R"({"type":"agent","id":"*"})", kSchema, "spec.principal.id"},
    {"spec.principal", R"({"type":"agent","id":"a/b"})", kSchema, "spec.principal.id"}, {"spec.principal.onBehalfOf", list_of(9, "\"a\""), kSchema},
    {"spec.principal.onBehalfOf", "[\"\"]", kSchema, "spec.principal.onBehalfOf[0]"}, {"spec.principal", "null", kSchema}, {"spec.principal.roles", "[]", kSchema},
    // container
    {"spec.container", "-", kSchema}, {"spec.container.image", "-", kSchema}, {"spec.container.image", "\"\"", kUnpinned}, {"spec.container.image", "\"busybox\"", kUnpinned},
    {"spec.container.image", "\"busybox:latest\"", kUnpinned}, {"spec.container.image", quoted("busybox:1" + kDigest), kUnpinned},
    {"spec.container.image", "\"busybox@sha256:abc\"", kUnpinned}, {"spec.container.image", quoted("busybox@sha256:" + std::string(64, 'A')), kUnpinned},
    {"spec.container.image", quoted("busybox@sha512:" + std::string(128, 'a')), kUnpinned}, {"spec.container.image", quoted("busybox" + kDigest + " "), kUnpinned},
    {"spec.container.image", quoted("Busybox" + kDigest), kSchema}, {"spec.container.image", quoted("../busybox" + kDigest), kSchema},
    {"spec.container.image", quoted("busybox" + kDigest + kDigest), kUnpinned}, {"spec.container.image", quoted(kDigest), kSchema},
    {"spec.container.image", quoted("\\u202exobysub" + kDigest), kSchema},
    {"spec.container.command", "[]", kSchema}, {"spec.container.command", "[\"\"]", kSchema}, {"spec.container.command", "\"sh\"", kSchema},
    {"spec.container.command", "[1]", kSchema, "spec.container.command[0]"}, {"spec.container.command", list_of(1025, "\"a\""), kSchema},
    {"spec.container.args", "{}", kSchema}, {"spec.container.args", "[null]", kSchema, "spec.container.args[0]"},
    {"spec.container.args", "[" + quoted(std::string(32769, 'a')) + "]", kSchema, "spec.container.args[0]"},
    {"spec.container.env", R"({"A":"b"})", kSchema}, {"spec.container.env", R"([{"name":"A"}])", kSchema, "spec.container.env[0].value"},
    {"spec.container.env", R"([{"name":"A=B","value":""}])", kSchema, "spec.container.env[0].name"}, {"spec.container.env", R"([{"name":"","value":""}])", kSchema, "spec.container.env[0].name"},
    {"spec.container.env", R"([{"name":"1A","value":""}])", kSchema, "spec.container.env[0].name"},
    {"spec.container.env", R"([{"name":"A","value":""},{"name":"A","value":"x"}])", kSchema, "spec.container.env[1].name"},
    {"spec.container.env", R"([{"name":"A","valueFrom":{}}])", kSchema, "spec.container.env[0].valueFrom"}, {"spec.container.env", R"([{"name":"A","value":1}])", kSchema, "spec.container.env[0].value"},
    {"spec.container.env", list_of(257, R"({"name":"A","value":""})"), kSchema}, {"spec.container.workingDir", "\"\"", kSchema},
    {"spec.container.workingDir", "\"tmp\"", kSchema}, {"spec.container.workingDir", "\"/a/../b\"", kSchema}, {"spec.container.mounts", "[]", kSchema},
    {"spec.container.devices", "[]", kSchema}, {"spec.container.privileged", "true", kSchema},
    {"spec.container.securityContext.runAsUser", "-1", kSchema}, {"spec.container.securityContext.runAsUser", "4294967295", kSchema},
    {"spec.container.securityContext.runAsUser", "\"root\"", kSchema}, {"spec.container.securityContext.runAsGroup", "4294967296", kSchema},
    {"spec.container.securityContext.capabilities", "[\"ALL\"]", kSchema, "spec.container.securityContext.capabilities[0]"},
    {"spec.container.securityContext.capabilities", R"(["CAP_KILL","CAP_KILL"])", kSchema, "spec.container.securityContext.capabilities[1]"},
    {"spec.container.securityContext.capabilities", R"({"add":["CAP_KILL"]})", kSchema}, {"spec.container.securityContext.noNewPrivileges", "\"false\"", kSchema},
    {"spec.container.securityContext.readOnlyRootFilesystem", "0", kSchema}, {"spec.container.securityContext.privileged", "true", kSchema},
    // limits and times
    {"spec.resources", "-", kSchema}, {"spec.resources.limits", "-", kSchema}, {"spec.resources.requests", "{}", kSchema}, {"spec.resources.limits.cpu", "-", kSchema},
    {"spec.resources.limits.cpu", "1", kSchema}, {"spec.resources.limits.cpu", "\"0\"", kSchema}, {"spec.resources.limits.cpu", "\"-1\"", kSchema},
    {"spec.resources.limits.cpu", "\"1025\"", kSchema}, {"spec.resources.limits.cpu", "\"1e3\"", kSchema}, {"spec.resources.limits.cpu", "\"0.0001\"", kSchema},
    {"spec.resources.limits.cpu", "\"NaN\"", kSchema}, {"spec.resources.limits.memory", "-", kSchema}, {"spec.resources.limits.memory", "\"0\"", kSchema},
    {"spec.resources.limits.memory", "\"1Ei\"", kSchema}, {"spec.resources.limits.memory", "\"17Ti\"", kSchema}, {"spec.resources.limits.memory", "\"256MiB\"", kSchema},
    {"spec.resources.limits.memory", "268435456", kSchema}, {"spec.resources.limits.pids", "-", kSchema}, {"spec.resources.limits.pids", "0", kSchema},
    {"spec.resources.limits.pids", "\"max\"", kSchema}, {"spec.resources.limits.pids", "4194305", kSchema}, {"spec.resources.limits.ephemeral-storage", "\"-1Gi\"", kSchema},
    {"spec.resources.limits.ephemeralStorage", "\"1Gi\"", kSchema}, {"spec.activeDeadlineSeconds", "-", kSchema}, {"spec.activeDeadlineSeconds", "0", kSchema},
    {"spec.activeDeadlineSeconds", "-5", kSchema}, {"spec.activeDeadlineSeconds", "604801", kSchema}, {"spec.activeDeadlineSeconds", "9223372036854775807", kSchema},
    {"spec.activeDeadlineSeconds", "\"300\"", kSchema}, {"spec.activeDeadlineSeconds", "null", kSchema}, {"spec.startDeadlineSeconds", "0", kSchema},
    {"spec.startDeadlineSeconds", "86401", kSchema}, {"spec.terminationGracePeriodSeconds", "-1", kSchema}, {"spec.terminationGracePeriodSeconds", "601", kSchema},
    {"spec.stopSignal", "\"TERM\"", kSchema}, {"spec.stopSignal", "15", kSchema}, {"spec.stopSignal", "\"SIGSTOP\"", kSchema},
    {"spec.ttlSecondsAfterFinished", "-1", kSchema}, {"spec.ttlSecondsAfterFinished", "31536001", kSchema},
    {"spec.ttlSecondsAfterFinished", R"("86400")", kSchema}, {"spec.volumes.outputs", "null", kSchema}, {"spec.volumes.outputs", "[]", kSchema},
    {"spec.volumes.outputs", "{}", kSchema, "spec.volumes.outputs.maxBytes"},
    {"spec.volumes.outputs", R"({"maxBytes":1})", kSchema, "spec.volumes.outputs.maxFiles"},
    {"spec.volumes.outputs", R"({"maxBytes":0,"maxFiles":1})", kSchema, "spec.volumes.outputs.maxBytes"},
    {"spec.volumes.outputs", R"({"maxBytes":1,"maxFiles":0})", kSchema, "spec.volumes.outputs.maxFiles"},
    {"spec.volumes.outputs", R"({"maxBytes":1,"maxFiles":4097})", kSchema, "spec.volumes.outputs.maxFiles"},
    {"spec.volumes.outputs", R"({"maxBytes":1073741825,"maxFiles":1})", kSchema, "spec.volumes.outputs.maxBytes"},
    {"spec.volumes.outputs", R"({"maxBytes":1,"maxFiles":1,"path":"/x"})", kSchema, "spec.volumes.outputs.path"},
    {"spec.resources.limits.ephemeral-storage", "\"1Gi\"", kUnsupported}, {"spec.timeout", "5", kSchema},
    // volumes, secrets, network, logs
    {"spec.volumes.task", R"({"digest":"sha256:00"})", kSchema, "spec.volumes.task.digest"}, {"spec.volumes.task", "{}", kSchema, "spec.volumes.task.digest"},
    {"spec.volumes.workspace", "{}", kSchema, "spec.volumes.workspace.seed"}, {"spec.volumes.workspace", R"({"seed":7})", kSchema, "spec.volumes.workspace.seed"},
    {"spec.volumes.hostPath", "{}", kSchema}, {"spec.volumes.scratch", "{}", kSchema, "spec.volumes.scratch.size"}, {"spec.volumes.scratch.size", "\"0\"", kSchema},
    {"spec.volumes.scratch.size", "\"2Ti\"", kSchema}, {"spec.volumes", "[]", kSchema},
    {"spec.secrets", R"([{"name":"../x","ref":"research/token"}])", kSchema, "spec.secrets[0].name"},
    {"spec.secrets", R"([{"name":".x","ref":"research/token"}])", kSchema, "spec.secrets[0].name"},
    {"spec.secrets", R"([{"name":"x"}])", kSchema, "spec.secrets[0].ref"}, {"spec.secrets", R"([{"name":"x","ref":"token"}])", kSchema, "spec.secrets[0].ref"},
    {"spec.secrets", R"([{"name":"x","ref":"a/../b"}])", kSchema, "spec.secrets[0].ref"}, {"spec.secrets", R"([{"name":"x","ref":"A/b"}])", kSchema, "spec.secrets[0].ref"},
    {"spec.secrets", R"([{"name":"x","ref":"a/b","mode":"env"}])", kSchema, "spec.secrets[0].mode"},
    {"spec.secrets", R"([{"name":"x","ref":"a/b","ttlSeconds":0}])", kSchema, "spec.secrets[0].ttlSeconds"},
    {"spec.secrets", R"([{"name":"x","ref":"a/b","value":"s"}])", kSchema, "spec.secrets[0].value"},
    {"spec.secrets", R"([{"name":"x","ref":"a/b"},{"name":"x","ref":"a/c"}])", kSchema, "spec.secrets[1].name"}, {"spec.secrets", "{}", kSchema}, {"spec.secrets", "null", kSchema},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"api.example.com."},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"*"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"localhost"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"1.2.3.4"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"a..b"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"EXAMPLE.com"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"a_b.example"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"*.*.com"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":"http://example.com"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"fqdn":""},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.fqdn"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"10.0.0.1/8"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"10.0.0.0/33"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"10.0.0.0"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"::/0"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"::ffff:10.0.0.1/128"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"10.0.0.0/08"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":""},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"example.com"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to.cidr"},
    {"spec.network.egress.rules", R"([{"to":{},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24","fqdn":"a.example"},"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to"},
    {"spec.network.egress.rules", R"([{"to":"203.0.113.0/24","ports":[443]}])", kSchema, "spec.network.egress.rules[0].to"},
    {"spec.network.egress.rules", R"([{"ports":[443]}])", kSchema, "spec.network.egress.rules[0].to"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"}}])", kSchema, "spec.network.egress.rules[0].ports"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[443]},{"to":{"cidr":"203.0.113.0/24"},"ports":[]}])", kSchema, "spec.network.egress.rules[1].ports"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":443}])", kSchema, "spec.network.egress.rules[0].ports"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[0]}])", kSchema, "spec.network.egress.rules[0].ports[0]"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[443,65536]}])", kSchema, "spec.network.egress.rules[0].ports[1]"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[443,80,443]}])", kSchema, "spec.network.egress.rules[0].ports[2]"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":["443"]}])", kSchema, "spec.network.egress.rules[0].ports[0]"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}])", kSchema, "spec.network.egress.rules[0].ports"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[443],"protocol":"icmp"}])", kSchema, "spec.network.egress.rules[0].protocol"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[443],"expiresAt":"soon"}])", kSchema, "spec.network.egress.rules[0].expiresAt"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[443],"expiresAt":"2020-01-01T00:00:00Z"}])", kSchema, "spec.network.egress.rules[0].expiresAt"},
    {"spec.network.egress.rules", R"([{"to":{"cidr":"203.0.113.0/24"},"ports":[443],"via":"x"}])", kSchema, "spec.network.egress.rules[0].via"},
    {"spec.network.egress.rules", list_of(10001, "{}"), kSchema}, {"spec.network.egress.rules", "{}", kSchema}, {"spec.network.egress.rules", "\"allow\"", kSchema},
    {"spec.network.egress.quota.bytesPerSecond", "0", kSchema},
    {"spec.network.egress.quota.bytes", "-1", kSchema}, {"spec.network.egress.quota.bytes", "\"1Gi\"", kSchema}, {"spec.network.egress.allow", "[]", kSchema},
    {"spec.network.ingress", "{}", kSchema}, {"spec.network.hostNetwork", "true", kSchema}, {"spec.network", "\"host\"", kSchema},
    {"spec.network.expectBlocked", R"([{"to":"::1","port":1}])", kSchema, "spec.network.expectBlocked[0].to"},
    {"spec.network.expectBlocked", R"([{"to":"::ffff:1.2.3.4","port":1}])", kSchema, "spec.network.expectBlocked[0].to"},
    {"spec.network.expectBlocked", R"([{"to":"example.com","port":1}])", kSchema, "spec.network.expectBlocked[0].to"},
    {"spec.network.expectBlocked", R"([{"to":"1.2.3.4","port":0}])", kSchema, "spec.network.expectBlocked[0].port"},
    {"spec.network.expectBlocked", R"([{"to":"1.2.3.4","port":65536}])", kSchema, "spec.network.expectBlocked[0].port"},
    {"spec.network.expectBlocked", R"([{"to":"1.2.3.4"}])", kSchema, "spec.network.expectBlocked[0].port"},
    {"spec.network.expectBlocked", R"([{"to":"1.2.3.4","port":1,"protocol":"icmp"}])", kSchema, "spec.network.expectBlocked[0].protocol"},
    {"spec.network.expectBlocked", list_of(65, R"({"to":"1.2.3.4","port":1})"), kSchema},
    {"spec.logs.maxBytes", "0", kSchema}, {"spec.logs.maxBytes", "1073741825", kSchema}, {"spec.logs.onLimit", "\"ignore\"", kSchema},
    {"spec.logs", "null", kSchema}, {"spec.sidecars", "[]", kSchema}, {"spec.runtimeClassName", "\"runc\"", kSchema},
};

}  // namespace

TEST_CASE("each wrong field is refused with its reason and its path") {
  CHECK(kEdits.size() >= 120);
  for (const Edit& edit : kEdits) {
    CAPTURE(edit.path);
    CAPTURE(edit.json.substr(0, 120));
    const auto spec = job::parse_spec(edited(job::test::example(), edit.path, edit.json));
    REQUIRE_FALSE(spec.ok());
    CHECK(spec.error().reason == edit.reason);
    CHECK(spec.error().field == (edit.field.empty() ? edit.path : edit.field));
    CHECK_FALSE(spec.error().message.empty());
    CHECK(spec.error().message.find('\n') == std::string::npos);
  }
}

TEST_CASE("bytes that other JSON readers disagree about are refused as a whole") {
  const std::string good = job::test::minimal();
  const auto replaced = [&good](const std::string& what, const std::string& by) {
    std::string out = good;
    const std::size_t at = out.find(what);
    REQUIRE(at != std::string::npos);
    return out.replace(at, what.size(), by);
  };
  const std::vector<std::string> bad = {
      "", " ", "null", "[]", "\"\"", "{}", "{", good + "{}", good + "x", good + std::string(1, '\0'), good.substr(0, good.size() - 1),
      "\xEF\xBB\xBF" + good, "//c\n" + good, "[" + good + "]",
      replaced("\"kind\":\"Job\"", "\"kind\":\"Job\",\"kind\":\"Job\""),
      replaced("\"kind\":\"Job\"", "\"kind\":\"Job\",\"\\u006bind\":\"Job\""),
      replaced("\"pids\":1", "\"pids\":1,\"pids\":2"),
      replaced("\"name\":\"m\"", "\"name\":\"m\",\"n\\u0061me\":\"x\""),
      replaced("\"pids\":1", "\"pids\":1.0"), replaced("\"pids\":1", "\"pids\":1e0"), replaced("\"pids\":1", "\"pids\":01"),
      replaced("\"pids\":1", "\"pids\":1e400"), replaced("\"pids\":1", "\"pids\":18446744073709551616"),
      replaced("\"pids\":1", "\"pids\":-9223372036854775809"), replaced("\"pids\":1", "\"pids\":NaN"), replaced("\"pids\":1", "\"pids\":0x1"),
      replaced("\"pids\":1", "\"pids\":-0"), replaced("\"name\":\"m\"", "\"name\":\"m\\u0000\""), replaced("\"name\":\"m\"", "\"name\":\"\\ud800\""),
      replaced("\"name\":\"m\"", "\"name\":\"\xff\""), replaced("\"name\":\"m\"", "\"name\":\"\xc0\xaf\""), replaced("\"name\":\"m\"", "\"name\":\"\xed\xa0\x80\""),
      replaced("\"name\":\"m\"", "\"name\":'m'"), replaced("\"name\":\"m\"", "name:\"m\""), replaced("\"name\":\"m\"", "\"name\":\"m\","),
      std::string(100000, '['), std::string(1UL << 20U, ' ') + good,
  };
  for (const std::string& text : bad) {
    CAPTURE(text.substr(0, 200));
    const auto spec = job::parse_spec(text);
    REQUIRE_FALSE(spec.ok());
    CHECK(spec.error().reason == Reason::kSchemaInvalid);
  }
}
