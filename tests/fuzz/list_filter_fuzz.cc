// Fuzz target: list filters. The input is an expression; it is read for several types.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/check.h"
#include "gabion/v1/export.pb.h"
#include "gabion/v1/image.pb.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/struct.pb.h"
#include "service/list_filter.h"
#include "service/list_order.h"

namespace gabion::service {
namespace {

v1::Export AnExport() {
  v1::Export exported;
  exported.set_name("exports/web-1");
  exported.set_generation(~uint64_t{0});
  exported.set_description("Backup of the web server");
  exported.mutable_create_time()->set_seconds(1767225600);
  exported.mutable_access()->set_max_connections(7);
  exported.add_uris("nbd://h/web-1");
  (*exported.mutable_labels())["tier"] = "gold";
  return exported;
}

google::longrunning::Operation AnOperation() {
  google::longrunning::Operation operation;
  operation.mutable_metadata()->PackFrom(AnExport());
  const google::longrunning::Operation inner = operation;
  operation.mutable_error()->add_details()->PackFrom(inner);
  return operation;
}

google::protobuf::Struct ATree() {
  google::protobuf::Struct tree;
  (*tree.mutable_fields())["x"].set_number_value(0.5);
  (*(*tree.mutable_fields())["y"].mutable_struct_value()->mutable_fields())["z"].set_bool_value(
      true);
  return tree;
}

// An error for the field, or a filter that answers, and whose negation says the opposite.
void Try(std::string_view text, const google::protobuf::Message& resource) {
  const auto filter = ParseListFilter(resource.GetDescriptor(), text);
  if (!filter.ok()) {
    CHECK(filter.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  const auto opposite = ParseListFilter(resource.GetDescriptor(), "-(" + std::string(text) + ")");
  if (opposite.ok()) CHECK(opposite->Matches(resource) != filter->Matches(resource));
  const auto order = ParseOrderBy(resource.GetDescriptor(), text);
  if (order.ok()) CHECK(order->Compare(resource, resource) == 0);
}

}  // namespace
}  // namespace gabion::service

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gabion::service;  // NOLINT: the entry point is outside of the namespace
  static const auto exported = AnExport();
  static const auto operation = AnOperation();
  static const auto tree = ATree();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Try(text, exported);
  Try(text, operation);
  Try(text, tree);
  return 0;
}
