#include "service/api/image_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* ImageApi::CreateImage(grpc::CallbackServerContext* context,
                                                const v1::CreateImageRequest* request,
                                                google::longrunning::Operation* response) {
  return Answer(calls_, "CreateImage", Effect::kChanges, context, request, response,
                [this](const auto& checked) { return DoneOperation(images_.Create(checked)); });
}

grpc::ServerUnaryReactor* ImageApi::ImportImage(grpc::CallbackServerContext* context,
                                                const v1::ImportImageRequest* request,
                                                google::longrunning::Operation* response) {
  return Answer(calls_, "ImportImage", Effect::kChanges, context, request, response,
                [this](const auto& checked) { return DoneOperation(images_.Import(checked)); });
}

grpc::ServerUnaryReactor* ImageApi::GetImage(grpc::CallbackServerContext* context,
                                             const v1::GetImageRequest* request,
                                             v1::Image* response) {
  return Answer(calls_, "GetImage", Effect::kReads, context, request, response,
                [this](const auto& checked) { return images_.Get(checked.name()); });
}

grpc::ServerUnaryReactor* ImageApi::ListImages(grpc::CallbackServerContext* context,
                                               const v1::ListImagesRequest* request,
                                               v1::ListImagesResponse* response) {
  return Answer(calls_, "ListImages", Effect::kReads, context, request, response,
                [this](const auto& checked) { return images_.List(checked); });
}

grpc::ServerUnaryReactor* ImageApi::UpdateImage(grpc::CallbackServerContext* context,
                                                const v1::UpdateImageRequest* request,
                                                v1::Image* response) {
  return Answer(calls_, "UpdateImage", Effect::kChanges, context, request, response,
                [this](const auto& checked) { return images_.Update(checked); });
}

grpc::ServerUnaryReactor* ImageApi::DeleteImage(grpc::CallbackServerContext* context,
                                                const v1::DeleteImageRequest* request,
                                                google::longrunning::Operation* response) {
  return Answer(
      calls_, "DeleteImage", Effect::kChanges, context, request, response,
      [this](const auto& checked) { return DoneOperation(images_.Delete(checked.name())); });
}

}  // namespace gabion::service
