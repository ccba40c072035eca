// Explanations as the API tells them.
#pragma once

#include <functional>
#include <string>

#include "engine/engine.h"
#include "gabion/v1/explain.pb.h"

namespace gabion::service {

// What stands in an entry of a filter stack.
struct EntryName {
  std::string filter;  // filters/{filter}; empty if it is inline
  std::string kind;    // as the field of FilterSpec is called
};

v1::ExplainedExtent TellExplanation(
    const engine::Explanation& explanation,
    const std::function<EntryName(const std::string& entry_id)>& name_of);

}  // namespace gabion::service
