#include "tests/sim/toy_format.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/runtime/event.h"

namespace gabion::sim {
namespace {

constexpr uint64_t kBlock = 1024;

// Changes go one at a time. The table has, for each block of the disk, the number of the block of
// the file that holds it, or 0. Owned by an OpenImage; used on its thread.
class ToyNode final : public block::Node {
 public:
  ToyNode(std::unique_ptr<io::File> file, uint64_t size, ToyOrder order, runtime::ReadyQueue& ready)
      : Node(LimitsOf(size)), order_(order), file_(std::move(file)), freed_(ready) {}

  static uint64_t Blocks(uint64_t bytes) { return RoundUp(bytes, kBlock) / kBlock; }
  static uint64_t TableBytes(uint64_t size) { return RoundUp(Blocks(size) * 8, kBlock); }

  Task<absl::Status> Load() {
    std::vector<std::byte> bytes(TableBytes(limits().size.value));
    CO_RETURN_IF_ERROR(co_await file_->Read({0}, bytes));
    table_.resize(Blocks(limits().size.value));
    end_ = bytes.size() / kBlock;
    std::set<uint64_t> used;
    for (std::size_t i = 0; i < table_.size(); ++i) {
      table_[i] = LoadBe64(&bytes[i * 8]);
      if (table_[i] == 0) continue;
      used.insert(table_[i]);
      end_ = std::max(end_, table_[i] + 1);
    }
    for (uint64_t i = bytes.size() / kBlock; i < end_; ++i) {
      if (!used.contains(i)) free_.insert(i);
    }
    co_return absl::OkStatus();
  }

 private:
  static block::Limits LimitsOf(uint64_t size) {
    block::Limits limits;
    limits.size = ByteCount{size};
    limits.writable = true;
    return limits;
  }

  Task<void> Lock() {
    while (busy_) co_await freed_.Wait();
    busy_ = true;
  }
  void Unlock() {
    busy_ = false;
    freed_.WakeAll();
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    co_await Lock();
    const absl::Status status = co_await ReadBlocks(range, dst);
    Unlock();
    co_return status;
  }

  Task<absl::Status> ReadBlocks(ByteRange range, MutableBytes dst) {
    for (uint64_t at = range.offset.value; at < range.end().value;) {
      const uint64_t end = std::min(RoundDown(at, kBlock) + kBlock, range.end().value);
      const MutableBytes part = dst.subspan(at - range.offset.value, end - at);
      const uint64_t host = table_[at / kBlock];
      std::fill(part.begin(), part.end(), std::byte{0});
      if (host != 0) CO_RETURN_IF_ERROR(co_await file_->Read({host * kBlock + at % kBlock}, part));
      at = end;
    }
    co_return absl::OkStatus();
  }

  Task<absl::Status> DoWrite(ByteRange range, Bytes src, block::WriteOptions options) override {
    co_await Lock();
    absl::Status status = absl::OkStatus();
    for (uint64_t at = range.offset.value; status.ok() && at < range.end().value;) {
      const uint64_t end = std::min(RoundDown(at, kBlock) + kBlock, range.end().value);
      status = co_await ReplaceBlock(at, src.subspan(at - range.offset.value, end - at));
      at = end;
    }
    if (status.ok() && options.durable) status = co_await FlushLocked();
    Unlock();
    co_return status;
  }

  Task<absl::Status> ReplaceBlock(uint64_t at, Bytes part) {
    const uint64_t index = at / kBlock;
    std::vector<std::byte> bytes(kBlock);
    if (table_[index] != 0)
      CO_RETURN_IF_ERROR(co_await file_->Read({table_[index] * kBlock}, bytes));
    std::copy(part.begin(), part.end(), bytes.begin() + (at % kBlock));
    if (free_.empty()) free_.insert(end_++);
    const uint64_t host = *free_.begin();
    free_.erase(free_.begin());
    const ByteOffset place{host * kBlock};
    CO_RETURN_IF_ERROR(co_await file_->Write(place, bytes, order_ != ToyOrder::kEarlyMetadata));
    const uint64_t old = std::exchange(table_[index], host);
    if (old != 0) (order_ == ToyOrder::kEarlyReuse ? free_ : unreferenced_).insert(old);
    if (order_ == ToyOrder::kNoFlush) {
      unwritten_.insert(index);
      co_return absl::OkStatus();
    }
    const absl::Status status = co_await WriteEntry(index);
    co_return status;
  }

