#include "engine/filters/copying/cow_state.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::filters {
namespace {

constexpr std::size_t kExtentsAtOnce = 256;
constexpr uint64_t kBlocksAtOnce = 65536;
// Requests that were in flight when the limit was reached have made some more.
constexpr std::size_t kMostRunsEver = 2 * CowState::kMostRuns;

}  // namespace

CowState::CowState(uint64_t block_bytes, bool keeps) : block_size(block_bytes), kept(keeps) {
  CHECK(IsPowerOfTwo(block_size));
  CHECK_GE(block_size, kSmallestBlock);
  CHECK_LE(block_size, kLargestBlock);
}

Task<absl::Status> LearnBlocks(block::Node& scratch, ByteRange range, CowState& state,
                               runtime::ReadyQueue& ready) {
  const uint64_t block = state.block_size;
  for (uint64_t at = range.offset.value; at < range.end().value;) {
    const uint64_t length = std::min(range.end().value - at, kBlocksAtOnce * block);
    CO_ASSIGN_OR_RETURN(const block::ExtentList extents,
                        co_await scratch.BlockStatus(Range(at, length), kExtentsAtOnce));
    for (const block::Extent& extent : extents) {
      const uint64_t begin = extent.range.offset.value;
      const uint64_t end = extent.range.end().value;
      at = end;
      if (extent.kind == block::ExtentKind::kUnallocated) continue;
      if (begin % block != 0 || (end % block != 0 && end != range.end().value)) {
        co_return absl::DataLossError(
            absl::StrCat("bytes ", begin, " to ", end, " are not whole blocks of ", block));
      }
      state.blocks.Set(begin / block, (end + block - 1) / block, CowState::kWritten);
    }
    if (at < range.end().value) co_await ready.Yield();
    if (state.blocks.size() > kMostRunsEver) {
      co_return absl::ResourceExhaustedError("what is kept is in too many pieces");
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::unique_ptr<CowState>>> LoadCowState(block::Node& scratch,
                                                             uint64_t block_bytes,
                                                             runtime::ReadyQueue& ready) {
  auto state = std::make_unique<CowState>(block_bytes, true);
  const ByteRange all{ByteOffset{0}, scratch.limits().size};
  CO_RETURN_IF_ERROR(co_await LearnBlocks(scratch, all, *state, ready));
  co_return state;
}

}  // namespace gabion::filters
