// A server on a Unix socket over a domain in memory, and a client.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "gabion/v1/export.grpc.pb.h"
#include "gabion/v1/image.grpc.pb.h"
#include "gabion/v1/inspect.grpc.pb.h"
#include "gabion/v1/pool.grpc.pb.h"
#include "gabion/v1/server.grpc.pb.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "service/server.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/temp_dir.h"

namespace gabion::service {

class ServerFixture : public DomainFixture {
 protected:
  explicit ServerFixture(Adjust adjust = {})
      : DomainFixture(std::move(adjust)),
        executor_(4),
        calls_(executor_, NullLogger(), domain_->requests(), domain_->operations()) {
    ServerOptions options;
    options.unix_path = dir_ / "gabiond.sock";
    options.tcp_host = "127.0.0.1";
    auto server = Server::Start(options, calls_, *domain_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel("unix:" + options.unix_path, grpc::InsecureChannelCredentials());
    images_ = v1::ImageService::NewStub(channel_);
    exports_ = v1::ExportService::NewStub(channel_);
    pools_ = v1::PoolService::NewStub(channel_);
    inspect_ = v1::InspectService::NewStub(channel_);
    info_ = v1::ServerService::NewStub(channel_);
  }
  ~ServerFixture() override {
    server_.reset();
    executor_.Stop();
  }

  // Calls `method` of a stub; the answer goes to `response`.
  template <typename Stub, typename Request, typename Response>
  grpc::Status Call(Stub& stub,
                    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    return (stub.*method)(&context, request, response);
  }

  // An image that is being made: its operation is paused behind its first piece. The operation's
  // name. REQUIRES: the options say SmallPieces().
  std::string CreatePausedImage(const std::string& id) {
    const int pieces = engine_->calls("BuildImage");
    engine_->Hold("BuildImage");
    std::thread creator([&] { CreateImage(id, 2 * kPieceBytes).IgnoreError(); });
    engine_->AwaitCalls("BuildImage", pieces + 1);
    v1::PauseJobRequest pause;
    pause.set_name(domain_->operations().OperationOf("images/" + id).value_or(""));
    const absl::Status paused = domain_->operations().Pause(pause, service::Call()).status();
    EXPECT_TRUE(paused.ok()) << paused;
    engine_->Release("BuildImage");
    creator.join();
    return pause.name();
  }
  static void SmallPieces(DomainOptions* options) { options->operations.piece_bytes = kPieceBytes; }

  static constexpr uint64_t kPieceBytes = 4096;
  const TempDir dir_;
  Executor executor_;
  Calls calls_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ImageService::Stub> images_;
  std::unique_ptr<v1::ExportService::Stub> exports_;
  std::unique_ptr<v1::PoolService::Stub> pools_;
  std::unique_ptr<v1::InspectService::Stub> inspect_;
  std::unique_ptr<v1::ServerService::Stub> info_;
};

}  // namespace gabion::service
