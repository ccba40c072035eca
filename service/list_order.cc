#include "service/list_order.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/base/check.h"
#include "engine/base/text.h"
#include "service/errors.h"
#include "service/field_value.h"
#include "service/text.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Path = std::vector<const FieldDescriptor*>;

constexpr size_t kShownBytes = 60;

std::string Quote(std::string_view text) { return "\"" + Printable(text, kShownBytes) + "\""; }

absl::Status Invalid(const std::string& what) {
  return Error(reason::kFieldInvalid, "order_by: " + what).Field("order_by", what);
}

absl::StatusOr<Path> ParsePath(const Descriptor& resource, std::string_view text) {
  Path path;
  const Descriptor* in = &resource;
  for (const absl::string_view name : absl::StrSplit(AsAbsl(text), '.')) {
    if (in == nullptr) return Invalid(Quote(text) + " goes on behind a field without fields");
    const FieldDescriptor* field = in->FindFieldByName(std::string(name));
    if (field == nullptr) {
      return Invalid(in->name() + " has no field " + Quote(AsStd(name)));
    }
    if (field->is_repeated()) {
      return Invalid(field->name() + (field->is_map() ? " is a map" : " is a list") +
                     ", which has no order");
    }
    path.push_back(field);
    in = KindOf(*field) == ValueKind::kMessage ? field->message_type() : nullptr;
  }
  const ValueKind kind = KindOf(*path.back());
  if (!HasOrder(kind)) {
    return Invalid(Quote(text) + " is " + std::string(NameOf(kind)) + ", which has no order");
  }
  return path;
}

// The field's value; nullopt if it, or a message on the way, is not set.
std::optional<FieldValue> ValueAt(const Message& resource, const Path& path) {
  const Message* in = &resource;
  for (const FieldDescriptor* field : path) {
    if (field->has_presence() && !HasValue(*in, *field)) return std::nullopt;
    if (field == path.back()) break;
    in = &in->GetReflection()->GetMessage(*in, field);
  }
  return ReadValue(*in, *path.back());
}

}  // namespace

int ListOrder::CompareKey(const Key& key, const Message& a, const Message& b) {
  const std::optional<FieldValue> left = ValueAt(a, key.path);
  const std::optional<FieldValue> right = ValueAt(b, key.path);
  const int order = left && right ? CompareValues(*left, *right)
                                  : static_cast<int>(left.has_value()) - right.has_value();
  return key.descending ? -order : order;
}

int ListOrder::Compare(const Message& a, const Message& b) const {
  for (const Key& key : keys_) {
    const int order = CompareKey(key, a, b);
    if (order != 0) return order;
  }
  return 0;
}

bool ListOrder::is_by_name() const {
  return !keys_.empty() && keys_[0].path.size() == 1 && keys_[0].path[0]->name() == "name" &&
         !keys_[0].descending;
}

absl::StatusOr<ListOrder> ParseOrderBy(const Descriptor* resource, std::string_view order_by) {
  CHECK(resource != nullptr);
  if (order_by.size() > kMaxOrderBytes) {
    return Invalid(absl::StrCat("is longer than ", kMaxOrderBytes, " bytes"));
  }
  ListOrder order;
  std::vector<absl::string_view> items = absl::StrSplit(AsAbsl(order_by), ',');
  if (items.size() == 1 && absl::StripAsciiWhitespace(items[0]).empty()) items.clear();
  if (items.size() > kMaxOrderFields) {
    return Invalid(absl::StrCat("names more than ", kMaxOrderFields, " fields"));
  }
  for (const absl::string_view item : items) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(item, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.empty()) return Invalid("a field's name is missing beside a comma");
    const bool has_direction = words.size() == 2 && (words[1] == "asc" || words[1] == "desc");
    if (words.size() > 1 && !has_direction) {
      return Invalid(Quote(AsStd(item)) + " is not a field with asc, desc or nothing behind it");
    }
    absl::StatusOr<Path> path = ParsePath(*resource, AsStd(words[0]));
    if (!path.ok()) return path.status();
    for (const ListOrder::Key& key : order.keys_) {
      if (key.path == *path) return Invalid("names " + Quote(AsStd(words[0])) + " twice");
    }
    order.keys_.push_back({*std::move(path), has_direction && words[1] == "desc"});
  }
  if (const FieldDescriptor* name = resource->FindFieldByName("name")) {
    order.keys_.push_back({{name}, false});
  }
  return order;
}

}  // namespace gabion::service
