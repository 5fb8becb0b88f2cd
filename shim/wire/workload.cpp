// Encoding: a sequence of fields, each u16 tag, u32 length, value; every tag once and in rising order. Both ends are
// built from one tree, so an unknown tag is an error and not a newer peer.
#include "shim/wire/workload.hpp"

#include <algorithm>

#include "shim/wire/codec.hpp"

namespace cellrund::wire {
namespace {

using base::Errc;
using base::Error;

constexpr std::size_t kMaxStrings = 16384;   // of args and env each
constexpr std::size_t kMaxPath = 4095;       // PATH_MAX without the NUL
constexpr std::size_t kMaxGids = 256;
constexpr std::size_t kMaxTmpfs = 64;
constexpr std::size_t kMaxFiles = 64;
constexpr std::size_t kMaxFileBytes = 256 * 1024;
constexpr std::size_t kMaxRlimits = 16;
constexpr std::size_t kMaxHostname = 64;
constexpr std::size_t kMaxInterface = 15;
constexpr std::uint64_t kMaxMilliseconds = 366ULL * 24 * 3600 * 1000;
constexpr std::uint64_t kMinTmpfsBytes = 4096;
constexpr std::uint64_t kKnownCapabilities = (1ULL << 41U) - 1;

Error invalid(std::string_view what) { return Error(Errc::kInvalidArgument, "workload: " + std::string(what)); }

bool has_nul(std::string_view text) noexcept { return text.find('\0') != std::string_view::npos; }

// Absolute, no "." or ".." and no empty component, so that it means one thing whoever resolves it.
bool is_plain_path(std::string_view path) noexcept {
  if (path.empty() || path.size() > kMaxPath || path.front() != '/' || has_nul(path)) {
    return false;
  }
  if (path == "/") {
    return true;
  }
  std::string_view rest = path.substr(1);
  while (true) {
    const std::size_t slash = rest.find('/');
    const std::string_view part = rest.substr(0, slash);
    if (part.empty() || part == "." || part == "..") {
      return false;
    }
    if (slash == std::string_view::npos) {
      return true;
    }
    rest.remove_prefix(slash + 1);
  }
}

bool is_below_root(std::string_view path) noexcept { return path != "/" && is_plain_path(path); }

base::Status validate_process(const Process& w) {
  if (w.args.empty() || w.args.front().empty() || w.args.size() > kMaxStrings ||
      std::any_of(w.args.begin(), w.args.end(), has_nul)) {
    return invalid("args are empty, too many, or hold a NUL");
  }
  const auto bad_env = [](const std::string& entry) {
    const std::size_t equals = entry.find('=');
    return has_nul(entry) || equals == std::string::npos || equals == 0;
  };
  if (w.env.size() > kMaxStrings || std::any_of(w.env.begin(), w.env.end(), bad_env)) {
    return invalid("env is too long or has an entry that is not NAME=value");
  }
  if (w.additional_gids.size() > kMaxGids) {
    return invalid("too many additional gids");
  }
  const auto bad_rlimit = [](const Rlimit& r) { return r.resource > 15 || r.soft > r.hard; };
  if (w.rlimits.size() > kMaxRlimits || std::any_of(w.rlimits.begin(), w.rlimits.end(), bad_rlimit)) {
    return invalid("rlimits: too many, unknown, or soft above hard");
  }
  const CapabilitySets& c = w.capabilities;
  if (((c.bounding | c.effective | c.permitted | c.inheritable | c.ambient) & ~kKnownCapabilities) != 0 ||
      (c.effective & ~c.permitted) != 0 || (c.ambient & ~(c.permitted & c.inheritable)) != 0) {
    return invalid("capabilities: unknown, or effective or ambient ones that are not permitted");
  }
  if (!is_plain_path(w.cwd) || w.umask > 0777) {
    return invalid("cwd is no plain absolute path, or bad umask");
  }
  return base::ok();
}

base::Status validate_lists(const Workload& w) {
  const auto bad_tmpfs = [](const TmpfsMount& m) {
    return !is_below_root(m.path) || m.size_bytes < kMinTmpfsBytes || m.mode > 07777;
  };
  if (w.tmpfs.size() > kMaxTmpfs || std::any_of(w.tmpfs.begin(), w.tmpfs.end(), bad_tmpfs)) {
    return invalid("tmpfs: too many, or a bad path, size or mode");
  }
  std::size_t file_bytes = 0;
  for (const FileEntry& file : w.files) {
    file_bytes += file.content.size();
    if (!is_below_root(file.path) || file.mode > 0777 || file_bytes > kMaxFileBytes) {
      return invalid("files: a bad path or mode, or too much content");
    }
  }
  if (w.files.size() > kMaxFiles) {
    return invalid("files: too many");
  }
  return base::ok();
}

base::Status validate_network(const NetworkConfig& n) {
  if (n.interface.empty() || n.interface.size() > kMaxInterface || has_nul(n.interface) ||
      n.interface.find('/') != std::string::npos) {
    return invalid("network: bad interface name");
  }
  if (n.prefix < 1 || n.prefix > 32 || n.mtu < 576 || n.mtu > 65535 || n.address == std::array<std::uint8_t, 4>{}) {
    return invalid("network: bad address, prefix or mtu");
  }
  return base::ok();
}

base::Status validate_inputs(const Workload& w) {
  const Inputs& inputs = *w.inputs;
  if (!is_below_root(inputs.device) || (!inputs.task && inputs.workspace_bytes == 0) ||
      (inputs.workspace_bytes != 0 && inputs.workspace_bytes < kMinTmpfsBytes)) {
    return invalid("inputs: a bad device, nothing to show, or no room in the workspace");
  }
  if (w.process && (inputs.image_fd <= 2 || inputs.image_fd == w.process->rootfs_fd || inputs.image_fd == w.process->netns_fd ||
                    inputs.image_fd == w.process->outputs_fd)) {
    return invalid("inputs: bad descriptor number");
  }
  return base::ok();
}

enum Tag : std::uint16_t {
  kArgs = 1, kEnv, kCwd, kIds, kCapabilities, kFlags, kRlimits, kTerminal,  // of a process
  kHostname, kRoot, kTmpfs, kFiles, kNetwork, kTimes, kRootfsDevice, kProcessRoot, kOutputs, kInputs,
};

constexpr std::uint8_t kNoNewPrivileges = 1;
constexpr std::uint8_t kSeccomp = 2;

class FieldWriter {
 public:
  template <typename Fill>
  void field(Tag tag, Fill&& fill) {
    Writer value;
    fill(value);
    out_.u16(tag);
    out_.u32(static_cast<std::uint32_t>(value.bytes().size()));
    out_.raw(value.bytes());
  }
  [[nodiscard]] base::Bytes take() && { return std::move(out_).take(); }

