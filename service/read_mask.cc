#include "service/read_mask.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "google/protobuf/util/field_mask_util.h"
#include "service/text.h"
#include "service/violations.h"

namespace gabion::service {

using google::protobuf::Descriptor;
using google::protobuf::FieldMask;
using google::protobuf::Message;
using google::protobuf::util::FieldMaskUtil;

namespace {

// FieldMaskUtil alone would let empty names between dots pass.
bool IsPath(const Descriptor& resource, const std::string& path) {
  return !path.empty() && path.front() != '.' && path.back() != '.' &&
         path.find("..") == std::string::npos &&
         FieldMaskUtil::GetFieldDescriptors(&resource, path, nullptr);
}

}  // namespace

absl::StatusOr<ReadMask> ParseReadMask(const Descriptor* resource, const FieldMask& mask) {
  constexpr size_t kShownBytes = 100;
  CHECK(resource != nullptr);
  const auto invalid = [](std::string description) {
    return Violation{"read_mask", std::move(description), "FIELD_MASK_INVALID", "", ""};
  };
  std::vector<Violation> violations;
  ReadMask parsed;
  parsed.resource_ = resource;
  parsed.keeps_all_ = mask.paths().empty();
  if (mask.paths_size() > kMaxReadMaskPaths) {
    violations.push_back(
        invalid("names more than " + std::to_string(kMaxReadMaskPaths) + " fields"));
    return ToStatus(violations);
  }
  for (const std::string& path : mask.paths()) {
    if (path == "*") {
      parsed.keeps_all_ = true;
    } else if (!IsPath(*resource, path)) {
      violations.push_back(invalid("names \"" + Printable(path, kShownBytes) +
                                   "\", which is no field of " + resource->name()));
    } else {
      parsed.mask_.add_paths(path);
    }
  }
  if (!violations.empty()) return ToStatus(violations);
  return parsed;
}

void ReadMask::Trim(Message* resource) const {
  CHECK(resource->GetDescriptor() == resource_);
  if (!keeps_all_) FieldMaskUtil::TrimMessage(mask_, resource);
}

bool ReadMask::Keeps(std::string_view field) const {
  return keeps_all_ ||
         std::any_of(mask_.paths().begin(), mask_.paths().end(), [&](std::string_view path) {
           return path.substr(0, path.find('.')) == field;
         });
}

}  // namespace gabion::service
