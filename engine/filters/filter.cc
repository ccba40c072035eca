#include "engine/filters/filter.h"

#include "engine/base/reason.h"

namespace gabion::filters {

void Filter::TakeOver(Filter&) {}

void Filter::Hurry() {}

Task<void> Filter::Settle() { return {}; }

absl::Status Filter::Blame(const absl::Status& status) const {
  return Annotate(status, environment_.where);
}

}  // namespace gabion::filters
