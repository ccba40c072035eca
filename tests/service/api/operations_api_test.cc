// google.longrunning.Operations and JobService over gRPC.
#include "service/api/operations_api.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>
#include <vector>

#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "service/api/job_api.h"
#include "tests/service/domain/job_fixture.h"

namespace gabion::service {
namespace {

using google::longrunning::Operations;
using google::longrunning::WaitOperationRequest;
using std::chrono::milliseconds;

// The executor has one thread, so that whoever blocks it is noticed.
class OperationsApiTest : public JobFixture {
 protected:
  OperationsApiTest()
      : requests_(store_, locks_),
        executor_(1),
        calls_(executor_, NullLogger(), requests_, *manager_),
        api_(calls_, *manager_, timers_),
        job_api_(calls_, *manager_) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&api_);
    builder.RegisterService(&job_api_);
    server_ = builder.BuildAndStart();
    channel_ = server_->InProcessChannel({});
    operations_ = Operations::NewStub(channel_);
    jobs_ = v1::JobService::NewStub(channel_);
  }
  ~OperationsApiTest() override {
    api_.Stop();
    server_->Shutdown();
    executor_.Stop();
  }

  // Waits for `name` from a thread of its own.
  std::future<std::pair<grpc::Status, Operation>> Wait(const std::string& name,
                                                       grpc::ClientContext* context) {
    return std::async(std::launch::async, [this, name, context] {
      WaitOperationRequest request;
      request.set_name(name);
      Operation operation;
      const grpc::Status status = operations_->WaitOperation(context, request, &operation);
      return std::pair(status, operation);
    });
  }
  std::string WaitReason(const WaitOperationRequest& request) {
    grpc::ClientContext context;
    Operation operation;
    return InfoOf(FromGrpcStatus(operations_->WaitOperation(&context, request, &operation)))
        .reason();
  }
  // By a call, behind everything that the executor has been given.
  Operation GetByCall(const std::string& name) {
    grpc::ClientContext context;
    google::longrunning::GetOperationRequest request;
    request.set_name(name);
    Operation operation;
    EXPECT_TRUE(operations_->GetOperation(&context, request, &operation).ok());
    return operation;
  }

  RequestLog requests_;
  Executor executor_;
  Timers timers_;
  Calls calls_;
  OperationsApi api_;
  JobApi job_api_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Operations::Stub> operations_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
};

TEST_F(OperationsApiTest, WaitsTakeNoThreadAndEndWithTheOperation) {
  const std::string name = BeginPaused();
  std::vector<grpc::ClientContext> contexts(8);
  std::vector<std::future<std::pair<grpc::Status, Operation>>> waits;
  for (grpc::ClientContext& context : contexts) waits.push_back(Wait(name, &context));
  EXPECT_FALSE(GetByCall(name).done());
  EXPECT_TRUE(Resume(name).ok());
  for (auto& wait : waits) {
    const auto [status, operation] = wait.get();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(operation.has_response());
  }
}

TEST_F(OperationsApiTest, AWaitForWhatIsDoneAnswersAtOnce) {
  const std::string name = Begin();
  EXPECT_TRUE(Start(name).done());
  grpc::ClientContext context;
  EXPECT_TRUE(Wait(name, &context).get().second.done());
}

TEST_F(OperationsApiTest, AWaitEndsWithItsTimeout) {
  WaitOperationRequest request;
  request.set_name(BeginPaused());
  for (const int nanos : {0, 1'000'000}) {
    request.mutable_timeout()->set_nanos(nanos);
    grpc::ClientContext context;
    Operation operation;
    const grpc::Status status = operations_->WaitOperation(&context, request, &operation);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(operation.name(), request.name());
    EXPECT_FALSE(operation.done());
  }
}

TEST_F(OperationsApiTest, AWaitThatMakesNoSenseIsRefused) {
  WaitOperationRequest request;
  request.set_name("operations/none");
  EXPECT_EQ(WaitReason(request), "RESOURCE_NOT_FOUND");
  request.set_name(BeginPaused());
  request.mutable_timeout()->set_seconds(-1);
  EXPECT_EQ(WaitReason(request), "FIELD_OUT_OF_RANGE");
  request.mutable_timeout()->set_seconds(0);
  request.mutable_timeout()->set_nanos(-1);
  EXPECT_EQ(WaitReason(request), "FIELD_OUT_OF_RANGE");
}

