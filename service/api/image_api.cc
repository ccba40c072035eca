#include "service/api/image_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* ImageApi::CreateImage(grpc::CallbackServerContext* context,
                                                const v1::CreateImageRequest* request,
                                                google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.CreateImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Create(checked, call); });
}

grpc::ServerUnaryReactor* ImageApi::ImportImage(grpc::CallbackServerContext* context,
                                                const v1::ImportImageRequest* request,
                                                google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.ImportImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Import(checked, call); });
}

grpc::ServerUnaryReactor* ImageApi::GetImage(grpc::CallbackServerContext* context,
                                             const v1::GetImageRequest* request,
                                             v1::Image* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.GetImage", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return images_.Get(checked.name()); });
}

grpc::ServerUnaryReactor* ImageApi::ListImages(grpc::CallbackServerContext* context,
                                               const v1::ListImagesRequest* request,
                                               v1::ListImagesResponse* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.ListImages", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return images_.List(checked); });
}

grpc::ServerUnaryReactor* ImageApi::UpdateImage(grpc::CallbackServerContext* context,
                                                const v1::UpdateImageRequest* request,
                                                v1::Image* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.UpdateImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Update(checked, call); });
}

grpc::ServerUnaryReactor* ImageApi::DeleteImage(grpc::CallbackServerContext* context,
                                                const v1::DeleteImageRequest* request,
                                                google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.DeleteImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Delete(checked, call); });
}

grpc::ServerUnaryReactor* ImageApi::UndeleteImage(grpc::CallbackServerContext* context,
                                                  const v1::UndeleteImageRequest* request,
                                                  google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.UndeleteImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Undelete(checked, call); });
}

}  // namespace gabion::service
