#include "engine/formats/raw/raw_node.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::raw {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::WriteOptions;
using block::ZeroOptions;
using io::ZeroMode;

// Large enough that files do not copy it on the shard's thread; never written, so it takes no
// memory but page tables.
constexpr std::size_t kZeroChunk = 2 * kMiB;

Bytes Zeros(std::size_t length) {
  alignas(4096) static std::array<std::byte, kZeroChunk> zeros;
  return Bytes(zeros).first(length);
}

block::Limits LimitsOf(const io::File& file, const RawOptions& options) {
  CHECK(IsPowerOfTwo(options.request_alignment.value));
  block::Limits limits;
  limits.size = file.size();
  limits.alignment.value = std::max<uint64_t>(file.alignment(), options.request_alignment.value);
  if (limits.alignment.value > 1) limits.alignment_from = options.name;
  limits.memory_alignment = file.alignment();
  limits.writable = file.writable();
  limits.fast_zero = file.writable();  // until the file says otherwise
  return limits;
}

class RawNode final : public block::Node {
 public:
  RawNode(std::unique_ptr<io::File> file, const RawOptions& options)
      : Node(LimitsOf(*file, options)), file_(std::move(file)) {}

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    return file_->Read(range.offset, dst);
  }

  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    return file_->Write(range.offset, src, options.durable);
  }

  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    absl::Status status = co_await ZeroQuickly(range, options.may_unmap);
    if (absl::IsUnimplemented(status) && !options.fast_only) {
      status = co_await WriteZeros(range);
    }
    if (!status.ok() || !options.durable) co_return status;
    const absl::Status synced = co_await file_->Sync();
    co_return synced;
  }

  // kUnimplemented, with nothing changed, if that takes writing.
  Task<absl::Status> ZeroQuickly(ByteRange range, bool may_unmap) {
    if (may_unmap) {
      const absl::Status punched = co_await file_->Zero(range, ZeroMode::kPunch);
      if (!absl::IsUnimplemented(punched)) co_return punched;
    }
    const absl::Status kept = co_await file_->Zero(range, ZeroMode::kKeepAllocated);
    if (may_unmap && absl::IsUnimplemented(kept)) mutable_limits().fast_zero = false;
    co_return kept;
  }

  Task<absl::Status> WriteZeros(ByteRange range) {
    for (uint64_t done = 0; done < range.length.value;) {
      const std::size_t length = std::min<uint64_t>(range.length.value - done, kZeroChunk);
      const ByteOffset at{range.offset.value + done};
      const absl::Status status = co_await file_->Write(at, Zeros(length), false);
      if (!status.ok()) co_return status;
      done += length;
    }
    co_return absl::OkStatus();
  }

  Task<absl::Status> DoDiscard(ByteRange range) override {
    const absl::Status status = co_await file_->Zero(range, ZeroMode::kPunch);
    if (absl::IsUnimplemented(status)) co_return absl::OkStatus();
    co_return status;
  }

  Task<absl::Status> DoFlush() override {
    if (!limits().writable) return absl::OkStatus();
    return file_->Sync();
  }

  Task<absl::Status> DoCache(ByteRange range) override { return file_->Prefetch(range); }

  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                 std::size_t max_extents) override {
    CO_ASSIGN_OR_RETURN(const std::vector<io::FileExtent> found,
                        co_await file_->Map(range, max_extents));
    ExtentList extents;
    extents.reserve(found.size());
    for (const io::FileExtent& piece : found) {
      Extent extent;
      extent.range = piece.range;
      extent.kind = piece.hole ? ExtentKind::kZero : ExtentKind::kData;
      extent.host_offset = piece.range.offset.value;
      block::AppendExtent(extents, extent);
    }
    co_return extents;
  }

  Task<absl::Status> DoResize(ByteCount size) override {
    if (!limits().writable) co_return absl::PermissionDeniedError("the image is read-only");
    const absl::Status status = co_await file_->Resize(size);
    if (status.ok()) {
      RememberEnd();
      mutable_limits().size = size;
    }
    co_return status;
  }

  Task<absl::Status> DoClose() override {
    const absl::Status flushed = co_await DoFlush();
    const absl::Status closed = co_await file_->Close();
    co_return flushed.ok() ? closed : flushed;
  }

  const std::unique_ptr<io::File> file_;
};

}  // namespace

std::unique_ptr<block::Node> NewRawNode(std::unique_ptr<io::File> file, const RawOptions& options) {
  return std::make_unique<RawNode>(std::move(file), options);
}

}  // namespace gabion::raw
