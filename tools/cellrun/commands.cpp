// The table of all commands: dispatch, help, completion and the suggestions after a typing error come from it.
#include "groups.hpp"

namespace cellrund::cli {

const std::vector<Flag>& global_flags() {
  static const std::vector<Flag> kFlags = {
      {"output", 'o', "FORMAT", "table, wide, json or jsonl (CELLRUN_OUTPUT)"},
      {"json", 0, "", "the same as -o json"},
      {"config", 0, "FILE", "instead of /etc/cellrun/config.toml (CELLRUN_CONFIG)"},
      {"socket", 0, "PATH", "the daemon's socket, whatever the configuration says"},
      {"help", 'h', "", "this help"},
  };
  return kFlags;
}

const std::vector<Command>& commands() {
  static const Flag kFollow{"follow", 'f', "", "go on until the job is closed"};
  static const Flag kKey{"key", 0, "FILE", "private key (PKCS#8 PEM) to sign with"};
  static const Flag kTask{"task", 0, "PATH", "folder (or tar archive) that the job finds at /task, for reading"};
  static const Flag kWorkspace{"workspace", 0, "PATH", "folder (or tar archive) that the job's own /workspace starts from"};
  static const Flag kNodeKey{"key", 0, "FILE", "the node's public key, instead of the configured node.pub"};
  static const Flag kDigest{"spec-digest", 0, "DIGEST", "the record must be that of this jobspec"};
  static const std::vector<Command> kCommands = {
      {"submit", "JOBSPEC|ENVELOPE|- [-d] [--key FILE] [--task PATH] [--workspace PATH]", "run a signed job: stream its output, leave with its exit code", 1, 1,
       {{"detach", 'd', "", "print the job's uid and leave at once"}, kKey, kTask, kWorkspace,
        {"result", 0, "FILE", "write {uid, outcome, jobExitCode, signal, reason, teardown, evidenceDigest}"}}, submit},
      {"ps", "[-a]", "list jobs", 0, 0, {{"all", 'a', "", "closed jobs too"}}, ps},
      {"inspect", "JOB", "everything the node knows of a job", 1, 1, {}, inspect},
      {"wait", "JOB", "wait until a job is closed, leave with its exit code", 1, 1, {}, wait_job},
      {"logs", "JOB [-f]", "a job's stdout and stderr, byte for byte", 1, 1,
       {kFollow, {"stdout", 0, "", "stdout alone"}, {"stderr", 0, "", "stderr alone"},
        {"timestamps", 0, "", "both in the order in which they came, each line with its time"}}, logs},
      {"events", "JOB [-f]", "a job's states with their times", 1, 1, {kFollow}, events},
      {"flows", "JOB [-f | --top[=N]] [--verdict denied|allowed]", "what a job tried to reach, and what the filter decided", 1, 1,
       {kFollow, {"verdict", 0, "VERDICT", "denied or allowed ones alone"}, {"top", 0, "N", "the N busiest targets (10)", false, true}}, flows},
      {"egress explain", "JOBSPEC|ENVELOPE|- HOST:PORT[/udp] [--key FILE.pub]", "what the filter would say to a job's packet, and by which rule", 2, 2,
       {{"key", 0, "FILE", "public key whose egress grants count, instead of the envelope's signer"}}, egress_explain},
      {"outputs ls", "JOB", "what a closed job left in /outputs", 1, 1, {}, outputs_list},
      {"outputs get", "JOB [PATH...] [-C DIR | -O FILE|-]", "fetch outputs, checked against the manifest", 1, 4096,
       {{"directory", 'C', "DIR", "write below DIR, default: here; no link is followed"},
        {"to", 'O', "FILE", "write the one output to FILE, or to stdout for -"},
        {"force", 'f', "", "replace files that exist"}}, outputs_get},
      {"cancel", "JOB", "end a job", 1, 1, {}, cancel},
      {"evidence show", "JOB", "a job's sealed record, checked, for people", 1, 1, {kNodeKey, kDigest}, evidence_show},
      {"evidence verify", "FILE|- [--key FILE]", "check a sealed record offline", 1, 1, {kNodeKey, kDigest}, evidence_verify},
      {"evidence export", "JOB", "a job's sealed record as it is (DSSE envelope)", 1, 1, {}, evidence_export},
      {"keygen", "NAME | --uuid", "make a key pair: NAME.key and NAME.pub", 0, 1,
       {{"algorithm", 0, "NAME", "ed25519 (default) or ecdsa-p256"}, {"uuid", 0, "", "print a fresh job uid (UUIDv7) instead"}},
       keygen},
      {"sign", "JOBSPEC|- --key FILE", "sign a jobspec", 1, 1, {kKey, kTask, kWorkspace, {"out", 0, "FILE", "write the envelope there"}}, sign},
      {"lint", "JOBSPEC|-", "check a jobspec as a node would, without signature and policy", 1, 1, {}, lint},
      {"schema", "", "the JSON Schema of a jobspec", 0, 0, {}, schema},
      {"image import", "FILE [--name REPO]", "import an OCI image layout archive", 1, 1,
       {{"name", 0, "REPO", "repository, instead of the archive's annotation"}}, image},
      {"image ls", "", "list images", 0, 0, {}, image},
      {"image rm", "NAME", "remove an image", 1, 1, {}, image},
      {"trust add", "KEY.pub --namespace NS", "let a key submit jobs", 1, 1,
       {{"name", 0, "NAME", "of the trust file; default: the key's file name"},
        {"namespace", 0, "NS", "namespace of its jobs; \"*\" for all", true},
        {"principal", 0, "GLOB", "type:id that its jobs may act for", true},
        {"image", 0, "GLOB", "image repositories; default: all", true},
        {"min-tier", 0, "N", "the lowest tier it may ask for (default 2)"},
        {"max-deadline", 0, "SECONDS", "longest activeDeadlineSeconds (default 3600)"},
        {"max-concurrent", 0, "N", "jobs at one time (default 8)"},
        {"cpu", 0, "QUANTITY", "most CPU of one job (default 4)"},
        {"memory", 0, "QUANTITY", "most memory of one job (default 4Gi)"},
        {"pids", 0, "N", "most processes of one job (default 1024)"},
        {"storage", 0, "QUANTITY", "most ephemeral storage of one job (default 10Gi)"},
        {"egress", 0, "CLASS", "public, private:CIDR or wildcard:*.NAME; default: none", true},
        {"secret", 0, "GLOB", "secret references; default: none", true},
        {"not-after", 0, "TIME", "RFC 3339 time of the end of trust"}}, trust_add},
      {"trust ls", "", "list trusted keys", 0, 0, {}, trust_list},
      {"trust rm", "NAME", "stop trusting a key", 1, 1, {}, trust_remove},
      {"residue scan", "", "search the host for anything that ended jobs left", 0, 0,
       {{"all-tags", 0, "", "what other nodes of this host left, too"}}, residue_scan},
      {"capacity", "", "what the node has, and what is in use", 0, 0, {}, capacity},
      {"drain", "", "take no new jobs; running ones end (root)", 0, 0, {}, drain},
      {"undrain", "", "take jobs again (root)", 0, 0, {}, undrain},
      {"killswitch engage", "", "cut every cell's network, end every job, take no new ones (root)", 0, 0, {}, kill_switch},
      {"killswitch release", "", "take jobs again (root)", 0, 0, {}, kill_switch},
      {"killswitch status", "", "what is true of the node and of each job (root)", 0, 0, {}, kill_switch},
      {"doctor", "[--pre] [--wait SECONDS]", "find out whether this host and this node can do their work", 0, 0,
       {{"pre", 0, "", "the host alone, before there is a node"},
        {"wait", 0, "SECONDS", "wait for the daemon to answer first"}}, doctor},
      {"config default", "", "the built-in configuration with comments", 0, 0, {}, config_default},
      {"config dump", "", "the configuration in force", 0, 0, {}, config_dump},
      {"config validate", "", "check the configuration: 0 valid, 1 not", 0, 0, {}, config_validate},
      {"config sources", "", "where each value comes from", 0, 0, {}, config_sources},
      {"completion", "bash|zsh|fish", "completion script of a shell", 1, 1, {}, completion},
      {"version", "", "versions of cellrun and of the running cellrund", 0, 0, {}, version},
      {"help", "[COMMAND | exit-codes]", "this help", 0, 2, {}, help},
  };
  return kCommands;
}

}  // namespace cellrund::cli
