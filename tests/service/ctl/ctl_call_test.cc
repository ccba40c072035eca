// gabionctl against a server on a Unix socket.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <thread>

#include "gabion/v1/inspect.grpc.pb.h"
#include "gabion/v1/pool.grpc.pb.h"
#include "service/ctl/run.h"
#include "service/errors.h"
#include "tests/service/temp_dir.h"

namespace gabion::service::ctl {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class Pools final : public v1::PoolService::Service {
  grpc::Status GetPool(grpc::ServerContext*, const v1::GetPoolRequest* request,
                       v1::Pool* response) override {
    if (request->name() != "pools/default") {
      return ToGrpcStatus(NotFound("gabion/Pool", request->name()));
    }
    response->set_name(request->name());
    response->set_size_bytes(uint64_t{1} << 40);
    return grpc::Status::OK;
  }
};

class Inspector final : public v1::InspectService::Service {
  grpc::Status Map(grpc::ServerContext*, const v1::MapRequest* request,
                   grpc::ServerWriter<v1::MapResponse>* writer) override {
    for (uint64_t i = 0; i < 3; ++i) {
      v1::MapResponse response;
      response.set_virtual_size_bytes(i + 1);
      writer->Write(response);
    }
    return request->length() == 0 ? grpc::Status::OK
                                  : ToGrpcStatus(Error(reason::kOffsetBeyondEnd, "beyond"));
  }
  grpc::Status Verify(grpc::ServerContext* context, const v1::VerifyRequest*,
                      v1::VerifyResponse*) override {
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  }
};

class CtlCallTest : public testing::Test {
 protected:
  CtlCallTest() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(server_address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&pools_);
    builder.RegisterService(&inspector_);
    server_ = builder.BuildAndStart();
  }

  int Call(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "call");
    return Run(arguments);
  }
  int Run(const std::vector<std::string>& arguments) {
    std::istringstream in;
    std::ostringstream out, err;
    const int status = ctl::Run(arguments, {{"GABION_SERVER", server_address_}}, in, out, err);
    out_ = out.str();
    err_ = err.str();
    return status;
  }

  const TempDir dir_;
  const std::string server_address_ = "unix:" + dir_ / "s.sock";
  Pools pools_;
  Inspector inspector_;
  std::unique_ptr<grpc::Server> server_;
  std::string out_, err_;
};

TEST_F(CtlCallTest, AnAnswerIsPrintedAsJson) {
  EXPECT_EQ(Call({"PoolService/GetPool", R"({"name": "pools/default"})"}), 0) << err_;
  EXPECT_EQ(out_, "{\n \"name\": \"pools/default\",\n \"sizeBytes\": \"1099511627776\"\n}\n");
  EXPECT_THAT(err_, IsEmpty());
}

TEST_F(CtlCallTest, AnErrorIsItsCodeAndItsDetails) {
  EXPECT_EQ(Call({"PoolService/GetPool", R"({"name": "pools/none"})"}), grpc::NOT_FOUND);
  EXPECT_THAT(out_, IsEmpty());
  EXPECT_THAT(err_, HasSubstr(R"("code": "NOT_FOUND")"));
  EXPECT_THAT(err_, HasSubstr(R"("reason":"RESOURCE_NOT_FOUND","domain":"gabion")"));
  EXPECT_THAT(err_, HasSubstr(R"("resourceName":"pools/none")"));
}

TEST_F(CtlCallTest, AStreamIsOneJsonObjectALine) {
  EXPECT_EQ(Call({"InspectService/Map", R"({"name": "images/a"})"}), 0) << err_;
  EXPECT_EQ(out_,
            "{\"virtualSizeBytes\":\"1\"}\n{\"virtualSizeBytes\":\"2\"}\n"
            "{\"virtualSizeBytes\":\"3\"}\n");
}

TEST_F(CtlCallTest, AStreamThatFailsKeepsWhatCameBefore) {
  EXPECT_EQ(Call({"InspectService/Map", R"({"length": "1"})"}), grpc::OUT_OF_RANGE);
  EXPECT_THAT(out_, HasSubstr("\"3\""));
  EXPECT_THAT(err_, HasSubstr("OFFSET_BEYOND_END"));
}

TEST_F(CtlCallTest, AMethodThatTheServerLacksIsUnimplemented) {
  EXPECT_EQ(Call({"ServerService/GetServerInfo"}), grpc::UNIMPLEMENTED);
}

TEST_F(CtlCallTest, TheTimeoutEndsACall) {
  EXPECT_EQ(Call({"InspectService/Verify", "--timeout=1"}), grpc::DEADLINE_EXCEEDED);
}

TEST_F(CtlCallTest, AServerThatIsNotThereIsNamed) {
  EXPECT_EQ(Call({"--server=unix:" + dir_ / "none.sock", "PoolService/ListPools"}),
            grpc::UNAVAILABLE);
  EXPECT_THAT(err_, HasSubstr("does gabiond listen there?"));
}

TEST_F(CtlCallTest, HealthIsPrintedAndIsTheExitStatus) {
  grpc::HealthCheckServiceInterface& health = *server_->GetHealthCheckService();
  EXPECT_EQ(Run({"health"}), 0) << err_;
  EXPECT_EQ(out_, "SERVING\n");
  health.SetServingStatus("readiness", false);
  EXPECT_EQ(Run({"health", "readiness"}), kNotServing);
  EXPECT_EQ(out_, "NOT_SERVING\n");
  health.SetServingStatus("readiness", true);
  EXPECT_EQ(Run({"health", "readiness"}), 0);
  EXPECT_THAT(err_, IsEmpty());
}

TEST_F(CtlCallTest, HealthOfNothingAndOfNobodyIsAnError) {
  EXPECT_EQ(Run({"health", "walrus"}), grpc::NOT_FOUND);
  EXPECT_THAT(err_, HasSubstr("NOT_FOUND"));
  EXPECT_EQ(Run({"--server=unix:" + dir_ / "none.sock", "health"}), grpc::UNAVAILABLE);
  EXPECT_THAT(err_, HasSubstr("does gabiond listen there?"));
  EXPECT_THAT(out_, IsEmpty());
}

}  // namespace
}  // namespace gabion::service::ctl
