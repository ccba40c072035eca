#include "engine/export_use.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"

namespace gabion::engine {
namespace {

bool Fills(const FilterEntry& entry) {
  return !entry.bypassed && std::holds_alternative<filters::CopyOnReadOptions>(entry.options);
}

// Filters that do not see what reaches the image on other ways. The field that says so; empty:
// others.
std::string_view WhyAlone(const FilterEntry& entry) {
  if (entry.bypassed) return {};
  if (Fills(entry)) return "copy_on_read";
  if (std::holds_alternative<CacheEntry>(entry.options)) return "cache";
  const auto* const cow = std::get_if<CowEntry>(&entry.options);
  return cow != nullptr && cow->image.has_value() ? "cow.image" : "";
}
bool MustBeAlone(const FilterEntry& entry) { return !WhyAlone(entry).empty(); }

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

ImageUse UseOfOtherImage(bool read_only, const std::vector<FilterEntry>& filters,
                         std::size_t index) {
  const auto* const verify = std::get_if<VerifyEntry>(&filters[index].options);
  const bool reads_only = verify != nullptr && verify->tree.has_value();
  return UseFor(!reads_only && WritesBelow(read_only, filters, index), true);
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
  reason->metadata.emplace_back("field", std::string(WhyAlone(*found)));
  return WithReason(Annotate(status, absl::StrCat("filter '", found->id, "'")), *reason);
}

}  // namespace gabion::engine
