#include "engine/export_use.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"

namespace gabion::engine {
namespace {

bool Fills(const FilterEntry& entry) {
  return !entry.bypassed && std::holds_alternative<filters::CopyOnReadOptions>(entry.options);
}

// Filters that do not see what reaches the image on other ways.
bool MustBeAlone(const FilterEntry& entry) {
  const bool caches = !entry.bypassed && std::holds_alternative<CacheEntry>(entry.options);
  return caches || Fills(entry);
}

}  // namespace

bool WritesBelow(bool read_only, const std::vector<FilterEntry>& filters, std::size_t count) {
  bool writes = !read_only;
  for (const FilterEntry& entry : std::span(filters).first(count)) {
    if (Fills(entry)) writes = true;
    if (!entry.bypassed && std::holds_alternative<CowEntry>(entry.options)) writes = false;
  }
  return writes;
}

const ImageSpec* OtherImageOf(const FilterOptions& options) {
  if (const auto* const verify = std::get_if<VerifyEntry>(&options)) return &verify->reference;
  const auto* const cow = std::get_if<CowEntry>(&options);
  return cow != nullptr && cow->image.has_value() ? &*cow->image : nullptr;
}

bool UsesImage(const ExportSpec& spec, const std::string& image_name) {
  if (spec.image.name == image_name) return true;
  return std::any_of(spec.filters.begin(), spec.filters.end(), [&](const FilterEntry& entry) {
    const ImageSpec* const image = entry.bypassed ? nullptr : OtherImageOf(entry.options);
    return image != nullptr && image->name == image_name;
  });
}

ImageUse UseOfImage(const ExportSpec& spec) {
  return UseFor(WritesBelow(spec.read_only, spec.filters, spec.filters.size()),
                std::any_of(spec.filters.begin(), spec.filters.end(), MustBeAlone));
}

absl::Status BlameFilter(const absl::Status& status, const ExportSpec& spec) {
  std::optional<Reason> reason = ReasonOf(status);
  const auto found = std::find_if(spec.filters.begin(), spec.filters.end(), MustBeAlone);
  if (found == spec.filters.end() || !reason.has_value() ||
      reason->reason != "FILTER_PARAMETERS_INVALID") {
    return status;
  }
  reason->metadata.emplace_back("entry-id", found->id);
  reason->metadata.emplace_back("index", absl::StrCat(found - spec.filters.begin()));
  reason->metadata.emplace_back("field", Fills(*found) ? "copy_on_read" : "cache");
  return WithReason(Annotate(status, absl::StrCat("filter '", found->id, "'")), *reason);
}

}  // namespace gabion::engine
