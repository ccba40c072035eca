// The `read_mask` of Get and List requests (AIP-157), over any resource by its descriptor.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/field_mask.pb.h"
#include "google/protobuf/message.h"

namespace gabion::service {

// What a mask may cost.
inline constexpr int kMaxReadMaskPaths = 128;

// The fields of one type of resource that a caller wants to see. In a List, it applies to each
// element. A value; immutable, any thread.
class ReadMask {
 public:
  // Clears what the mask does not name. REQUIRES: the type that it was parsed for.
  void Trim(google::protobuf::Message* resource) const;

  bool keeps_all() const { return keeps_all_; }
  // True if Trim() leaves something of the field of that name: what it does not leave need not be
  // found out.
  bool Keeps(std::string_view field) const;

 private:
  friend absl::StatusOr<ReadMask> ParseReadMask(const google::protobuf::Descriptor* resource,
                                                const google::protobuf::FieldMask& mask);
  const google::protobuf::Descriptor* resource_ = nullptr;
  bool keeps_all_ = false;
  google::protobuf::FieldMask mask_;
};

// Paths name fields, with dots into messages that are not repeated; repeated fields and maps are
// shown whole. No paths, or `*` among them: everything. INVALID_ARGUMENT FIELD_MASK_INVALID for the
// field `read_mask`. `resource` must outlive the mask.
absl::StatusOr<ReadMask> ParseReadMask(const google::protobuf::Descriptor* resource,
                                       const google::protobuf::FieldMask& mask);

}  // namespace gabion::service