TEST_F(OperationsApiTest, AWaitEndsWithItsCall) {
  const std::string name = BeginPaused();
  grpc::ClientContext late;
  late.set_deadline(std::chrono::system_clock::now() + milliseconds(20));
  const auto [status, operation] = Wait(name, &late).get();
  EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_FALSE(operation.done());
  grpc::ClientContext cancelled;
  auto wait = Wait(name, &cancelled);
  EXPECT_FALSE(GetByCall(name).done());
  cancelled.TryCancel();
  EXPECT_EQ(wait.get().first.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(OperationsApiTest, StopEndsWaitsAndLetsNoneBegin) {
  const std::string name = BeginPaused();
  grpc::ClientContext before;
  auto wait = Wait(name, &before);
  EXPECT_FALSE(GetByCall(name).done());
  api_.Stop();
  EXPECT_EQ(InfoOf(FromGrpcStatus(wait.get().first)).reason(), "DRAINING");
  grpc::ClientContext after;
  EXPECT_EQ(InfoOf(FromGrpcStatus(Wait(name, &after).get().first)).reason(), "DRAINING");
}

TEST_F(OperationsApiTest, OperationsAreListedCancelledAndForgotten) {
  const std::string name = BeginPaused();
  google::protobuf::Empty nothing;
  google::longrunning::DeleteOperationRequest forget;
  forget.set_name(name);
  {
    grpc::ClientContext context;
    const grpc::Status status = operations_->DeleteOperation(&context, forget, &nothing);
    EXPECT_EQ(InfoOf(FromGrpcStatus(status)).reason(), "OPERATION_NOT_DONE");
  }
  {
    grpc::ClientContext context;
    google::longrunning::CancelOperationRequest cancel;
    cancel.set_name(name);
    EXPECT_TRUE(operations_->CancelOperation(&context, cancel, &nothing).ok());
  }
  grpc::ClientContext waiting;
  EXPECT_EQ(ReasonOf(Wait(name, &waiting).get().second), "OPERATION_CANCELLED");
  grpc::ClientContext forgetting;
  EXPECT_TRUE(operations_->DeleteOperation(&forgetting, forget, &nothing).ok());
  grpc::ClientContext listing;
  google::longrunning::ListOperationsResponse left;
  EXPECT_TRUE(operations_->ListOperations(&listing, {}, &left).ok());
  EXPECT_EQ(left.operations_size(), 0);
}

TEST_F(OperationsApiTest, ARequestThatIsSentAgainHasNoSecondEffect) {
  fake_.total_bytes = 300;
  const std::string name = BeginPaused();
  v1::ResumeJobRequest resume;
  resume.set_name(name);
  v1::SetJobRateRequest slow;
  slow.set_name(name);
  slow.set_limit_bytes_per_second(1);
  slow.set_request_id("c6a7b9f0-3b1e-4f6e-9d5a-0a1b2c3d4e5f");
  v1::SetJobRateRequest fast;
  fast.set_name(name);
  Operation operation;
  const auto set_rate = [&](const v1::SetJobRateRequest& request) {
    grpc::ClientContext context;
    return FromGrpcStatus(jobs_->SetJobRate(&context, request, &operation));
  };
  EXPECT_TRUE(set_rate(slow).ok());
  EXPECT_EQ(MetadataOf(operation).limit_bytes_per_second(), 1u);
  EXPECT_TRUE(set_rate(fast).ok());
  EXPECT_TRUE(set_rate(slow).ok());
  EXPECT_EQ(MetadataOf(operation).limit_bytes_per_second(), 0u);
  slow.set_limit_bytes_per_second(2);
  EXPECT_EQ(InfoOf(set_rate(slow)).reason(), "REQUEST_ID_REUSED");
  grpc::ClientContext context;
  EXPECT_TRUE(jobs_->ResumeJob(&context, resume, &operation).ok());
  EXPECT_TRUE(WaitDone(name).has_response());
  grpc::ClientContext late;
  v1::PauseJobRequest pause;
  pause.set_name(name);
  EXPECT_EQ(InfoOf(FromGrpcStatus(jobs_->PauseJob(&late, pause, &operation))).reason(),
            "OPERATION_DONE");
}

}  // namespace
}  // namespace gabion::service
