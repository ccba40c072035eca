#include "engine/nbd/server/read_reply.h"

#include <algorithm>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/block/zeros.h"

namespace gabion::nbd {
namespace {

constexpr uint64_t kShortestHole = 4096;
constexpr uint64_t kShortestHoleAtEdge = 512;

// Appends data chunks for [begin, end), each within the maximum payload, cut at the granule.
void AppendData(uint64_t begin, uint64_t end, const ReadReplyOptions& options,
                std::vector<ReadChunk>& chunks) {
  while (end - begin > options.maximum_payload.value) {
    const uint64_t cut = RoundDown(begin + options.maximum_payload.value, options.granule.value);
    chunks.push_back({Range(begin, cut - begin), false});
    begin = cut;
  }
  if (begin < end) chunks.push_back({Range(begin, end - begin), false});
}

}  // namespace

void PlanReadChunks(ByteOffset offset, Bytes data, const ReadReplyOptions& options,
                    std::vector<ReadChunk>& chunks) {
  CHECK(IsPowerOfTwo(options.granule.value));
  CHECK_GE(options.maximum_payload.value, options.granule.value);
  chunks.clear();
  if (data.empty()) return;
  if (options.one_chunk) {
    chunks.push_back({ByteRange{offset, ByteCount{data.size()}}, false});
    return;
  }
  const uint64_t block = std::max(options.granule.value, kShortestHoleAtEdge);
  block::ZeroRunScanner scanner(data, offset, block, std::max(block, kShortestHole), block);
  uint64_t at = offset.value;
  for (block::ZeroRun run; scanner.Next(run);) {
    const uint64_t hole = offset.value + run.begin;
    AppendData(at, hole, options, chunks);
    chunks.push_back({Range(hole, run.end - run.begin), true});
    at = offset.value + run.end;
  }
  AppendData(at, offset.value + data.size(), options, chunks);
}

}  // namespace gabion::nbd
