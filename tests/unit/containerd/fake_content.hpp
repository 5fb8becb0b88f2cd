// containerd's Content service as far as the client's rules need it, on a Unix socket in a temporary folder. Each test
// sets how it misbehaves.
#pragma once

#include <grpcpp/grpcpp.h>
#include <stdlib.h>

#include <containerd/content.grpc.pb.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/guarded.hpp"

namespace cellrund::test {

namespace wire = ::containerd::services::content::v1;

class FakeContent final : public wire::Content::Service {
 public:
  struct State {
    std::map<std::string, std::string> blobs;                          // by digest
    std::map<std::string, std::map<std::string, std::string>> labels;  // by digest
    std::map<std::string, std::string> partial;                        // by reference
    std::string expected_bytes;                                        // a COMMIT of anything else is refused
    int locked_times = 0;                                              // so many STATs find the reference locked
    int commit_answers = 2;                                            // as containerd 1.6
    bool lies_about_offset = false;
    int aborts = 0;
    std::size_t largest_write = 0;
    std::string seen_namespace, seen_lease;
    bool read_out_of_order = false;
  };

  FakeContent() {
    std::string pattern = "/tmp/ctrd-unit-XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
    socket = dir_ + "/c.sock";
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  FakeContent(const FakeContent&) = delete;
  FakeContent& operator=(const FakeContent&) = delete;
  ~FakeContent() override {
    server_->Shutdown(std::chrono::system_clock::now());
    std::filesystem::remove_all(dir_);
  }

  grpc::Status Write(grpc::ServerContext* context,
                     grpc::ServerReaderWriter<wire::WriteContentResponse, wire::WriteContentRequest>* stream) override {
    note(*context);
    wire::WriteContentRequest request;
    std::string ref;
    while (stream->Read(&request)) {
      auto state = state_.lock();
      ref = request.ref().empty() ? ref : request.ref();
      if (request.action() == wire::STAT && state->locked_times > 0) {
        --state->locked_times;
        return {grpc::UNAVAILABLE, "ref " + ref + " locked for 1s (since now)"};
      }
      if (state->blobs.count(request.expected()) != 0) {
        return {grpc::ALREADY_EXISTS, "content exists"};
      }
      std::string& bytes = state->partial[ref];
      wire::WriteContentResponse response;
      response.set_action(request.action());
      if (request.action() == wire::WRITE) {
        if (static_cast<std::size_t>(request.offset()) != bytes.size()) {
          return {grpc::OUT_OF_RANGE, "offset"};
        }
        state->largest_write = std::max(state->largest_write, request.data().size());
        bytes += request.data();
      }
      response.set_offset(static_cast<std::int64_t>(bytes.size()) + (state->lies_about_offset ? 1 : 0));
      if (request.action() == wire::COMMIT) {
        if (bytes != state->expected_bytes || request.total() != static_cast<std::int64_t>(bytes.size())) {
          return {grpc::FAILED_PRECONDITION, "unexpected commit digest"};
        }
        state->blobs[request.expected()] = bytes;
        for (const auto& [key, value] : request.labels()) {
          state->labels[request.expected()][key] = value;
        }
        state->partial.erase(ref);
        for (int i = 0; i < state->commit_answers; ++i) {
          stream->Write(response);
        }
        continue;
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

  grpc::Status Abort(grpc::ServerContext*, const wire::AbortRequest* request, google::protobuf::Empty*) override {
    auto state = state_.lock();
    state->partial.erase(request->ref());
    ++state->aborts;
    return grpc::Status::OK;
  }

  grpc::Status Info(grpc::ServerContext*, const wire::InfoRequest* request, wire::InfoResponse* response) override {
    auto state = state_.lock();
    const auto blob = state->blobs.find(request->digest());
    if (blob == state->blobs.end()) {
      return {grpc::NOT_FOUND, "content \x1b[31m not found"};
    }
    response->mutable_info()->set_digest(blob->first);
    response->mutable_info()->set_size(static_cast<std::int64_t>(blob->second.size()));
    return grpc::Status::OK;
  }

  grpc::Status Update(grpc::ServerContext*, const wire::UpdateRequest* request, wire::UpdateResponse*) override {
    auto state = state_.lock();
    for (const std::string& path : request->update_mask().paths()) {
      const std::string key = path.substr(std::string("labels.").size());
      state->labels[request->info().digest()][key] = request->info().labels().at(key);
    }
    return grpc::Status::OK;
  }

  grpc::Status Read(grpc::ServerContext*, const wire::ReadContentRequest* request,
                    grpc::ServerWriter<wire::ReadContentResponse>* writer) override {
    auto state = state_.lock();
    const std::string& bytes = state->blobs[request->digest()];
    constexpr std::size_t kPiece = 10;
    for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
      wire::ReadContentResponse response;
      response.set_offset(static_cast<std::int64_t>(at) + (state->read_out_of_order && at != 0 ? 1 : 0));
      response.set_data(bytes.substr(at, kPiece));
      if (!writer->Write(response)) {
        break;
      }
    }
    return grpc::Status::OK;
  }

  base::Guarded<State>::Lock state() { return state_.lock(); }
  std::string socket;

 private:
  void note(const grpc::ServerContext& context) {
    auto state = state_.lock();
    for (const auto& [key, value] : context.client_metadata()) {
      const std::string name(key.data(), key.size());
      if (name == "containerd-namespace") {
        state->seen_namespace.assign(value.data(), value.size());
      } else if (name == "containerd-lease") {
        state->seen_lease.assign(value.data(), value.size());
      }
    }
  }

  std::string dir_;
  base::Guarded<State> state_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace cellrund::test
