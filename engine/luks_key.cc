#include "engine/luks_key.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/luks_header.h"

namespace gabion::engine {
namespace {

constexpr uint64_t kPiece = 128 * kKiB;

Task<absl::Status> CopyHeader(block::Node& disk, ByteOffset from, ByteOffset to,
                              LuksHeader& header) {
  std::vector<std::byte> piece(kPiece);
  while (from < to) {
    const std::size_t length = std::min(kPiece, (to - from).value);
    const MutableBytes bytes = MutableBytes(piece).first(length);
    CO_RETURN_IF_ERROR(co_await disk.Read(Range(from.value, length), bytes));
    CO_RETURN_IF_ERROR(header.Put(from, bytes));
    from = from + ByteCount{length};
  }
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::StatusOr<filters::LuksVolume>> OpenLuks(block::Node& disk, Secret passphrase,
                                                   runtime::Workers& workers, LuksBounds bounds,
                                                   const std::atomic<bool>& closing) {
  const ByteCount size = disk.limits().size;
  CO_ASSIGN_OR_RETURN(const std::unique_ptr<LuksHeader> header, LuksHeader::Create(size));
  const ByteOffset first{std::min(kLuksFirstBytes, size.value)};
  CO_RETURN_IF_ERROR(co_await CopyHeader(disk, ByteOffset{0}, first, *header));
  const auto load = [&] { return header->Load(bounds); };
  CO_RETURN_IF_ERROR(co_await workers.Run(load));
  CO_RETURN_IF_ERROR(co_await CopyHeader(disk, first, header->slots_end(), *header));
  const auto unlock = [&]() -> absl::StatusOr<filters::LuksVolume> {
    if (closing.load(std::memory_order_relaxed)) return absl::UnavailableError("the engine ends");
    return header->Unlock(passphrase);
  };
  absl::StatusOr<filters::LuksVolume> volume = co_await workers.Run(unlock);
  co_return volume;
}

}  // namespace gabion::engine
