// The `order_by` of List requests (AIP-132), over any resource by its descriptor.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace gabion::service {

// What an order may cost.
inline constexpr size_t kMaxOrderBytes = 1024;
inline constexpr size_t kMaxOrderFields = 8;

// A total order of the resources of one type: by the fields given, then by name. A value;
// immutable, any thread.
class ListOrder {
 public:
  // Negative if `a` comes before `b`, positive if after; zero only if the names are the same, too.
  // A field that is not set, or in a message that is not, comes before all values. Strings are
  // compared by bytes, enums by number. REQUIRES: both are of the type that this was parsed for.
  int Compare(const google::protobuf::Message& a, const google::protobuf::Message& b) const;

  // For std::sort.
  bool operator()(const google::protobuf::Message& a, const google::protobuf::Message& b) const {
    return Compare(a, b) < 0;
  }

  // True if this is the order of names, from first to last, in which pages go on by key.
  bool is_by_name() const;

 private:
  friend absl::StatusOr<ListOrder> ParseOrderBy(const google::protobuf::Descriptor* resource,
                                                std::string_view order_by);
  struct Key {
    std::vector<const google::protobuf::FieldDescriptor*> path;  // all but the last are messages
    bool descending = false;
  };

  static int CompareKey(const Key& key, const google::protobuf::Message& a,
                        const google::protobuf::Message& b);

  std::vector<Key> keys_;  // the name comes last
};

// Fields separated by commas, each with or without ` asc` or ` desc` behind it, with dots into
// messages: "create_time desc, access.max_connections". Empty: by name. INVALID_ARGUMENT
// FIELD_INVALID for the field `order_by`. `resource` must outlive the order.
absl::StatusOr<ListOrder> ParseOrderBy(const google::protobuf::Descriptor* resource,
                                       std::string_view order_by);

}  // namespace gabion::service
