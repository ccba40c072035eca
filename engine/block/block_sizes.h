// Block sizes of an export: from what its owner asked for to what clients are told. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/block/limits.h"
#include "engine/block/tail_node.h"

namespace gabion::block {

enum class UnalignedRequests : uint8_t { kUnspecified, kEmulate, kReject, kDisconnect };
enum class SilentClients : uint8_t { kUnspecified, kAssume512, kEnforce, kRefuse };
enum class TailPolicy : uint8_t {
  kUnspecified,  // kExact where the minimum comes out as 1, kPadZero otherwise
  kExact,        // forces the minimum to 1
  kPadZero,
  kPadGrow,
  kTruncate,
  kRefuse,
};

// "No limit" of the maximum payload, as NBD spells it.
inline constexpr uint32_t kNoMaximumPayload = 0xffffffff;

// What the owner of an export asks for; 0 and kUnspecified: derive it.
struct BlockSizePolicy {
  uint32_t minimum = 0;          // power of two, 1..65536
  uint32_t preferred = 0;        // power of two, max(512, minimum)..32 MiB
  uint32_t maximum_payload = 0;  // multiple of the minimum, at least 1 MiB and at least preferred
  UnalignedRequests unaligned_requests = UnalignedRequests::kUnspecified;
  uint32_t violation_budget = 0;
  SilentClients silent_clients = SilentClients::kUnspecified;
  TailPolicy tail = TailPolicy::kUnspecified;
};

// Who decided about a value.
enum class SizeOrigin : uint8_t { kDefault, kPolicy, kStorage, kFilter };

struct EffectiveSize {
  uint32_t bytes = 0;
  SizeOrigin origin = SizeOrigin::kDefault;
  // Image name (kStorage), stack entry id (kFilter), export name (kPolicy; whoever resolves for an
  // export fills it in); else empty.
  std::string determined_by;
};

// What new connections are told. Always true of it: export_size is a multiple of the minimum, and
// the three sizes are a triple that clients accept (powers of two, 1 <= minimum <= 65,536, minimum
// <= preferred, 512 <= preferred <= maximum, the maximum no limit or a multiple of the minimum).
struct EffectiveBlockSizes {
  EffectiveSize minimum;
  EffectiveSize preferred;
  EffectiveSize maximum_payload;
  ByteCount export_size;
  // Bytes of the export that are bytes of the image; the rest is padding.
  ByteCount content_size;
  // Bytes at the end of the image that clients cannot reach (kTruncate); worth a loud warning.
  ByteCount lost;
  // The tail node that the export needs now; none if the sizes are equal.
  std::optional<TailMode> tail_node;
  // The policy's choices, with what "unspecified" means put in.
  UnalignedRequests unaligned_requests = UnalignedRequests::kEmulate;
  uint32_t violation_budget = 0;
  SilentClients silent_clients = SilentClients::kAssume512;
  TailPolicy tail = TailPolicy::kExact;
};

// Why there is no export under a policy.
struct BlockSizeError {
  absl::StatusCode code;
  std::string_view reason;  // a constant of the API: BLOCK_SIZE_NOT_POWER_OF_TWO, ...
  std::string field;        // field of the policy message at fault: "minimum_bytes", ...
  std::vector<std::pair<std::string, std::string>> metadata;  // the reason's keys and their values
  std::string message;
};

// `limits`: of the topmost node of the export below AlignedNode and TailNode, so that `alignment`
// is what the nodes do without read-modify-write. An alignment above 65,536 is taken as made finer
// by an AlignedNode, and shows as preferred size only. `image`: the name of the image at the
// bottom; any other name in the limits is the id of a stack entry.
std::variant<EffectiveBlockSizes, BlockSizeError> ResolveBlockSizes(const BlockSizePolicy& policy,
                                                                    const Limits& limits,
                                                                    std::string_view image);

}  // namespace gabion::block
