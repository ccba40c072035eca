#include "service/api/inspect_api.h"

#include <atomic>
#include <memory>
#include <optional>
#include <utility>

namespace gabion::service {
namespace {

// One Map stream. At any time at most one of two things is under way: a step on the executor, which
// takes the next piece from the cursor, or the write of a piece; the end of one starts the other.
// So memory is bounded by one piece, and whoever is under way ends the stream when the client has
// gone. gRPC calls it, and it destroys itself when gRPC is done with it.
class MapStream final : public grpc::ServerWriteReactor<v1::MapResponse> {
 public:
  MapStream(Calls& calls, Inspector& inspector, const v1::MapRequest& request)
      : under_way_(calls), calls_(calls), inspector_(inspector), request_(request) {
    const absl::Status begins = calls_.Begin(Executor::Lane::kReads, [this] { Step(); });
    if (!begins.ok()) End(begins);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) cancelled_ = true;
    PostStep();
  }
  void OnCancel() override { cancelled_ = true; }
  void OnDone() override { delete this; }

 private:
  void PostStep() {
    const absl::Status goes_on = calls_.GoOn([this] { Step(); });
    if (!goes_on.ok()) End(goes_on);
  }

  void Step() {
    if (cancelled_) return End(absl::CancelledError("The client has gone."));
    if (cursor_ == nullptr) {
      Call call;
      absl::Status status = Prepare(MethodNamed("gabion.v1.InspectService.Map"), &request_, &call);
      if (status.ok()) {
        absl::StatusOr<std::unique_ptr<MapCursor>> cursor = inspector_.Map(request_);
        status = cursor.status();
        if (status.ok()) cursor_ = std::move(*cursor);
      }
      if (!status.ok()) return End(status);
    }
    absl::StatusOr<std::optional<v1::MapResponse>> piece = cursor_->Next();
    if (!piece.ok()) return End(piece.status());
    if (piece->has_value()) {
      piece_ = std::move(**piece);
      StartWrite(&piece_);
    } else if (cursor_->ended()) {
      End(absl::OkStatus());
    } else {
      PostStep();  // others have their turn in between
    }
  }

  // The image is let go before the client learns that the stream has ended.
  void End(const absl::Status& status) {
    cursor_.reset();
    Finish(calls_.Result("InspectService.Map", status));
  }

  const Calls::UnderWay under_way_;
  Calls& calls_;
  Inspector& inspector_;
  v1::MapRequest request_;
  std::unique_ptr<MapCursor> cursor_;
  v1::MapResponse piece_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::MapResponse>* InspectApi::Map(grpc::CallbackServerContext* /*context*/,
                                                           const v1::MapRequest* request) {
  return new MapStream(calls_, inspector_, *request);
}

grpc::ServerUnaryReactor* InspectApi::Read(grpc::CallbackServerContext* context,
                                           const v1::ReadRequest* request,
                                           v1::ReadResponse* response) {
  return Answer(
      calls_, "gabion.v1.InspectService.Read", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return inspector_.Read(checked); });
}

grpc::ServerUnaryReactor* InspectApi::Write(grpc::CallbackServerContext* context,
                                            const v1::WriteRequest* request,
                                            v1::WriteResponse* response) {
  return Answer(
      calls_, "gabion.v1.InspectService.Write", context, request, response,
      [this](const auto& checked, const Call& call) { return inspector_.Write(checked, call); });
}

grpc::ServerUnaryReactor* InspectApi::Verify(grpc::CallbackServerContext* context,
                                             const v1::VerifyRequest* request,
                                             v1::VerifyResponse* response) {
  return Answer(
      calls_, "gabion.v1.InspectService.Verify", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return inspector_.Verify(checked); });
}

grpc::ServerUnaryReactor* InspectApi::Explain(grpc::CallbackServerContext* context,
                                              const v1::ExplainRequest* request,
                                              v1::ExplainResponse* response) {
  return Answer(
      calls_, "gabion.v1.InspectService.Explain", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return inspector_.Explain(checked); });
}

grpc::ServerUnaryReactor* InspectApi::GetFilterStatistics(
    grpc::CallbackServerContext* context, const v1::GetFilterStatisticsRequest* request,
    v1::GetFilterStatisticsResponse* response) {
  return Answer(calls_, "gabion.v1.InspectService.GetFilterStatistics", context, request, response,
                [this](const auto& checked, const Call& /*call*/) {
                  return inspector_.FilterStatistics(checked);
                });
}

}  // namespace gabion::service
