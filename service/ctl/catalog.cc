#include "service/ctl/catalog.h"

#include <algorithm>
#include <array>

#include "google/protobuf/descriptor_database.h"

namespace gabion::service::ctl {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::EnumDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

// What may be left out in front of a name.
constexpr std::array<std::string_view, 3> kShortPackages = {"", "gabion.v1.",
                                                            "google.longrunning."};
// Others that are linked (reflection) are for machines.
constexpr std::array<std::string_view, 3> kPackages = {"gabion.", "google.longrunning",
                                                       "grpc.health."};

const DescriptorPool& Pool() { return *DescriptorPool::generated_pool(); }

bool IsForPeople(const ServiceDescriptor& service) {
  return std::any_of(kPackages.begin(), kPackages.end(), [&](std::string_view package) {
    return service.full_name().starts_with(package);
  });
}

std::string Signature(const MethodDescriptor& method) {
  return "rpc " + method.name() + "(" + (method.client_streaming() ? "stream " : "") +
         method.input_type()->full_name() + ") returns (" +
         (method.server_streaming() ? "stream " : "") + method.output_type()->full_name() + ");\n";
}

}  // namespace

std::vector<const ServiceDescriptor*> AllServices() {
  std::vector<std::string> files;
  // The generated pool knows files only by name; all their names are in its database.
  DescriptorPool::internal_generated_database()->FindAllFileNames(&files);
  std::vector<const ServiceDescriptor*> services;
  for (const std::string& name : files) {
    const FileDescriptor* file = Pool().FindFileByName(name);
    for (int i = 0; file != nullptr && i < file->service_count(); ++i) {
      if (IsForPeople(*file->service(i))) services.push_back(file->service(i));
    }
  }
  std::sort(services.begin(), services.end(),
            [](const auto* a, const auto* b) { return a->full_name() < b->full_name(); });
  return services;
}

const MethodDescriptor* FindMethod(std::string_view name) {
  std::string dotted(name.substr(name.starts_with('/') ? 1 : 0));
  std::replace(dotted.begin(), dotted.end(), '/', '.');
  const MethodDescriptor* method = nullptr;
  for (const std::string_view package : kShortPackages) {
    if (method == nullptr) method = Pool().FindMethodByName(std::string(package) + dotted);
  }
  return method;
}

std::string PathOf(const MethodDescriptor& method) {
  return "/" + method.service()->full_name() + "/" + method.name();
}

std::string ListText() {
  std::string text;
  for (const ServiceDescriptor* service : AllServices()) {
    for (int i = 0; i < service->method_count(); ++i) {
      text += PathOf(*service->method(i)).substr(1) + "\n";
    }
  }
  return text;
}

std::string DescribeText(std::string_view name) {
  if (const MethodDescriptor* method = FindMethod(name)) {
    return Signature(*method) + "\n" + method->input_type()->DebugString() + "\n" +
           method->output_type()->DebugString();
  }
  for (const std::string_view package : kShortPackages) {
    const std::string full = std::string(package) + std::string(name);
    if (const ServiceDescriptor* service = Pool().FindServiceByName(full)) {
      return service->DebugString();
    }
    if (const Descriptor* message = Pool().FindMessageTypeByName(full)) {
      return message->DebugString();
    }
    if (const EnumDescriptor* values = Pool().FindEnumTypeByName(full)) {
      return values->DebugString();
    }
  }
  return {};
}

}  // namespace gabion::service::ctl