  Task<absl::Status> WriteEntry(uint64_t index) {
    std::byte entry[8];
    StoreBe64(entry, table_[index]);
    const Bytes bytes(entry);
    const absl::Status status = co_await file_->Write({index * 8}, bytes, false);
    co_return status;
  }

  Task<absl::Status> FlushLocked() {
    CO_RETURN_IF_ERROR(co_await file_->Sync());
    for (const uint64_t index : std::exchange(unwritten_, {})) {
      CO_RETURN_IF_ERROR(co_await WriteEntry(index));
    }
    free_.merge(unreferenced_);
    co_return absl::OkStatus();
  }

  Task<absl::Status> DoFlush() override {
    co_await Lock();
    const absl::Status status = co_await FlushLocked();
    Unlock();
    co_return status;
  }

  Task<absl::Status> DoZero(ByteRange range, block::ZeroOptions options) override {
    if (options.fast_only) co_return absl::UnimplementedError("no fast zeros");
    const std::vector<std::byte> zeros(range.length.value);
    const block::WriteOptions write{.durable = options.durable};
    const absl::Status status = co_await DoWrite(range, zeros, write);
    co_return status;
  }

  Task<absl::Status> DoDiscard(ByteRange) override { return absl::OkStatus(); }
  Task<absl::Status> DoCache(ByteRange) override { return absl::OkStatus(); }

  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range,
                                                        std::size_t max_extents) override {
    block::ExtentList list;
    for (uint64_t at = range.offset.value; at < range.end().value && list.size() < max_extents;) {
      const uint64_t end = std::min(RoundDown(at, kBlock) + kBlock, range.end().value);
      const bool data = table_[at / kBlock] != 0;
      block::AppendExtent(
          list, {.range = Range(at, end - at),
                 .kind = data ? block::ExtentKind::kData : block::ExtentKind::kUnallocated,
                 .layer = data ? 1u : 0u});
      at = end;
    }
    return absl::StatusOr<block::ExtentList>(std::move(list));
  }

  Task<absl::Status> DoClose() override {
    const absl::Status flushed = co_await DoFlush();
    absl::Status closed = co_await file_->Close();
    co_return flushed.ok() ? closed : flushed;
  }

  const ToyOrder order_;
  const std::unique_ptr<io::File> file_;
  std::vector<uint64_t> table_;
  uint64_t end_ = 0;  // of the file, in blocks
  std::set<uint64_t> free_;
  std::set<uint64_t> unreferenced_;  // free when the table is durable
  std::set<uint64_t> unwritten_;     // entries of the table
  runtime::Signal freed_;
  bool busy_ = false;
};

class ToyFormat final : public SimFormat {
 public:
  explicit ToyFormat(ToyOrder order) : order_(order) {}

  std::string_view name() const override { return "toy"; }
  bool can_have_backing() const override { return false; }
  SimFileOptions FileOptions(const ImageSpec&) const override { return {}; }

  Task<absl::Status> Create(std::unique_ptr<io::File> file, const ImageSpec& spec) const override {
    CO_RETURN_IF_ERROR(co_await file->Resize({ToyNode::TableBytes(spec.size)}));
    CO_RETURN_IF_ERROR(co_await file->Sync());
    const absl::Status status = co_await file->Close();
    co_return status;
  }

  Task<absl::StatusOr<OpenImage>> Open(std::unique_ptr<io::File> file, block::Node*,
                                       const ImageSpec& spec,
                                       runtime::ReadyQueue& ready) const override {
    auto node = std::make_unique<ToyNode>(std::move(file), spec.size, order_, ready);
    CO_RETURN_IF_ERROR(co_await node->Load());
    OpenImage image;
    image.Add(std::move(node));
    co_return absl::StatusOr<OpenImage>(std::move(image));
  }

  Task<absl::Status> Check(std::unique_ptr<io::File> file, const ImageSpec&, bool) const override {
    const absl::Status status = co_await file->Close();
    co_return status;
  }

 private:
  const ToyOrder order_;
};

}  // namespace

std::unique_ptr<SimFormat> NewToyFormat(ToyOrder order) {
  return std::make_unique<ToyFormat>(order);
}

}  // namespace gabion::sim
