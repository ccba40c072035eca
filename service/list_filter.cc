#include "service/list_filter.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace gabion::service {

using google::protobuf::Descriptor;
using google::protobuf::Message;

absl::StatusOr<ListFilter> ParseListFilter(const Descriptor* resource,
                                           std::string_view expression) {
  CHECK(resource != nullptr);
  absl::StatusOr<FilterSyntax> syntax = ParseFilterSyntax(expression);
  if (!syntax.ok()) return syntax.status();
  ListFilter filter;
  filter.resource_ = resource;
  filter.root_ = std::move(syntax->root);
  for (FilterTerm& term : syntax->terms) {
    auto bound = BoundTerm::Bind(*resource, std::move(term));
    if (const auto* fault = std::get_if<FilterFault>(&bound)) {
      return FilterError(expression, *fault);
    }
    filter.terms_.push_back(std::get<BoundTerm>(std::move(bound)));
  }
  return filter;
}

bool ListFilter::Matches(const Message& resource) const {
  CHECK(resource.GetDescriptor() == resource_);
  return Holds(root_, resource);
}

// Recursion ends where the parser's did: at kMaxFilterDepth.
bool ListFilter::Holds(const FilterNode& node, const Message& resource) const {
  const auto holds = [&](const FilterNode& child) { return Holds(child, resource); };
  bool held = false;
  switch (node.kind) {
    case FilterNode::Kind::kTerm:
      held = terms_[node.term].Matches(resource);
      break;
    case FilterNode::Kind::kAnd:
      held = std::all_of(node.children.begin(), node.children.end(), holds);
      break;
    case FilterNode::Kind::kOr:
      held = std::any_of(node.children.begin(), node.children.end(), holds);
      break;
  }
  return held != node.negated;
}

}  // namespace gabion::service
