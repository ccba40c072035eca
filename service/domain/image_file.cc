#include "service/domain/image_file.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {
namespace {

constexpr std::string_view kRawSuffix = ".raw";
constexpr std::string_view kQcow2Suffix = ".qcow2";
// A chain that the API lets nobody make; a loop ends here, too.
constexpr std::size_t kMostImages = 1024;

}  // namespace

engine::ImageSpec SpecOf(const v1::Image& image) {
  engine::ImageSpec spec;
  spec.name = image.name();
  spec.uid = image.uid();
  spec.pool = image.pool();
  const bool is_qcow2 = image.has_qcow2();
  spec.file_name =
      absl::StrCat(AsAbsl(IdOf(image.name())), AsAbsl(is_qcow2 ? kQcow2Suffix : kRawSuffix));
  spec.format = is_qcow2 ? engine::ImageFormat::kQcow2 : engine::ImageFormat::kRaw;
  spec.request_alignment_bytes = image.raw().request_alignment_bytes();
  return spec;
}

absl::StatusOr<std::vector<engine::ImageSpec>> BackingSpecs(const Records<v1::Image>& records,
                                                            const v1::Image& image) {
  std::vector<engine::ImageSpec> specs;
  std::string next = image.backing_image();
  while (!next.empty()) {
    if (specs.size() == kMostImages) {
      return absl::InternalError(absl::StrCat("The chain of ", image.name(), " has no end."));
    }
    ASSIGN_OR_RETURN(const Stored<v1::Image> below, records.Get(next));
    specs.push_back(SpecOf(below.resource));
    next = below.resource.backing_image();
  }
  return specs;
}

absl::StatusOr<engine::ImageSpec> ChainSpec(const Records<v1::Image>& records,
                                            const v1::Image& image) {
  engine::ImageSpec spec = SpecOf(image);
  ASSIGN_OR_RETURN(spec.backing, BackingSpecs(records, image));
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
  for (const std::string_view suffix : {kRawSuffix, kQcow2Suffix}) {
    if (!file_name.ends_with(suffix)) continue;
    const std::string_view id = file_name.substr(0, file_name.size() - suffix.size());
    if (IsResourceId(id)) return MakeName("images", id);
  }
  return std::nullopt;
}

}  // namespace gabion::service
