#include "job/fields.hpp"

#include <array>

namespace cellrund::job {
namespace {

using enum FieldKind;

constexpr bool kRequired = true;
constexpr bool kOptional = false;

constexpr std::string_view kLabel = R"({"type":"string","pattern":"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"})";
constexpr std::string_view kTime = R"({"type":"string","format":"date-time","pattern":"Z$"})";
constexpr std::string_view kStringMap = R"({"type":"object","maxProperties":32,"additionalProperties":{"type":"string","maxLength":1024}})";
constexpr std::string_view kPrincipalId = R"({"type":"string","pattern":"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}$"})";
constexpr std::string_view kStrings = R"({"type":"array","maxItems":1024,"items":{"type":"string","maxLength":32768}})";
constexpr std::string_view kId = R"({"type":"integer","minimum":0,"maximum":4294967294})";
constexpr std::string_view kBool = R"({"type":"boolean"})";
constexpr std::string_view kBytes =
    R"({"type":"string","pattern":"^(0|[1-9][0-9]*)(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$","maxLength":32})";
constexpr std::string_view kDigest = R"({"type":"string","pattern":"^sha256:[0-9a-f]{64}$"})";
constexpr std::string_view kCount = R"({"type":"integer","minimum":0})";
constexpr std::string_view kLater = R"({"not":{},"description":"not supported by this version: refused"})";

constexpr std::array kFields{
    Field{"", "apiVersion", kValue, kRequired, R"({"const":"cellrun.dev/v1"})"},
    Field{"", "kind", kValue, kRequired, R"({"const":"Job"})"},
    Field{"", "metadata", kObject, kRequired, {}},
    Field{"", "spec", kObject, kRequired, {}},

    Field{"metadata", "name", kValue, kRequired, kLabel},
    Field{"metadata", "uid", kValue, kRequired,
          R"({"type":"string","pattern":"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"})"},
    Field{"metadata", "namespace", kValue, kRequired, kLabel},
    Field{"metadata", "issuedAt", kValue, kRequired, kTime},
    Field{"metadata", "notBefore", kValue, kOptional, kTime},
    Field{"metadata", "expiresAt", kValue, kRequired, kTime},
    Field{"metadata", "labels", kValue, kOptional, kStringMap},
    Field{"metadata", "annotations", kValue, kOptional, kStringMap},

    Field{"spec", "audience", kValue, kOptional, R"({"type":"string","pattern":"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"})"},
    Field{"spec", "minTier", kValue, kOptional, R"({"type":"integer","minimum":0,"maximum":2,"default":2})"},
    Field{"spec", "lane", kValue, kOptional, R"({"enum":["kata","microvm","gvisor","runc","process"]})"},
    Field{"spec", "principal", kObject, kOptional, {}},
    Field{"spec", "container", kObject, kRequired, {}},
    Field{"spec", "resources", kObject, kRequired, {}},
    Field{"spec", "activeDeadlineSeconds", kValue, kRequired, R"({"type":"integer","minimum":1,"maximum":604800})"},
    Field{"spec", "startDeadlineSeconds", kValue, kOptional, R"({"type":"integer","minimum":1,"maximum":86400,"default":120})"},
    Field{"spec", "terminationGracePeriodSeconds", kValue, kOptional, R"({"type":"integer","minimum":0,"maximum":600,"default":5})"},
    Field{"spec", "stopSignal", kValue, kOptional,
          R"({"enum":["SIGHUP","SIGINT","SIGQUIT","SIGABRT","SIGKILL","SIGUSR1","SIGUSR2","SIGALRM","SIGTERM","SIGWINCH"],"default":"SIGTERM"})"},
    Field{"spec", "volumes", kObject, kOptional, {}},
    Field{"spec", "secrets", kObjects, kOptional, R"({"type":"array","maxItems":16})"},
    Field{"spec", "network", kObject, kOptional, {}},
    Field{"spec", "logs", kObject, kOptional, {}},
    Field{"spec", "ttlSecondsAfterFinished", kValue, kOptional,
          R"({"type":"integer","minimum":0,"maximum":31536000,"default":86400})"},

    Field{"spec.secrets[]", "name", kValue, kRequired, R"({"type":"string","pattern":"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$"})"},
    Field{"spec.secrets[]", "ref", kValue, kRequired,
          R"({"type":"string","pattern":"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$"})"},
    Field{"spec.secrets[]", "mode", kValue, kOptional, R"({"enum":["file"],"default":"file"})"},
    Field{"spec.secrets[]", "ttlSeconds", kValue, kOptional, R"({"type":"integer","minimum":1,"maximum":604800})"},

    Field{"spec.principal", "type", kValue, kRequired, R"({"enum":["agent","human","service"]})"},
    Field{"spec.principal", "id", kValue, kRequired, kPrincipalId},
    Field{"spec.principal", "onBehalfOf", kValue, kOptional,
          R"({"type":"array","maxItems":8,"items":{"type":"string","pattern":"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,127}$"}})"},

    Field{"spec.container", "image", kValue, kRequired, R"({"type":"string","maxLength":327,"pattern":"@sha256:[0-9a-f]{64}$"})"},
    Field{"spec.container", "command", kValue, kOptional,
          R"({"type":"array","minItems":1,"maxItems":1024,"items":{"type":"string","maxLength":32768}})"},
    Field{"spec.container", "args", kValue, kOptional, kStrings},
    Field{"spec.container", "env", kObjects, kOptional, {}},
    Field{"spec.container", "workingDir", kValue, kOptional, R"({"type":"string","pattern":"^/","maxLength":4096})"},
    Field{"spec.container", "securityContext", kObject, kOptional, {}},
    Field{"spec.container.env[]", "name", kValue, kRequired, R"({"type":"string","pattern":"^[A-Za-z_][A-Za-z0-9_]{0,127}$"})"},
    Field{"spec.container.env[]", "value", kValue, kRequired, R"({"type":"string","maxLength":32768})"},
    Field{"spec.container.securityContext", "runAsUser", kValue, kOptional, kId},
    Field{"spec.container.securityContext", "runAsGroup", kValue, kOptional, kId},
    Field{"spec.container.securityContext", "capabilities", kValue, kOptional,
          R"({"type":"array","uniqueItems":true,"items":{"type":"string","pattern":"^CAP_[A-Z_]+$"}})"},
    Field{"spec.container.securityContext", "noNewPrivileges", kValue, kOptional, kBool},
    Field{"spec.container.securityContext", "readOnlyRootFilesystem", kValue, kOptional, kBool},

    Field{"spec.resources", "limits", kObject, kRequired, {}},
    Field{"spec.resources.limits", "cpu", kValue, kRequired, R"({"type":"string","pattern":"^(0|[1-9][0-9]*)(\\.[0-9]+)?m?$","maxLength":32})"},
    Field{"spec.resources.limits", "memory", kValue, kRequired, kBytes},
    Field{"spec.resources.limits", "pids", kValue, kRequired, R"({"type":"integer","minimum":1,"maximum":4194304})"},
    Field{"spec.resources.limits", "ephemeral-storage", kValue, kOptional,
          R"({"type":"string","pattern":"^0(\\.0+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$","description":"anything but 0 is not supported by this version"})"},

    Field{"spec.volumes", "scratch", kObject, kOptional, {}},
    Field{"spec.volumes", "task", kObject, kOptional, {}},
    Field{"spec.volumes", "workspace", kObject, kOptional, {}},
    Field{"spec.volumes", "outputs", kObject, kOptional, {}},
    Field{"spec.volumes.scratch", "size", kValue, kRequired, kBytes},
    Field{"spec.volumes.task", "digest", kValue, kRequired, kDigest},
    Field{"spec.volumes.workspace", "seed", kValue, kRequired, kDigest},
    Field{"spec.volumes.outputs", "maxBytes", kValue, kRequired, R"({"type":"integer","minimum":1,"maximum":1073741824})"},
    Field{"spec.volumes.outputs", "maxFiles", kValue, kRequired, R"({"type":"integer","minimum":1,"maximum":4096})"},

    Field{"spec.network", "egress", kObject, kOptional, {}},
    Field{"spec.network", "expectBlocked", kObjects, kOptional, {}},
    Field{"spec.network.egress", "rules", kObjects, kOptional,
          R"({"type":["array","null"],"maxItems":10000,"description":"absent, null and [] all deny everything"})"},
    Field{"spec.network.egress", "quota", kObject, kOptional, {}},
    Field{"spec.network.egress.rules[]", "to", kObject, kRequired, {}},
    Field{"spec.network.egress.rules[]", "ports", kValue, kRequired,
          R"({"type":"array","minItems":1,"maxItems":16,"uniqueItems":true,"items":{"type":"integer","minimum":1,"maximum":65535}})"},
    Field{"spec.network.egress.rules[]", "protocol", kValue, kOptional, R"({"enum":["tcp","udp"],"default":"tcp"})"},
    Field{"spec.network.egress.rules[]", "expiresAt", kValue, kOptional, kTime},
    Field{"spec.network.egress.rules[].to", "cidr", kValue, kOptional, R"({"type":"string","pattern":"^[0-9.]+/[0-9]+$","maxLength":18})"},
    Field{"spec.network.egress.rules[].to", "fqdn", kValue, kOptional,
          R"({"type":"string","pattern":"^(\\*\\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$","maxLength":130})"},
    Field{"spec.network.egress.quota", "bytes", kValue, kOptional, kCount},
    Field{"spec.network.egress.quota", "packets", kValue, kOptional, kCount},
    Field{"spec.network.egress.quota", "connections", kValue, kOptional, kCount},
    Field{"spec.network.egress.quota", "dnsQueries", kValue, kOptional, kCount},
    Field{"spec.network.egress.quota", "bytesPerSecond", kValue, kOptional, R"({"type":"integer","minimum":1})"},
    Field{"spec.network.expectBlocked[]", "to", kValue, kRequired, R"({"type":"string","format":"ipv4"})"},
    Field{"spec.network.expectBlocked[]", "port", kValue, kRequired, R"({"type":"integer","minimum":1,"maximum":65535})"},
    Field{"spec.network.expectBlocked[]", "protocol", kValue, kOptional, R"({"enum":["tcp","udp"],"default":"tcp"})"},

    Field{"spec.logs", "maxBytes", kValue, kOptional, R"({"type":"integer","minimum":1024,"maximum":1073741824,"default":16777216})"},
    Field{"spec.logs", "onLimit", kValue, kOptional, R"({"enum":["truncate","kill"],"default":"truncate"})"},
};

}  // namespace

std::span<const Field> fields() noexcept { return kFields; }

std::string object_path(const Field& field) {
  std::string path(field.object);
  if (!path.empty()) {
    path += '.';
  }
  path += field.name;
  return field.kind == kObjects ? path + "[]" : path;
}

}  // namespace cellrund::job