 private:
  Writer out_;
};

void put_strings(Writer& out, const std::vector<std::string>& strings) {
  out.u32(static_cast<std::uint32_t>(strings.size()));
  for (const std::string& s : strings) {
    out.text(s);
  }
}

std::vector<std::string> get_strings(Reader& in) {
  std::vector<std::string> out;
  const std::size_t n = in.count(kMaxStrings);
  for (std::size_t i = 0; i < n && !in.failed(); ++i) {
    out.push_back(in.text(kMaxWorkloadBytes));
  }
  return out;
}

template <std::size_t N>
std::array<std::uint8_t, N> get_bytes(Reader& in) {
  std::array<std::uint8_t, N> out{};
  const base::BytesView bytes = in.raw(N);
  std::copy(bytes.begin(), bytes.end(), out.begin());
  return out;
}

void decode_process_field(std::uint16_t tag, Reader& in, Process& w) {
  switch (tag) {
    case kArgs:
      w.args = get_strings(in);
      return;
    case kEnv:
      w.env = get_strings(in);
      return;
    case kCwd:
      w.cwd = in.text(kMaxPath);
      return;
    case kIds: {
      w.uid = in.u32();
      w.gid = in.u32();
      const std::size_t n = in.count(kMaxGids);
      for (std::size_t i = 0; i < n && !in.failed(); ++i) {
        w.additional_gids.push_back(in.u32());
      }
      return;
    }
    case kCapabilities:
      w.capabilities = {in.u64(), in.u64(), in.u64(), in.u64(), in.u64()};
      return;
    case kFlags: {
      const std::uint8_t flags = in.u8();
      w.no_new_privileges = (flags & kNoNewPrivileges) != 0;
      w.seccomp = (flags & kSeccomp) != 0;
      w.umask = in.u32();
      return;
    }
    case kRlimits: {
      const std::size_t n = in.count(kMaxRlimits);
      for (std::size_t i = 0; i < n && !in.failed(); ++i) {
        w.rlimits.push_back({in.u32(), in.u64(), in.u64()});
      }
      return;
    }
    case kTerminal:
      if (!in.at_end()) {
        w.terminal = WindowSize{in.u16(), in.u16()};
      }
      return;
    default:
      in.fail();
  }
}

void decode_field(std::uint16_t tag, Reader& in, Workload& w) {
  switch (tag) {
    case kHostname:
      w.hostname = in.text(kMaxHostname);
      return;
    case kRoot:
      w.read_only_root = in.u8() != 0;
      w.writable_root_bytes = in.u64();
      w.pids_max = in.u64();
      return;
    case kTmpfs: {
      const std::size_t n = in.count(kMaxTmpfs);
      for (std::size_t i = 0; i < n && !in.failed(); ++i) {
        TmpfsMount m;
        m.path = in.text(kMaxPath);
        m.size_bytes = in.u64();
        m.mode = in.u32();
        w.tmpfs.push_back(std::move(m));
      }
      return;
    }
    case kFiles: {
      const std::size_t n = in.count(kMaxFiles);
      for (std::size_t i = 0; i < n && !in.failed(); ++i) {
        FileEntry f;
        f.path = in.text(kMaxPath);
        f.mode = in.u32();
        f.content = in.text(kMaxFileBytes);
        w.files.push_back(std::move(f));
      }
      return;
    }
    case kNetwork: {
      if (in.at_end()) {
        return;
      }
      NetworkConfig n;
      n.interface = in.text(kMaxInterface);
      n.mac = get_bytes<6>(in);
      n.address = get_bytes<4>(in);
      n.prefix = in.u8();
      n.gateway = get_bytes<4>(in);
      n.gateway_mac = get_bytes<6>(in);
      n.mtu = in.u32();
      w.network = std::move(n);
      return;
    }
    case kTimes:
      w.stop_signal = in.u8();
      w.deadline_ms = in.u64();
      w.grace_ms = in.u64();
      return;
    case kRootfsDevice:
      w.rootfs_device = in.text(kMaxPath);
      return;
    case kProcessRoot:
      if (!in.at_end()) {
        w.process = ProcessRoot{static_cast<int>(in.u32()), static_cast<int>(in.u32()), static_cast<int>(in.u32())};
      }
      return;
    case kOutputs:
      if (!in.at_end()) {
        w.outputs = OutputsPlan{in.u64(), in.u64()};
      }
      return;
    case kInputs:
      if (!in.at_end()) {
        Inputs inputs;
        inputs.device = in.text(kMaxPath);
        inputs.image_fd = static_cast<int>(in.u32());
        inputs.task = in.u8() != 0;
        inputs.workspace_bytes = in.u64();
        w.inputs = std::move(inputs);
      }
      return;
    default:
      decode_process_field(tag, in, w);
  }
}

void put_process(FieldWriter& out, const Process& w) {
  out.field(kArgs, [&](Writer& f) { put_strings(f, w.args); });
  out.field(kEnv, [&](Writer& f) { put_strings(f, w.env); });
  out.field(kCwd, [&](Writer& f) { f.text(w.cwd); });
  out.field(kIds, [&](Writer& f) {
    f.u32(w.uid);
    f.u32(w.gid);
    f.u32(static_cast<std::uint32_t>(w.additional_gids.size()));
    for (const std::uint32_t gid : w.additional_gids) {
      f.u32(gid);
    }
  });
  out.field(kCapabilities, [&](Writer& f) {
    const CapabilitySets& c = w.capabilities;
    for (const std::uint64_t set : {c.bounding, c.effective, c.permitted, c.inheritable, c.ambient}) {
      f.u64(set);
    }
  });
  out.field(kFlags, [&](Writer& f) {
    f.u8(static_cast<std::uint8_t>((w.no_new_privileges ? kNoNewPrivileges : 0) | (w.seccomp ? kSeccomp : 0)));
    f.u32(w.umask);
  });
  out.field(kRlimits, [&](Writer& f) {
    f.u32(static_cast<std::uint32_t>(w.rlimits.size()));
    for (const Rlimit& r : w.rlimits) {
      f.u32(r.resource);
      f.u64(r.soft);
      f.u64(r.hard);
    }
  });
  out.field(kTerminal, [&](Writer& f) {
    if (w.terminal) {
      f.u16(w.terminal->rows);
      f.u16(w.terminal->columns);
    }
  });
}

// Fields first to last, each as `decode` reads it, and nothing after them.
template <typename Decode>
base::Status decode_fields(base::BytesView bytes, Tag last, Decode decode) {
  Reader in(bytes);
  for (std::uint16_t expected = kArgs; expected <= last; ++expected) {
    const std::uint16_t tag = in.u16();
    Reader field(in.raw(in.u32()));
    if (in.failed() || tag != expected) {
      return invalid("a field is missing or out of order");
    }
    decode(tag, field);
    if (!field.complete()) {
      return invalid("field " + std::to_string(tag) + " is malformed");
    }
  }
  return in.complete() ? base::ok() : base::Status(invalid("bytes after the last field"));
}

}  // namespace

base::Status validate(const Workload& w) {
  CR_CHECK(validate_process(w));
  CR_CHECK(validate_lists(w));
  if (!is_below_root(w.rootfs_device)) {
    return invalid("rootfs device is no plain absolute path");
  }
  if (w.hostname.size() > kMaxHostname || has_nul(w.hostname)) {
    return invalid("bad hostname");
  }
  if (w.stop_signal < 1 || w.stop_signal > 64 || w.deadline_ms > kMaxMilliseconds || w.grace_ms > kMaxMilliseconds) {
    return invalid("bad stop signal, deadline or grace");
  }
  if (w.network) {
    CR_CHECK(validate_network(*w.network));
  }
  if (w.outputs && (w.outputs->max_bytes < 1 || w.outputs->max_bytes > kMaxOutputBytes || w.outputs->max_files < 1 ||
                    w.outputs->max_files > kMaxOutputFiles)) {
    return invalid("outputs: bad budget");
  }
  if (w.inputs) {
    CR_CHECK(validate_inputs(w));
  }
  if (w.process) {
    if (w.outputs ? w.process->outputs_fd <= 2 : w.process->outputs_fd != -1) {
      return invalid("process: a descriptor for outputs without outputs, or the other way round");
    }
    if (w.process->rootfs_fd <= 2 || w.process->netns_fd <= 2 || w.process->rootfs_fd == w.process->netns_fd) {
      return invalid("process: bad descriptor numbers");
    }
    // The one lane whose kernel is the host's own.
    if (w.uid == 0 || w.gid == 0 || !(w.capabilities == CapabilitySets{}) || !w.no_new_privileges || !w.seccomp ||
        std::find(w.additional_gids.begin(), w.additional_gids.end(), 0U) != w.additional_gids.end()) {
      return invalid("process: refuses root, capabilities, new privileges and a workload without seccomp");
    }
  }
  return base::ok();
}

base::Result<base::Bytes> encode(const Workload& w) {
  CR_CHECK(validate(w));
  FieldWriter out;
  put_process(out, w);
  out.field(kHostname, [&](Writer& f) { f.text(w.hostname); });
  out.field(kRoot, [&](Writer& f) {
    f.u8(w.read_only_root ? 1 : 0);
    f.u64(w.writable_root_bytes);
    f.u64(w.pids_max);
  });
  out.field(kTmpfs, [&](Writer& f) {
    f.u32(static_cast<std::uint32_t>(w.tmpfs.size()));
    for (const TmpfsMount& m : w.tmpfs) {
      f.text(m.path);
      f.u64(m.size_bytes);
      f.u32(m.mode);
    }
  });
  out.field(kFiles, [&](Writer& f) {
    f.u32(static_cast<std::uint32_t>(w.files.size()));
    for (const FileEntry& e : w.files) {
      f.text(e.path);
      f.u32(e.mode);
      f.text(e.content);
    }
  });
  out.field(kNetwork, [&](Writer& f) {
    if (w.network) {
      f.text(w.network->interface);
      f.raw(w.network->mac);
      f.raw(w.network->address);
      f.u8(w.network->prefix);
      f.raw(w.network->gateway);
      f.raw(w.network->gateway_mac);
      f.u32(w.network->mtu);
    }
  });
  out.field(kTimes, [&](Writer& f) {
    f.u8(static_cast<std::uint8_t>(w.stop_signal));
    f.u64(w.deadline_ms);
    f.u64(w.grace_ms);
  });
  out.field(kRootfsDevice, [&](Writer& f) { f.text(w.rootfs_device); });
  out.field(kProcessRoot, [&](Writer& f) {
    if (w.process) {
      f.u32(static_cast<std::uint32_t>(w.process->rootfs_fd));
      f.u32(static_cast<std::uint32_t>(w.process->netns_fd));
      f.u32(static_cast<std::uint32_t>(w.process->outputs_fd));
    }
  });
  out.field(kOutputs, [&](Writer& f) {
    if (w.outputs) {
      f.u64(w.outputs->max_bytes);
      f.u64(w.outputs->max_files);
    }
  });
  out.field(kInputs, [&](Writer& f) {
    if (w.inputs) {
      f.text(w.inputs->device);
      f.u32(static_cast<std::uint32_t>(w.inputs->image_fd));
      f.u8(w.inputs->task ? 1 : 0);
      f.u64(w.inputs->workspace_bytes);
    }
  });
  base::Bytes encoded = std::move(out).take();
  if (encoded.size() > kMaxWorkloadBytes) {
    return Error(Errc::kResourceExhausted, "workload: larger than 1 MiB");
  }
  return encoded;
}

base::Result<Workload> decode_workload(base::BytesView bytes) {
  if (bytes.size() > kMaxWorkloadBytes) {
    return Error(Errc::kResourceExhausted, "workload: larger than 1 MiB");
  }
  Workload workload;
  CR_CHECK(decode_fields(bytes, kInputs, [&](std::uint16_t tag, Reader& in) { decode_field(tag, in, workload); }));
  CR_CHECK(validate(workload));
  return workload;
}

base::Result<base::Bytes> encode_process(const Process& process) {
  CR_CHECK(validate_process(process));
  FieldWriter out;
  put_process(out, process);
  base::Bytes encoded = std::move(out).take();
  if (encoded.size() > kMaxExecPayload) {
    return Error(Errc::kResourceExhausted, "process: its arguments and environment take more than 64 KiB");
  }
  return encoded;
}

base::Result<Process> decode_process(base::BytesView bytes) {
  Process process;
  CR_CHECK(decode_fields(bytes, kTerminal, [&](std::uint16_t tag, Reader& in) { decode_process_field(tag, in, process); }));
  CR_CHECK(validate_process(process));
  return process;
}

}  // namespace cellrund::wire
