#include "service/domain/image_file.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/base/text.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {
namespace {

constexpr std::string_view kSuffix = ".raw";

}  // namespace

engine::ImageSpec SpecOf(const v1::Image& image) {
  engine::ImageSpec spec;
  spec.name = image.name();
  spec.uid = image.uid();
  spec.pool = image.pool();
  spec.file_name = absl::StrCat(AsAbsl(IdOf(image.name())), AsAbsl(kSuffix));
  spec.format = engine::ImageFormat::kRaw;
  spec.request_alignment_bytes = image.raw().request_alignment_bytes();
  return spec;
}

absl::StatusOr<std::string> NormalizeFileName(std::string_view file_name) {
  const std::vector<std::string> segments = absl::StrSplit(AsAbsl(file_name), '/');
  std::vector<std::string> kept;
  bool outside = file_name.starts_with('/');
  for (const std::string& segment : segments) {
    if (segment == "..") outside = true;
    if (!segment.empty() && segment != ".") kept.push_back(segment);
  }
  if (outside || kept.empty()) {
    constexpr std::string_view kMessage = "The file must lie in the pool's directory.";
    return Error(reason::kPathOutsidePool, kMessage).Field("source_file", kMessage);
  }
  return absl::StrJoin(kept, "/");
}

std::optional<std::string> ImageOfFileName(std::string_view file_name) {
  if (!file_name.ends_with(kSuffix)) return std::nullopt;
  const std::string_view id = file_name.substr(0, file_name.size() - kSuffix.size());
  if (!IsResourceId(id)) return std::nullopt;
  return MakeName("images", id);
}

}  // namespace gabion::service
