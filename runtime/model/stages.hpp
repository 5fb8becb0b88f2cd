// The forward steps of a job as types. Each can be made by one step only (its friend), so that launching a job that was
// not verified, or an image that was not checked, does not compile. Move-only: a stage is consumed by the next one.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "model/job_spec.hpp"
#include "model/loosen.hpp"

namespace cellrund::job {
class Verifier;
}
namespace cellrund::admit {
class Admission;
}
namespace cellrund::image {
class Preparer;
}

namespace cellrund::model {

// Signature, time window, audience and schema hold. Says nothing about what the signer may ask for.
class VerifiedJob {
 public:
  [[nodiscard]] const JobSpec& spec() const noexcept { return spec_; }
  [[nodiscard]] const std::string& spec_digest() const noexcept { return spec_digest_; }      // "sha256:…" of the payload
  [[nodiscard]] const std::string& signer_key_id() const noexcept { return signer_key_id_; }  // hex SHA-256 of the SPKI
  [[nodiscard]] base::WallTime verified_at() const noexcept { return verified_at_; }

  VerifiedJob(VerifiedJob&&) = default;
  VerifiedJob& operator=(VerifiedJob&&) = default;
  VerifiedJob(const VerifiedJob&) = delete;
  VerifiedJob& operator=(const VerifiedJob&) = delete;
  ~VerifiedJob() = default;

 private:
  friend class job::Verifier;
  VerifiedJob(JobSpec spec, std::string spec_digest, std::string signer_key_id, base::WallTime verified_at)
      : spec_(std::move(spec)), spec_digest_(std::move(spec_digest)), signer_key_id_(std::move(signer_key_id)),
        verified_at_(verified_at) {}
  JobSpec spec_;
  std::string spec_digest_;
  std::string signer_key_id_;
  base::WallTime verified_at_;
};

// The signer may ask for exactly this, on this node, in this lane.
class AdmittedJob {
 public:
  [[nodiscard]] const JobSpec& spec() const noexcept { return verified_.spec(); }
  [[nodiscard]] const VerifiedJob& verified() const noexcept { return verified_; }
  [[nodiscard]] Lane lane() const noexcept { return lane_; }
  [[nodiscard]] const Principal& principal() const noexcept { return principal_; }
  // What of the signer's egress grant the job's rules need.
  [[nodiscard]] const std::vector<Relaxation>& relaxations() const noexcept { return relaxations_; }

  AdmittedJob(AdmittedJob&&) = default;
  AdmittedJob& operator=(AdmittedJob&&) = default;
  AdmittedJob(const AdmittedJob&) = delete;
  AdmittedJob& operator=(const AdmittedJob&) = delete;
  ~AdmittedJob() = default;

 private:
  friend class admit::Admission;
  AdmittedJob(VerifiedJob verified, Lane lane, Principal principal, std::vector<Relaxation> relaxations)
      : verified_(std::move(verified)), lane_(lane), principal_(std::move(principal)), relaxations_(std::move(relaxations)) {}
  VerifiedJob verified_;
  Lane lane_;
  Principal principal_;
  std::vector<Relaxation> relaxations_;
};

// What an image's config says about the process to run (OCI image-spec, config.md).
struct ImageConfig {
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  StringMap env;
  std::string working_dir;
  std::string user;
};

// One EROFS file made from exactly the layers that the pinned digest names, open for reading.
class PreparedImage {
 public:
  [[nodiscard]] const ImageRef& ref() const noexcept { return ref_; }
  [[nodiscard]] const ImageConfig& config() const noexcept { return config_; }
  [[nodiscard]] const std::string& rootfs_path() const noexcept { return rootfs_path_; }
  [[nodiscard]] const std::string& rootfs_digest() const noexcept { return rootfs_digest_; }  // "sha256:…" of the file
  [[nodiscard]] int rootfs_fd() const noexcept { return rootfs_.get(); }

  PreparedImage(PreparedImage&&) = default;
  PreparedImage& operator=(PreparedImage&&) = default;
  PreparedImage(const PreparedImage&) = delete;
  PreparedImage& operator=(const PreparedImage&) = delete;
  ~PreparedImage() = default;

 private:
  friend class image::Preparer;
  PreparedImage(ImageRef ref, ImageConfig config, std::string path, std::string digest, base::UniqueFd rootfs)
      : ref_(std::move(ref)), config_(std::move(config)), rootfs_path_(std::move(path)),
        rootfs_digest_(std::move(digest)), rootfs_(std::move(rootfs)) {}
  ImageRef ref_;
  ImageConfig config_;
  std::string rootfs_path_;
  std::string rootfs_digest_;
  base::UniqueFd rootfs_;
};

// One EROFS file with what the job finds at /task and /workspace (folders "task" and "workspace"), made from exactly the
// archives that its spec names, open for reading.
class PreparedInputs {
 public:
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] const std::string& digest() const noexcept { return digest_; }  // "sha256:…" of the file
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  PreparedInputs(PreparedInputs&&) = default;
  PreparedInputs& operator=(PreparedInputs&&) = default;
  PreparedInputs(const PreparedInputs&) = delete;
  PreparedInputs& operator=(const PreparedInputs&) = delete;
  ~PreparedInputs() = default;

 private:
  friend class image::Preparer;
  PreparedInputs(std::string path, std::string digest, base::UniqueFd fd)
      : path_(std::move(path)), digest_(std::move(digest)), fd_(std::move(fd)) {}
  std::string path_;
  std::string digest_;
  base::UniqueFd fd_;
};

}  // namespace cellrund::model
