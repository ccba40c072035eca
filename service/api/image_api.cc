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

grpc::ServerUnaryReactor* ImageApi::CloneImage(grpc::CallbackServerContext* context,
                                               const v1::CloneImageRequest* request,
                                               google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.CloneImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Clone(checked, call); });
}

grpc::ServerUnaryReactor* ImageApi::ResizeImage(grpc::CallbackServerContext* context,
                                                const v1::ResizeImageRequest* request,
                                                google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.ResizeImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Resize(checked, call); });
}

grpc::ServerUnaryReactor* ImageApi::CheckImage(grpc::CallbackServerContext* context,
                                               const v1::CheckImageRequest* request,
                                               google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.CheckImage", context, request, response,
      [this](const auto& checked, const Call& call) { return images_.Check(checked, call); });
}

grpc::ServerUnaryReactor* ImageApi::MeasureImage(grpc::CallbackServerContext* context,
                                                 const v1::MeasureImageRequest* request,
                                                 v1::MeasureImageResponse* response) {
  return Answer(
      calls_, "gabion.v1.ImageService.MeasureImage", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return images_.Measure(checked); });
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
