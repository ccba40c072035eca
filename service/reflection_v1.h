// grpc.reflection.v1: what the server offers, for clients that ask v1 only. (gRPC's own plug-in
// answers v1alpha.)
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"

namespace gabion::service {

// The answer to one question, over the descriptors in `pool`. `services`: full names of the
// services that the server offers. Pure; any thread.
grpc::reflection::v1::ServerReflectionResponse AnswerReflection(
    const google::protobuf::DescriptorPool& pool, const std::vector<std::string>& services,
    const grpc::reflection::v1::ServerReflectionRequest& request);

// Register it with the ServerBuilder and keep it until the server is gone.
class ReflectionV1 final : public grpc::reflection::v1::ServerReflection::CallbackService {
 public:
  // `services`: full names of all services of the server; this one's is added.
  explicit ReflectionV1(std::vector<std::string> services);

  grpc::ServerBidiReactor<grpc::reflection::v1::ServerReflectionRequest,
                          grpc::reflection::v1::ServerReflectionResponse>*
  ServerReflectionInfo(grpc::CallbackServerContext* context) override;

 private:
  std::vector<std::string> services_;
};

}  // namespace gabion::service
