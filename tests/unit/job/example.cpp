#include "example.hpp"

#include <doctest/doctest.h>

#include <utility>

#include "base/json.hpp"

namespace cellrund::job::test {

namespace json = base::json;

std::string example() {
  return R"({"apiVersion": "cellrun.dev/v1", "kind": "Job",
 "metadata": {"name": "fix-tests", "uid": "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11", "namespace": "research",
   "issuedAt": "2026-11-21T10:00:00Z", "notBefore": "2026-11-21T10:00:30Z", "expiresAt": "2026-11-21T11:00:00Z",
   "labels": {"team": "sre"}, "annotations": {"example.com/ticket": "T-1"}},
 "spec": {"audience": "pool-a", "minTier": 2, "lane": "microvm",
   "principal": {"type": "agent", "id": "fixer-7", "onBehalfOf": ["alice"]},
   "container": {"image": "registry.example:5000/agents/python@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
     "command": ["/usr/bin/python3"], "args": ["/task/run.py", ""],
     "env": [{"name": "LANG", "value": "C.UTF-8"}], "workingDir": "/workspace",
     "securityContext": {"runAsUser": 1000, "runAsGroup": 1001, "capabilities": ["CAP_NET_BIND_SERVICE"],
       "noNewPrivileges": true, "readOnlyRootFilesystem": false}},
   "resources": {"limits": {"cpu": "1500m", "memory": "256Mi", "pids": 128, "ephemeral-storage": "0"}},
   "activeDeadlineSeconds": 300, "startDeadlineSeconds": 60, "terminationGracePeriodSeconds": 7, "stopSignal": "SIGINT",
   "volumes": {"scratch": {"size": "128Mi"}, "outputs": {"maxBytes": 1048576, "maxFiles": 16}}, "secrets": [],
   "network": {"egress": {"rules": [], "quota": {"bytes": 10485760}},
     "expectBlocked": [{"to": "198.51.100.7", "port": 80, "protocol": "udp"}]},
   "logs": {"maxBytes": 1048576, "onLimit": "truncate"}}})";
}

std::string minimal() {
  return R"({"apiVersion":"cellrun.dev/v1","kind":"Job",
 "metadata":{"name":"m","uid":"0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11","namespace":"n","issuedAt":"2026-11-21T10:00:00Z","expiresAt":"2026-11-21T11:00:00Z"},
 "spec":{"container":{"image":"a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
   "resources":{"limits":{"cpu":"1","memory":"64Mi","pids":1}},"activeDeadlineSeconds":1}})";
}

namespace {

json::Value with(const json::Value* old, std::string_view path, const json::Value* leaf) {
  json::Object out;
  const std::size_t dot = path.find('.');
  const std::string name(path.substr(0, dot));
  if (old != nullptr && old->as_object() != nullptr) {
    for (const auto& [key, value] : old->as_object()->members()) {
      if (key != name) {
        out.set(key, value);
      }
    }
  }
  if (dot != std::string_view::npos) {
    out.set(name, with(old == nullptr ? nullptr : old->find(name), path.substr(dot + 1), leaf));
  } else if (leaf != nullptr) {
    out.set(name, *leaf);
  }
  return out;
}

}  // namespace

std::string edited(const std::string& document, std::string_view path, std::string_view json_text) {
  const auto root = json::parse(document, {});
  REQUIRE(root.ok());
  if (json_text == "-") {
    return json::write(with(&*root, path, nullptr));
  }
  const auto leaf = json::parse(json_text, {.max_bytes = 1UL << 20U, .max_depth = 32, .max_members = 4096});
  REQUIRE_MESSAGE(leaf.ok(), std::string(json_text).substr(0, 200));
  return json::write(with(&*root, path, &*leaf));
}

}  // namespace cellrund::job::test
