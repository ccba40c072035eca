#include "service/method.h"

#include <openssl/evp.h>

#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "engine/base/check.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

// google.longrunning is not ours to add fields to: its methods that change something are these.
bool ChangesOperations(const MethodDescriptor& method) {
  return method.name() == "CancelOperation" || method.name() == "DeleteOperation";
}

}  // namespace

Method DescribeMethod(const MethodDescriptor& descriptor) {
  const Descriptor& request = *descriptor.input_type();
  Method method;
  method.descriptor = &descriptor;
  method.name = descriptor.service()->name() + "." + descriptor.name();
  method.request_id = request.FindFieldByName("request_id");
  method.validate_only = request.FindFieldByName("validate_only");
  method.read_mask = request.FindFieldByName("read_mask");
  method.changes = method.request_id != nullptr || ChangesOperations(descriptor);
  return method;
}

const Method& MethodNamed(std::string_view full_name) {
  static std::mutex mutex;
  static auto* methods = new std::map<std::string, Method, std::less<>>();
  const std::lock_guard lock(mutex);
  const auto known = methods->find(full_name);
  if (known != methods->end()) return known->second;
  const MethodDescriptor* descriptor =
      DescriptorPool::generated_pool()->FindMethodByName(std::string(full_name));
  CHECK(descriptor != nullptr);
  return methods->emplace(full_name, DescribeMethod(*descriptor)).first->second;
}

const FieldDescriptor* ResourcesField(const Descriptor& response) {
  if (response.FindFieldByName("next_page_token") == nullptr) return nullptr;
  for (int i = 0; i < response.field_count(); ++i) {
    const FieldDescriptor* field = response.field(i);
    if (field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) return field;
  }
  return nullptr;
}

std::string FingerprintOf(const Method& method, const Message& request) {
  std::unique_ptr<Message> copy(request.New());
  copy->CopyFrom(request);
  if (method.request_id != nullptr)
    copy->GetReflection()->ClearField(copy.get(), method.request_id);
  std::string text;
  {
    google::protobuf::io::StringOutputStream stream(&text);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.SetSerializationDeterministic(true);  // maps have no order of their own
    CHECK(copy->SerializeToCodedStream(&out));
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int length = 0;
  CHECK(EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_sha256(), nullptr) == 1);
  return std::string(reinterpret_cast<const char*>(digest.data()), length);
}

}  // namespace gabion::service
