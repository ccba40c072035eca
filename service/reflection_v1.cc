#include "service/reflection_v1.h"

#include <algorithm>
#include <set>
#include <utility>

#include "google/protobuf/descriptor.pb.h"

namespace gabion::service {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

// The file and all that it imports, each once, importers before what they import.
void AddFile(const FileDescriptor& file, std::set<std::string>* seen,
             grpc::reflection::v1::FileDescriptorResponse* to) {
  if (!seen->insert(file.name()).second) return;
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  to->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i), seen, to);
}

void SetError(grpc::StatusCode code, const std::string& message, ServerReflectionResponse* to) {
  to->mutable_error_response()->set_error_code(code);
  to->mutable_error_response()->set_error_message(message);
}

void SetFile(const FileDescriptor* file, const std::string& wanted, ServerReflectionResponse* to) {
  if (file == nullptr) return SetError(grpc::NOT_FOUND, "there is no " + wanted, to);
  std::set<std::string> seen;
  AddFile(*file, &seen, to->mutable_file_descriptor_response());
}

void SetExtension(const DescriptorPool& pool, const grpc::reflection::v1::ExtensionRequest& wanted,
                  ServerReflectionResponse* to) {
  const auto* type = pool.FindMessageTypeByName(wanted.containing_type());
  const FieldDescriptor* extension =
      type == nullptr ? nullptr : pool.FindExtensionByNumber(type, wanted.extension_number());
  SetFile(
      extension == nullptr ? nullptr : extension->file(),
      "extension " + std::to_string(wanted.extension_number()) + " of " + wanted.containing_type(),
      to);
}

void SetExtensionNumbers(const DescriptorPool& pool, const std::string& type_name,
                         ServerReflectionResponse* to) {
  const auto* type = pool.FindMessageTypeByName(type_name);
  if (type == nullptr) return SetError(grpc::NOT_FOUND, "there is no " + type_name, to);
  std::vector<const FieldDescriptor*> extensions;
  pool.FindAllExtensions(type, &extensions);
  auto* answer = to->mutable_all_extension_numbers_response();
  answer->set_base_type_name(type_name);
  for (const FieldDescriptor* extension : extensions) {
    answer->add_extension_number(extension->number());
  }
}

// One client's stream: read a question, write its answer, and so on until the client is done.
class Session final
    : public grpc::ServerBidiReactor<ServerReflectionRequest, ServerReflectionResponse> {
 public:
  explicit Session(const std::vector<std::string>& services) : services_(services) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    response_ = AnswerReflection(*DescriptorPool::generated_pool(), services_, request_);
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::CANCELLED, "the client is gone"));
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  const std::vector<std::string>& services_;
  ServerReflectionRequest request_;
  ServerReflectionResponse response_;
};

}  // namespace

ServerReflectionResponse AnswerReflection(const DescriptorPool& pool,
                                          const std::vector<std::string>& services,
                                          const ServerReflectionRequest& request) {
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      SetFile(pool.FindFileByName(request.file_by_filename()), request.file_by_filename(),
              &response);
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      SetFile(pool.FindFileContainingSymbol(request.file_containing_symbol()),
              request.file_containing_symbol(), &response);
      break;
    case ServerReflectionRequest::kFileContainingExtension:
      SetExtension(pool, request.file_containing_extension(), &response);
      break;
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      SetExtensionNumbers(pool, request.all_extension_numbers_of_type(), &response);
      break;
    case ServerReflectionRequest::kListServices:
      for (const std::string& service : services) {
        response.mutable_list_services_response()->add_service()->set_name(service);
      }
      break;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      SetError(grpc::INVALID_ARGUMENT, "message_request: must be set", &response);
      break;
  }
  return response;
}

ReflectionV1::ReflectionV1(std::vector<std::string> services) : services_(std::move(services)) {
  services_.emplace_back(grpc::reflection::v1::ServerReflection::service_full_name());
  std::sort(services_.begin(), services_.end());
  services_.erase(std::unique(services_.begin(), services_.end()), services_.end());
}

grpc::ServerBidiReactor<ServerReflectionRequest, ServerReflectionResponse>*
ReflectionV1::ServerReflectionInfo(grpc::CallbackServerContext*) {
  return new Session(services_);
}

}  // namespace gabion::service
