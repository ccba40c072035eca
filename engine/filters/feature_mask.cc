#include "engine/filters/feature_mask.h"

#include <utility>

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::Feature;
using block::Limits;

block::FeatureSet HiddenBy(const FeatureMaskOptions& options) {
  const std::pair<bool, Feature> table[] = {
      {options.hide_trim, Feature::kTrim},          {options.hide_zero, Feature::kZero},
      {options.hide_fast_zero, Feature::kFastZero}, {options.hide_fua, Feature::kFua},
      {options.hide_holes, Feature::kHoles},        {options.hide_multi_conn, Feature::kMultiConn},
      {options.hide_cache, Feature::kCache},
  };
  block::FeatureSet hidden = 0;
  for (const auto& [hide, feature] : table) {
    if (hide) hidden = static_cast<block::FeatureSet>(hidden | Bit(feature));
  }
  return hidden;
}

Limits LimitsAbove(const Limits& child, const FeatureMaskOptions& options) {
  Limits limits = child;
  limits.hidden = static_cast<block::FeatureSet>(limits.hidden | HiddenBy(options));
  return limits;
}

class FeatureMask final : public Filter {
 public:
  FeatureMask(block::Node& child, Environment environment, const FeatureMaskOptions& options)
      : Filter(child, LimitsAbove(child.limits(), options), std::move(environment)),
        options_(options) {}

 private:
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                 std::size_t max_extents) override {
    if (!options_.hide_holes) return child().BlockStatus(range, max_extents);
    ExtentList data{Extent{.range = range, .kind = ExtentKind::kData, .layer = 1}};
    return absl::StatusOr<ExtentList>(std::move(data));
  }

  Limits DeriveLimits(const Limits& child) const override { return LimitsAbove(child, options_); }

  const FeatureMaskOptions options_;
};

}  // namespace

std::unique_ptr<Filter> NewFeatureMask(block::Node& child, Environment environment,
                                       const FeatureMaskOptions& options) {
  return std::make_unique<FeatureMask>(child, std::move(environment), options);
}

}  // namespace gabion::filters
