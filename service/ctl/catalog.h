// The services that gabionctl can call: those whose descriptors are linked into it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/descriptor.h"

namespace gabion::service::ctl {

// In the order of their full names.
std::vector<const google::protobuf::ServiceDescriptor*> AllServices();

// The method named "ExportService/GetExport", "gabion.v1.ExportService/GetExport", or the same with
// a dot before the method. Null if there is none.
const google::protobuf::MethodDescriptor* FindMethod(std::string_view name);

// "/gabion.v1.ExportService/GetExport"
std::string PathOf(const google::protobuf::MethodDescriptor& method);

// One line for each method of each service.
std::string ListText();

// The definition of a service, method, message or enum; names of gabion.v1 need no package. For a
// method, its request and response as well. Empty if there is no such thing.
std::string DescribeText(std::string_view name);

}  // namespace gabion::service::ctl
