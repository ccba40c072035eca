// Images. The gRPC side: it checks, hands on and answers; what happens is in service/domain.
#pragma once

#include "gabion/v1/image.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/image_manager.h"

namespace gabion::service {

// gabion.v1.ImageService. Owned by the server; called on threads of gRPC, where it does not block.
class ImageApi final : public v1::ImageService::CallbackService {
 public:
  // All of them outlive this.
  ImageApi(Calls& calls, ImageManager& images) : calls_(calls), images_(images) {}

  grpc::ServerUnaryReactor* CreateImage(grpc::CallbackServerContext* context,
                                        const v1::CreateImageRequest* request,
                                        google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* ImportImage(grpc::CallbackServerContext* context,
                                        const v1::ImportImageRequest* request,
                                        google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* CloneImage(grpc::CallbackServerContext* context,
                                       const v1::CloneImageRequest* request,
                                       google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* ResizeImage(grpc::CallbackServerContext* context,
                                        const v1::ResizeImageRequest* request,
                                        google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* CheckImage(grpc::CallbackServerContext* context,
                                       const v1::CheckImageRequest* request,
                                       google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* MeasureImage(grpc::CallbackServerContext* context,
                                         const v1::MeasureImageRequest* request,
                                         v1::MeasureImageResponse* response) override;
  grpc::ServerUnaryReactor* GetImage(grpc::CallbackServerContext* context,
                                     const v1::GetImageRequest* request,
                                     v1::Image* response) override;
  grpc::ServerUnaryReactor* ListImages(grpc::CallbackServerContext* context,
                                       const v1::ListImagesRequest* request,
                                       v1::ListImagesResponse* response) override;
  grpc::ServerUnaryReactor* UpdateImage(grpc::CallbackServerContext* context,
                                        const v1::UpdateImageRequest* request,
                                        v1::Image* response) override;
  grpc::ServerUnaryReactor* DeleteImage(grpc::CallbackServerContext* context,
                                        const v1::DeleteImageRequest* request,
                                        google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* UndeleteImage(grpc::CallbackServerContext* context,
                                          const v1::UndeleteImageRequest* request,
                                          google::longrunning::Operation* response) override;

 private:
  Calls& calls_;
  ImageManager& images_;
};

}  // namespace gabion::service
