#include "service/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <thread>
#include <vector>

#include "google/longrunning/operations.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpcpp/impl/rpc_method.h"
#include "grpcpp/support/sync_stream.h"
#include "tests/service/api/server_fixture.h"

namespace gabion::service {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;
using testing::ElementsAre;
using testing::IsSupersetOf;

class ServerTest : public ServerFixture {
 protected:
  HealthCheckResponse::ServingStatus Health(const std::string& service) {
    auto stub = grpc::health::v1::Health::NewStub(channel_);
    HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub->Check(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }
  // The services that reflection of `version` tells; v1 and v1alpha are alike but for the name.
  std::vector<std::string> Reflected(const std::string& version) {
    grpc::ClientContext context;
    const std::string path =
        "/grpc.reflection." + version + ".ServerReflection/ServerReflectionInfo";
    const grpc::internal::RpcMethod method(path.c_str(), grpc::internal::RpcMethod::BIDI_STREAMING,
                                           channel_);
    std::unique_ptr<grpc::ClientReaderWriter<ServerReflectionRequest, ServerReflectionResponse>>
        stream(grpc::internal::ClientReaderWriterFactory<
               ServerReflectionRequest, ServerReflectionResponse>::Create(channel_.get(), method,
                                                                          &context));
    ServerReflectionRequest request;
    request.set_list_services("");
    ServerReflectionResponse response;
    EXPECT_TRUE(stream->Write(request));
    EXPECT_TRUE(stream->Read(&response));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    std::vector<std::string> names;
    for (const auto& service : response.list_services_response().service()) {
      names.push_back(service.name());
    }
    return names;
  }
  static v1::MapRequest MapOf(const std::string& name) {
    v1::MapRequest request;
    request.set_name(name);
    return request;
  }
  // An image whose map takes many pieces.
  void MakeStripes(const std::string& id, int count) {
    ASSERT_TRUE(CreateImage(id, 2 * static_cast<uint64_t>(count)).ok());
    std::string stripes;
    for (int i = 0; i < count; ++i) stripes += std::string("x\0", 2);
    Fill(id + ".raw", 0, stripes);
  }
};

TEST_F(ServerTest, SocketIsForItsOwnerOnly) {
  struct stat status;
  ASSERT_EQ(stat((dir_ / "gabiond.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(ServerTest, ShortWorkIsDoneWhenItsOperationIsAnswered) {
  v1::CreateImageRequest create;
  create.set_image_id("a");
  create.mutable_image()->mutable_raw();
  create.mutable_image()->set_virtual_size_bytes(4096);
  create.mutable_image()->set_uid("output only: ignored");
  google::longrunning::Operation operation;
  ASSERT_TRUE(Call(*images_, &v1::ImageService::Stub::CreateImage, create, &operation).ok());
  EXPECT_TRUE(operation.done());
  EXPECT_TRUE(operation.name().starts_with("operations/"));
  v1::Image image;
  ASSERT_TRUE(operation.response().UnpackTo(&image));
  EXPECT_EQ(image.name(), "images/a");
  EXPECT_EQ(image.uid().size(), 36u);

  v1::DeleteImageRequest remove;
  remove.set_name("images/a");
  ASSERT_TRUE(Call(*images_, &v1::ImageService::Stub::DeleteImage, remove, &operation).ok());
  EXPECT_TRUE(operation.response().Is<google::protobuf::Empty>());
}

TEST_F(ServerTest, SameCallsWorkOverTcp) {
  const auto& addresses = server_->addresses();
  ASSERT_EQ(addresses.size(), 2u);
  auto stub = v1::ServerService::NewStub(
      grpc::CreateChannel(addresses[1], grpc::InsecureChannelCredentials()));
  v1::ServerInfo info;
  grpc::ClientContext context;
  ASSERT_TRUE(stub->GetServerInfo(&context, v1::GetServerInfoRequest(), &info).ok());
  EXPECT_EQ(info.version(), "0.0.0-test");
  EXPECT_THAT(info.grpc_addresses(), ElementsAre(addresses[0], addresses[1]));
  EXPECT_THAT(info.nbd_addresses(),
              ElementsAre("unix:/run/gabion test/nbd.sock", "127.0.0.1:10809"));
  EXPECT_GT(info.start_time().seconds(), 0);
}

TEST_F(ServerTest, PoolsAreShown) {
  v1::ListPoolsResponse pools;
  ASSERT_TRUE(
      Call(*pools_, &v1::PoolService::Stub::ListPools, v1::ListPoolsRequest(), &pools).ok());
  ASSERT_EQ(pools.pools_size(), 1);
  EXPECT_EQ(pools.pools(0).name(), "pools/default");
  EXPECT_EQ(pools.pools(0).state(), v1::Pool::STATE_ACTIVE);
  EXPECT_EQ(pools.pools(0).free_bytes(), 400 * kMiB);
}

TEST_F(ServerTest, ListsComePageByPage) {
  ASSERT_TRUE(CreateImage("a").ok());
  for (const char* id : {"e1", "e2", "e3"}) ASSERT_TRUE(CreateExport(id, "images/a").ok());
  v1::ListExportsRequest request;
  request.set_page_size(2);
  std::vector<std::string> names;
  do {
    v1::ListExportsResponse page;
    ASSERT_TRUE(Call(*exports_, &v1::ExportService::Stub::ListExports, request, &page).ok());
    for (const auto& exported : page.exports()) names.push_back(exported.name());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(names, ElementsAre("exports/e1", "exports/e2", "exports/e3"));
}

TEST_F(ServerTest, MapStreamsEveryPiece) {
  MakeStripes("a", 50'000);
  grpc::ClientContext context;
  auto stream = inspect_->Map(&context, MapOf("images/a"));
  v1::MapResponse piece;
  uint64_t at = 0;
  int pieces = 0;
  while (stream->Read(&piece)) {
    ++pieces;
    for (const auto& extent : piece.extents()) {
      ASSERT_EQ(extent.offset(), at);
      at += extent.length();
    }
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(at, 100'000u);
  EXPECT_GT(pieces, 90);
}

TEST_F(ServerTest, MapOfWhatIsMissingEndsWithTheError) {
  grpc::ClientContext context;
  auto stream = inspect_->Map(&context, MapOf("images/none"));
  v1::MapResponse piece;
  EXPECT_FALSE(stream->Read(&piece));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ServerTest, MapIsNotReadAheadOfASlowClientAndEndsWhenItLeaves) {
  MakeStripes("a", 500'000);
  {
    grpc::ClientContext context;
    auto stream = inspect_->Map(&context, MapOf("images/a"));
    v1::MapResponse piece;
    ASSERT_TRUE(stream->Read(&piece));
    context.TryCancel();
    EXPECT_FALSE(stream->Finish().ok());
  }
  while (engine_->open_targets() != 0) std::this_thread::yield();  // ctest ends it otherwise
  EXPECT_LT(engine_->calls("Map"), 900);                           // all of it takes 977
}

TEST_F(ServerTest, AMapThatNobodyReadsKeepsNothingOpen) {
  MakeStripes("a", 500'000);
  grpc::ClientContext context;
  auto stream = inspect_->Map(&context, MapOf("images/a"));
  v1::MapResponse piece;
  ASSERT_TRUE(stream->Read(&piece));
  // Refused while a piece is being made; ctest ends the test if that does not end.
  while (!absl::IsNotFound(DeleteImage("images/a"))) std::this_thread::yield();
  while (stream->Read(&piece)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
}

TEST_F(ServerTest, ACallIsAnsweredByItsOperationAlsoWhenThatWasDeleted) {
  v1::CreateImageRequest create;
  create.set_image_id("a");
  create.mutable_image()->mutable_raw();
  create.mutable_image()->set_virtual_size_bytes(4096);
  create.set_request_id("0b5d9a0e-6f0a-4c57-9d2f-8a1b2c3d4e5f");
  google::longrunning::Operation first;
  ASSERT_TRUE(Call(*images_, &v1::ImageService::Stub::CreateImage, create, &first).ok());
  ASSERT_TRUE(domain_->operations().Delete(first.name()).ok());
  google::longrunning::Operation second;
  const grpc::Status again = Call(*images_, &v1::ImageService::Stub::CreateImage, create, &second);
  ASSERT_TRUE(again.ok()) << again.error_message();
  EXPECT_EQ(second.DebugString(), first.DebugString());
}

// An image whose lock is held by a call that goes on until the end of the test.
class BusyImageTest : public ServerTest {
 protected:
  BusyImageTest() {
    EXPECT_TRUE(CreateImage("a").ok());
    engine_->Hold("GrowImage");
    holder_ = std::thread([this] {
      v1::UpdateImageRequest grow = Update();
      grow.mutable_image()->set_virtual_size_bytes(8192);
      v1::Image image;
      EXPECT_TRUE(Call(*images_, &v1::ImageService::Stub::UpdateImage, grow, &image).ok());
    });
    engine_->AwaitCalls("GrowImage", 1);
  }
  ~BusyImageTest() override {
    engine_->Release("GrowImage");
    holder_.join();
  }

  static v1::UpdateImageRequest Update() {
    v1::UpdateImageRequest request;
    request.mutable_image()->set_name("images/a");
    (*request.mutable_image()->mutable_labels())["k"] = "v";
    return request;
  }
  // A change of something else gets a thread; ctest ends the test otherwise.
  bool AnotherChangeIsMade() {
    v1::DeleteImageRequest remove;
    remove.set_name("images/none");
    remove.set_allow_missing(true);
    google::longrunning::Operation operation;
    return Call(*images_, &v1::ImageService::Stub::DeleteImage, remove, &operation).ok();
  }
  // More than there are threads for changes.
  static constexpr int kWaiting = 8;

  std::thread holder_;
};

TEST_F(BusyImageTest, ReadsGoOnWhileChangesWait) {
  std::vector<std::thread> waiting;
  for (int i = 0; i < kWaiting; ++i) {
    waiting.emplace_back([this] {
      v1::Image image;
      EXPECT_TRUE(Call(*images_, &v1::ImageService::Stub::UpdateImage, Update(), &image).ok());
    });
  }
  v1::GetImageRequest get;
  get.set_name("images/a");
  for (int i = 0; i < 100; ++i) {
    v1::Image image;
    EXPECT_TRUE(Call(*images_, &v1::ImageService::Stub::GetImage, get, &image).ok());
  }
  engine_->Release("GrowImage");
  for (std::thread& call : waiting) call.join();
}

TEST_F(BusyImageTest, WaitsEndWithTheDeadlinesOfTheirCalls) {
  std::vector<std::thread> waiting;
  for (int i = 0; i < kWaiting; ++i) {
    waiting.emplace_back([this] {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(500));
      v1::Image image;
      EXPECT_FALSE(images_->UpdateImage(&context, Update(), &image).ok());
    });
  }
  for (std::thread& call : waiting) call.join();
  EXPECT_TRUE(AnotherChangeIsMade());
}

TEST_F(BusyImageTest, WaitsEndWhenTheirCallersLeave) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::thread> waiting;
  for (int i = 0; i < kWaiting; ++i) {
    grpc::ClientContext& context = *contexts.emplace_back(std::make_unique<grpc::ClientContext>());
    waiting.emplace_back([this, &context] {
      v1::Image image;
      EXPECT_FALSE(images_->UpdateImage(&context, Update(), &image).ok());
    });
  }
  for (auto& context : contexts) context->TryCancel();
  for (std::thread& call : waiting) call.join();
  EXPECT_TRUE(AnotherChangeIsMade());
}

TEST_F(ServerTest, ReflectionOfBothVersionsTellsTheSameServices) {
  const std::vector<std::string> v1 = Reflected("v1");
  EXPECT_THAT(v1, IsSupersetOf({"gabion.v1.ImageService", "gabion.v1.ExportService",
                                "gabion.v1.InspectService", "gabion.v1.PoolService",
                                "gabion.v1.ServerService", "grpc.health.v1.Health",
                                "grpc.reflection.v1.ServerReflection"}));
  EXPECT_THAT(Reflected("v1alpha"), testing::UnorderedElementsAreArray(v1));
}

TEST_F(ServerTest, HealthFollowsReadinessAndDrain) {
  EXPECT_EQ(Health(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("readiness"), HealthCheckResponse::NOT_SERVING);
  server_->SetReady();
  EXPECT_EQ(Health("readiness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("gabion.v1.ImageService"), HealthCheckResponse::SERVING);
  server_->Drain();
  EXPECT_EQ(Health(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("readiness"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("gabion.v1.ImageService"), HealthCheckResponse::NOT_SERVING);
}

TEST_F(ServerTest, DrainingServerReadsButDoesNotChange) {
  ASSERT_TRUE(CreateImage("a").ok());
  server_->Drain();
  v1::DeleteImageRequest remove;
  remove.set_name("images/a");
  google::longrunning::Operation operation;
  const grpc::Status status =
      Call(*images_, &v1::ImageService::Stub::DeleteImage, remove, &operation);
  EXPECT_EQ(ReasonIn(FromGrpcStatus(status)), "DRAINING");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  v1::GetImageRequest get;
  get.set_name("images/a");
  v1::Image image;
  EXPECT_TRUE(Call(*images_, &v1::ImageService::Stub::GetImage, get, &image).ok());
}

TEST_F(ServerTest, StopWaitsForTheCallUnderWay) {
  engine_->Hold("BuildImage");
  grpc::Status status;
  std::thread caller([&] {
    v1::CreateImageRequest create;
    create.set_image_id("a");
    create.mutable_image()->mutable_raw();
    create.mutable_image()->set_virtual_size_bytes(4096);
    google::longrunning::Operation operation;
    status = Call(*images_, &v1::ImageService::Stub::CreateImage, create, &operation);
  });
  engine_->AwaitCalls("BuildImage", 1);
  server_->Drain();
  std::thread stopper([&] { server_->Stop(std::chrono::seconds(60)); });
  engine_->Release("BuildImage");
  caller.join();
  stopper.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(ServerTest, StopCutsOffAStreamThatNobodyReads) {
  MakeStripes("a", 500'000);
  grpc::ClientContext context;
  auto stream = inspect_->Map(&context, MapOf("images/a"));
  v1::MapResponse piece;
  ASSERT_TRUE(stream->Read(&piece));
  server_->Stop(std::chrono::milliseconds(1));  // returns, or ctest ends the test
  while (stream->Read(&piece)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
  EXPECT_EQ(engine_->open_targets(), 0);
}

TEST_F(ServerTest, SecondServerOnTheSameSocketIsRefused) {
  ServerOptions options;
  options.unix_path = dir_ / "gabiond.sock";
  const auto second = Server::Start(options, calls_, *domain_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Health(""), HealthCheckResponse::SERVING);  // the first one is still there
}

TEST_F(ServerTest, PlaintextTcpIsForLoopbackOnly) {
  for (const char* host : {"0.0.0.0", "::", "192.0.2.1", "example.org", "1270.0.0.1"}) {
    ServerOptions options;
    options.tcp_host = host;
    const auto refused = Server::Start(options, calls_, *domain_);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << host;
  }
}

TEST_F(ServerTest, PortInUseIsAnErrorThatNamesIt) {
  ServerOptions options;
  options.tcp_host = "127.0.0.1";
  const std::string address = server_->addresses()[1];
  options.tcp_port = static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
  const auto refused = Server::Start(options, calls_, *domain_);
  EXPECT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find(address), absl::string_view::npos) << refused.status();
}

}  // namespace
}  // namespace gabion::service
