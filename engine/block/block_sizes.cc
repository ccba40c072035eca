#include "engine/block/block_sizes.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/text.h"

namespace gabion::block {
namespace {

constexpr uint64_t kLargestMinimum = 65536;
constexpr uint64_t kSmallestPreferred = 512;
constexpr uint64_t kDefaultPreferred = 4096;
constexpr uint64_t kLargestDerivedPreferred = 2 * kMiB;
constexpr uint64_t kDefaultMaximum = 32 * kMiB;
constexpr uint64_t kSmallestMaximum = kMiB;
constexpr uint64_t kLargestSize = (uint64_t{1} << 63) - 1;

constexpr char kMinimumField[] = "minimum_bytes";
constexpr char kPreferredField[] = "preferred_bytes";
constexpr char kMaximumField[] = "maximum_payload_bytes";
constexpr char kTailField[] = "tail";

using MaybeError = std::optional<BlockSizeError>;

BlockSizeError BadValue(std::string_view reason, const char* field, uint64_t value,
                        std::string allowed) {
  return BlockSizeError{absl::StatusCode::kInvalidArgument,
                        reason,
                        field,
                        {{"field", field}, {"value", absl::StrCat(value)}, {"allowed", allowed}},
                        absl::StrCat(field, " is ", value, "; allowed: ", allowed)};
}

BlockSizeError BadSize(ByteCount size, uint64_t minimum, const char* what) {
  return BlockSizeError{
      absl::StatusCode::kFailedPrecondition,
      "SIZE_NOT_MULTIPLE_OF_MINIMUM",
      kTailField,
      {{"size", absl::StrCat(size.value)}, {"minimum", absl::StrCat(minimum)}},
      absl::StrCat("the image's ", size.value, " bytes are no multiple of the minimum block size ",
                   minimum, ", ", what)};
}

// The rules that need nothing but the policy.
MaybeError CheckMinimum(uint64_t minimum) {
  const char* const allowed = "a power of two from 1 to 65536, or 0 to derive it";
  if (minimum == 0) return std::nullopt;
  if (!IsPowerOfTwo(minimum)) {
    return BadValue("BLOCK_SIZE_NOT_POWER_OF_TWO", kMinimumField, minimum, allowed);
  }
  if (minimum > kLargestMinimum) {
    return BadValue("BLOCK_SIZE_OUT_OF_RANGE", kMinimumField, minimum, allowed);
  }
  return std::nullopt;
}

MaybeError CheckPreferred(uint64_t preferred, uint64_t minimum) {
  if (preferred == 0) return std::nullopt;
  const std::string allowed =
      absl::StrCat("a power of two from ", std::max(kSmallestPreferred, minimum), " to ",
                   kDefaultMaximum, ", or 0 to derive it");
  if (!IsPowerOfTwo(preferred)) {
    return BadValue("BLOCK_SIZE_NOT_POWER_OF_TWO", kPreferredField, preferred, allowed);
  }
  if (preferred < kSmallestPreferred || preferred > kDefaultMaximum) {
    return BadValue("BLOCK_SIZE_OUT_OF_RANGE", kPreferredField, preferred, allowed);
  }
  if (preferred < minimum) {
    return BadValue("BLOCK_SIZE_ORDER", kPreferredField, preferred, allowed);
  }
  return std::nullopt;
}

MaybeError CheckMaximum(uint64_t maximum, uint64_t minimum, uint64_t preferred) {
  if (maximum == 0 || maximum == kNoMaximumPayload) return std::nullopt;
  const std::string allowed =
      absl::StrCat("a multiple of ", minimum, ", at least ", std::max(kSmallestMaximum, preferred),
                   "; ", kNoMaximumPayload, " for no limit, or 0 to derive it");
  if (maximum < kSmallestMaximum) {
    return BadValue("BLOCK_SIZE_OUT_OF_RANGE", kMaximumField, maximum, allowed);
  }
  if (maximum < preferred || !IsMultiple(maximum, minimum)) {
    return BadValue("BLOCK_SIZE_ORDER", kMaximumField, maximum, allowed);
  }
  return std::nullopt;
}

EffectiveSize FromPolicy(uint64_t bytes) {
  return {static_cast<uint32_t>(bytes), SizeOrigin::kPolicy, {}};
}

EffectiveSize FromNode(uint64_t bytes, const std::string& name, std::string_view image) {
  const SizeOrigin origin = name == image ? SizeOrigin::kStorage : SizeOrigin::kFilter;
  return {static_cast<uint32_t>(bytes), name.empty() ? SizeOrigin::kDefault : origin, name};
}

// What the nodes below need of requests; an AlignedNode has taken over what no client could keep.
uint64_t StorageAlignment(const Limits& limits) {
  return limits.alignment.value <= kLargestMinimum ? limits.alignment.value : 1;
}

EffectiveSize ResolveMinimum(const BlockSizePolicy& policy, const Limits& limits,
                             std::string_view image) {
  EffectiveSize minimum = policy.minimum != 0
                              ? FromPolicy(policy.minimum)
                              : FromNode(StorageAlignment(limits), limits.alignment_from, image);
  if (minimum.bytes == 1 && policy.minimum == 0) minimum = EffectiveSize{1};
  if (policy.tail == TailPolicy::kExact && minimum.bytes > 1) minimum = FromPolicy(1);
  return minimum;
}

EffectiveSize ResolvePreferred(const BlockSizePolicy& policy, const Limits& limits,
                               const EffectiveSize& minimum, std::string_view image) {
  if (policy.preferred != 0) return FromPolicy(policy.preferred);
  const bool alignment_counts =
      limits.alignment.value > std::max(kLargestMinimum, limits.preferred.value);
  const uint64_t wanted = alignment_counts ? limits.alignment.value : limits.preferred.value;
  const std::string& from = alignment_counts ? limits.alignment_from : limits.preferred_from;
  // Compared before rounding up, which could overflow for nonsense.
  const uint64_t opinion = std::bit_ceil(std::min(wanted, kLargestDerivedPreferred));
  EffectiveSize result{kDefaultPreferred};
  if (opinion > result.bytes) result = FromNode(opinion, from, image);
  if (minimum.bytes > result.bytes) result = minimum;
  if (policy.maximum_payload >= kSmallestMaximum && policy.maximum_payload < result.bytes) {
    result = FromPolicy(std::bit_floor(policy.maximum_payload));
  }
  return result;
}

// Sets the sizes that follow from the minimum and the tail policy.
MaybeError ResolveTail(ByteCount size, EffectiveBlockSizes& sizes) {
  const uint64_t minimum = sizes.minimum.bytes;
  if (size.value > kLargestSize) {
    return BlockSizeError{absl::StatusCode::kOutOfRange,
                          "SIZE_OUT_OF_RANGE",
                          kTailField,
                          {{"size", absl::StrCat(size.value)}, {"minimum", absl::StrCat(minimum)}},
                          absl::StrCat("an export cannot have ", size.value, " bytes")};
  }
  sizes.export_size = size;
  sizes.content_size = size;
  if (IsMultiple(size.value, minimum)) return std::nullopt;
  if (sizes.tail == TailPolicy::kRefuse) {
    return BadSize(size, minimum, "which the tail policy refuses");
  }
  if (sizes.tail == TailPolicy::kTruncate) {
    sizes.tail_node = TailMode::kTruncate;
    sizes.export_size = TailSize(TailMode::kTruncate, size, ByteCount{minimum});
    sizes.content_size = sizes.export_size;
    sizes.lost = size - sizes.export_size;
    if (sizes.export_size.value > 0) return std::nullopt;
    return BadSize(size, minimum, "and truncated to one nothing would be left");
  }
  if (size.value > kLargestSize - (minimum - 1)) {
    return BlockSizeError{absl::StatusCode::kOutOfRange,
                          "SIZE_OUT_OF_RANGE",
                          kTailField,
                          {{"size", absl::StrCat(size.value)}, {"minimum", absl::StrCat(minimum)}},
                          absl::StrCat("the image's ", size.value,
                                       " bytes cannot be padded to a multiple of ", minimum)};
  }
  sizes.tail_node = sizes.tail == TailPolicy::kPadGrow ? TailMode::kPadGrow : TailMode::kPadZero;
  sizes.export_size = TailSize(*sizes.tail_node, size, ByteCount{minimum});
  return std::nullopt;
}

// With requests refused rather than emulated, the minimum must be what the nodes below can do.
MaybeError CheckAgainstStorage(const EffectiveBlockSizes& sizes, const Limits& limits) {
  const bool emulates = sizes.unaligned_requests == UnalignedRequests::kEmulate;
  if (emulates || sizes.minimum.bytes >= StorageAlignment(limits)) return std::nullopt;
  return BlockSizeError{
      absl::StatusCode::kInvalidArgument,
      "BLOCK_SIZE_BELOW_STORAGE",
      kMinimumField,
      {{"minimum", absl::StrCat(sizes.minimum.bytes)}, {"determined_by", limits.alignment_from}},
      absl::StrCat("minimum_bytes comes out as ", sizes.minimum.bytes, ", but ",
                   limits.alignment_from, " needs requests aligned to ", limits.alignment.value,
                   ", and unaligned_requests rules out emulation")};
}

}  // namespace

std::variant<EffectiveBlockSizes, BlockSizeError> ResolveBlockSizes(const BlockSizePolicy& policy,
                                                                    const Limits& limits,
                                                                    std::string_view image) {
  if (MaybeError error = CheckMinimum(policy.minimum)) return *error;
  EffectiveBlockSizes sizes;
  sizes.minimum = ResolveMinimum(policy, limits, image);
  if (MaybeError error = CheckPreferred(policy.preferred, sizes.minimum.bytes)) return *error;
  sizes.preferred = ResolvePreferred(policy, limits, sizes.minimum, image);
  if (MaybeError error =
          CheckMaximum(policy.maximum_payload, sizes.minimum.bytes, sizes.preferred.bytes)) {
    return *error;
  }
  sizes.maximum_payload = policy.maximum_payload != 0
                              ? FromPolicy(policy.maximum_payload)
                              : EffectiveSize{static_cast<uint32_t>(kDefaultMaximum)};
  if (policy.unaligned_requests != UnalignedRequests::kUnspecified) {
    sizes.unaligned_requests = policy.unaligned_requests;
  }
  if (policy.silent_clients != SilentClients::kUnspecified) {
    sizes.silent_clients = policy.silent_clients;
  }
  sizes.violation_budget = policy.violation_budget;
  sizes.tail = policy.tail;
  if (policy.tail == TailPolicy::kUnspecified) {
    sizes.tail = sizes.minimum.bytes == 1 ? TailPolicy::kExact : TailPolicy::kPadZero;
  }
  if (MaybeError error = CheckAgainstStorage(sizes, limits)) return *error;
  if (MaybeError error = ResolveTail(limits.size, sizes)) return *error;
  return sizes;
}

}  // namespace gabion::block
