// Calls as the API makes them for its clients, without gRPC: checked, and with the log of requests.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/base/status_macros.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/empty.pb.h"
#include "service/api/call.h"
#include "service/domain/domain.h"
#include "service/executor.h"

namespace gabion::service {

// Owned by the test, which makes a new one for each domain; any thread, which blocks.
class ApiCalls {
 public:
  // `domain` outlives this.
  explicit ApiCalls(Domain& domain)
      : domain_(domain), calls_(executor_, NullLogger(), domain.requests(), domain.operations()) {}

  using Operation = google::longrunning::Operation;

  absl::StatusOr<Operation> Send(const v1::CreateImageRequest& request) {
    return Ask<Operation>("gabion.v1.ImageService.CreateImage", request,
                          [this](auto& r, auto& call) { return domain_.images().Create(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::ImportImageRequest& request) {
    return Ask<Operation>("gabion.v1.ImageService.ImportImage", request,
                          [this](auto& r, auto& call) { return domain_.images().Import(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::CloneImageRequest& request) {
    return Ask<Operation>("gabion.v1.ImageService.CloneImage", request,
                          [this](auto& r, auto& call) { return domain_.images().Clone(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::ResizeImageRequest& request) {
    return Ask<Operation>("gabion.v1.ImageService.ResizeImage", request,
                          [this](auto& r, auto& call) { return domain_.images().Resize(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::CheckImageRequest& request) {
    return Ask<Operation>("gabion.v1.ImageService.CheckImage", request,
                          [this](auto& r, auto& call) { return domain_.images().Check(r, call); });
  }
  absl::StatusOr<v1::Image> Send(const v1::UpdateImageRequest& request) {
    return Ask<v1::Image>("gabion.v1.ImageService.UpdateImage", request,
                          [this](auto& r, auto& call) { return domain_.images().Update(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::DeleteImageRequest& request) {
    return Ask<Operation>("gabion.v1.ImageService.DeleteImage", request,
                          [this](auto& r, auto& call) { return domain_.images().Delete(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::UndeleteImageRequest& request) {
    return Ask<Operation>(
        "gabion.v1.ImageService.UndeleteImage", request,
        [this](auto& r, auto& call) { return domain_.images().Undelete(r, call); });
  }
  absl::StatusOr<v1::ListImagesResponse> Send(const v1::ListImagesRequest& request) {
    return Ask<v1::ListImagesResponse>("gabion.v1.ImageService.ListImages", request,
                                       [this](auto& r, auto&) { return domain_.images().List(r); });
  }
  absl::StatusOr<v1::Export> Send(const v1::CreateExportRequest& request) {
    return Ask<v1::Export>(
        "gabion.v1.ExportService.CreateExport", request,
        [this](auto& r, auto& call) { return domain_.exports().Create(r, call); });
  }
  absl::StatusOr<v1::Export> Send(const v1::UpdateExportRequest& request) {
    return Ask<v1::Export>(
        "gabion.v1.ExportService.UpdateExport", request,
        [this](auto& r, auto& call) { return domain_.exports().Update(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::DeleteExportRequest& request) {
    return Ask<Operation>(
        "gabion.v1.ExportService.DeleteExport", request,
        [this](auto& r, auto& call) { return domain_.exports().Delete(r, call); });
  }
  absl::StatusOr<v1::Export> Send(const v1::AttachFilterRequest& request) {
    return Ask<v1::Export>(
        "gabion.v1.ExportService.AttachFilter", request,
        [this](auto& r, auto& call) { return domain_.exports().AttachFilter(r, call); });
  }
  absl::StatusOr<v1::Export> Send(const v1::DetachFilterRequest& request) {
    return Ask<v1::Export>(
        "gabion.v1.ExportService.DetachFilter", request,
        [this](auto& r, auto& call) { return domain_.exports().DetachFilter(r, call); });
  }
  absl::StatusOr<v1::Filter> Send(const v1::CreateFilterRequest& request) {
    return Ask<v1::Filter>(
        "gabion.v1.FilterService.CreateFilter", request,
        [this](auto& r, auto& call) { return domain_.filters().Create(r, call); });
  }
  absl::StatusOr<v1::Filter> Send(const v1::UpdateFilterRequest& request) {
    return Ask<v1::Filter>(
        "gabion.v1.FilterService.UpdateFilter", request,
        [this](auto& r, auto& call) { return domain_.filters().Update(r, call); });
  }
  absl::StatusOr<google::protobuf::Empty> Send(const v1::DeleteFilterRequest& request) {
    using google::protobuf::Empty;
    return Ask<Empty>("gabion.v1.FilterService.DeleteFilter", request,
                      [this](auto& r, auto& call) -> absl::StatusOr<Empty> {
                        RETURN_IF_ERROR(domain_.filters().Delete(r, call));
                        return Empty();
                      });
  }
  absl::StatusOr<v1::ListFiltersResponse> Send(const v1::ListFiltersRequest& request) {
    return Ask<v1::ListFiltersResponse>(
        "gabion.v1.FilterService.ListFilters", request,
        [this](auto& r, auto&) { return domain_.filters().List(r); });
  }
  absl::StatusOr<v1::ListExportsResponse> Send(const v1::ListExportsRequest& request) {
    return Ask<v1::ListExportsResponse>(
        "gabion.v1.ExportService.ListExports", request,
        [this](auto& r, auto&) { return domain_.exports().List(r); });
  }
  absl::StatusOr<v1::CloseConnectionResponse> Send(const v1::CloseConnectionRequest& request) {
    return Ask<v1::CloseConnectionResponse>(
        "gabion.v1.ExportService.CloseConnection", request,
        [this](auto& r, auto& call) { return domain_.connections().Close(r, call); });
  }
  absl::StatusOr<Operation> Send(const v1::PauseJobRequest& request) {
    return Ask<Operation>("gabion.v1.JobService.PauseJob", request, [this](auto& r, auto& call) {
      return domain_.operations().Pause(r, call);
    });
  }
  absl::StatusOr<Operation> Send(const v1::ResumeJobRequest& request) {
    return Ask<Operation>("gabion.v1.JobService.ResumeJob", request, [this](auto& r, auto& call) {
      return domain_.operations().Resume(r, call);
    });
  }
  absl::StatusOr<Operation> Send(const v1::SetJobRateRequest& request) {
    return Ask<Operation>("gabion.v1.JobService.SetJobRate", request, [this](auto& r, auto& call) {
      return domain_.operations().SetRate(r, call);
    });
  }
  absl::StatusOr<google::protobuf::Empty> Send(
      const google::longrunning::CancelOperationRequest& request) {
    using google::protobuf::Empty;
    return Ask<Empty>("google.longrunning.Operations.CancelOperation", request,
                      [this](auto& r, auto&) -> absl::StatusOr<Empty> {
                        RETURN_IF_ERROR(domain_.operations().Cancel(r.name()));
                        return Empty();
                      });
  }

 private:
  template <typename Response, typename Request, typename Work>
  absl::StatusOr<Response> Ask(std::string_view method, const Request& request, Work work) {
    Response response;
    RETURN_IF_ERROR(Do(calls_, MethodNamed(method), request, &response, work));
    return response;
  }

  Domain& domain_;
  Executor executor_{1};
  Calls calls_;
};

}  // namespace gabion::service
