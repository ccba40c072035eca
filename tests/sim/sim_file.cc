#include "tests/sim/sim_file.h"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/io/errno_status.h"

namespace gabion::sim {
namespace {

using io::ErrnoStatus;
using io::FileExtent;
using io::ZeroMode;

class SimFile final : public io::File {
 public:
  SimFile(SimWorld& world, SimDisk& disk, const SimFileOptions& options)
      : world_(world), disk_(disk), options_(options), generation_(disk.generation()) {}
  ~SimFile() override { CHECK_EQ(in_flight_, 0); }

  // A machine without power has no files, but its programs still look at what they knew.
  ByteCount size() const override { return {Dead() ? last_size_ : disk_.size()}; }
  bool writable() const override { return options_.writable; }
  uint32_t alignment() const override { return options_.alignment; }
  std::string_view driver() const override { return "simulated"; }

  Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) override;
  Task<absl::Status> Write(ByteOffset offset, Bytes src, bool durable) override;
  Task<absl::Status> Zero(ByteRange range, ZeroMode mode) override;
  Task<absl::Status> Sync() override;
  Task<absl::Status> Prefetch(ByteRange range) override;
  Task<absl::StatusOr<std::vector<FileExtent>>> Map(ByteRange range,
                                                    std::size_t max_extents) override;
  Task<absl::Status> Resize(ByteCount size) override;
  Task<absl::Status> Close() override;

 private:
  // A call that is in flight while this lives.
  class Visit {
   public:
    explicit Visit(SimFile& file, bool alone = false) : file_(file) {
      CHECK(!file_.closed_);
      CHECK(!file_.alone_);
      CHECK(!alone || file_.in_flight_ == 0);
      ++file_.in_flight_;
      file_.alone_ = alone;
    }
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    ~Visit() {
      --file_.in_flight_;
      file_.alone_ = false;
    }

   private:
    SimFile& file_;
  };

  bool Dead() const { return disk_.generation() != generation_; }
  bool Happens(uint64_t one_in) { return one_in != 0 && world_.random().OneIn(one_in); }
  void CheckAligned(ByteRange range, const std::byte* address) const;
  // Waits for a turn; an error if the power failed meanwhile.
  Task<absl::Status> Wait();
  // For a call that has done its work: time in which others run before it is answered, sometimes.
  Task<absl::Status> Answer();
  // The sectors of `range`, each with the part that it covers, in the order in which to go through
  // them, and how many to do at a time.
  std::vector<ByteRange> Pieces(ByteRange range, std::size_t& at_a_time);
  absl::Status WriteFault(ByteRange range);
  void NoteSize() { last_size_ = disk_.size(); }

  SimWorld& world_;
  SimDisk& disk_;
  const SimFileOptions options_;
  const uint64_t generation_;
  uint64_t last_size_ = disk_.size();
  absl::Status lost_ = absl::OkStatus();  // what every later sync answers
  int in_flight_ = 0;
  bool alone_ = false;
  bool closed_ = false;
};

void SimFile::CheckAligned(ByteRange range, const std::byte* address) const {
  CHECK(IsAlignedWithin(range, {options_.alignment}, size()));
  CHECK(IsMultiple(reinterpret_cast<uintptr_t>(address), options_.alignment));
}

Task<absl::Status> SimFile::Wait() {
  co_await world_.Turn();
  if (Dead()) co_return ErrnoStatus(EIO, "no power");
  co_return absl::OkStatus();
}

Task<absl::Status> SimFile::Answer() {
  if (world_.random().OneIn(3)) return Wait();
  return absl::OkStatus();
}

std::vector<ByteRange> SimFile::Pieces(ByteRange range, std::size_t& at_a_time) {
  std::vector<ByteRange> pieces;
  for (uint64_t at = range.offset.value; at < range.end().value;) {
    const uint64_t end =
        std::min(RoundDown(at, SimDisk::kSector) + SimDisk::kSector, range.end().value);
    pieces.push_back(Range(at, end - at));
    at = end;
  }
  at_a_time = pieces.size();
  if (pieces.size() < 2 || world_.random().OneIn(2)) return pieces;
  for (std::size_t i = 0; i + 1 < pieces.size(); ++i) {
    std::swap(pieces[i], pieces[world_.random().Between(i, pieces.size() - 1)]);
  }
  at_a_time = world_.random().Between(pieces.size() / 4 + 1, pieces.size());
  return pieces;
}

Task<absl::Status> SimFile::Read(ByteOffset offset, MutableBytes dst) {
  const ByteRange range{offset, {dst.size()}};
  CheckAligned(range, dst.data());
  const Visit visit(*this);
  CO_RETURN_IF_ERROR(co_await Wait());
  if (Happens(world_.faults().read)) co_return ErrnoStatus(EIO, "read");
  std::size_t at_a_time = 0;
  const std::vector<ByteRange> pieces = Pieces(range, at_a_time);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (i > 0 && i % at_a_time == 0) CO_RETURN_IF_ERROR(co_await Wait());
    const uint64_t at = pieces[i].offset.value;
    disk_.Read(at, dst.subspan(at - offset.value, pieces[i].length.value));
  }
  const absl::Status status = co_await Answer();
  co_return status;
}

absl::Status SimFile::WriteFault(ByteRange range) {
  if (range.end().value > disk_.size() && Happens(world_.faults().no_space)) {
    return ErrnoStatus(ENOSPC, "write");
  }
  return Happens(world_.faults().write) ? ErrnoStatus(EIO, "write") : absl::OkStatus();
}

Task<absl::Status> SimFile::Write(ByteOffset offset, Bytes src, bool durable) {
  CHECK(options_.writable);
  const ByteRange range{offset, {src.size()}};
  CHECK(IsMultiple(offset.value, options_.alignment));
  if (range.end().value <= size().value) CheckAligned(range, src.data());
  const Visit visit(*this);
  CO_RETURN_IF_ERROR(co_await Wait());
  const absl::Status fault = WriteFault(range);
  if (durable && absl::IsDataLoss(fault)) lost_ = fault;
  std::size_t at_a_time = 0;
  const std::vector<ByteRange> pieces = Pieces(range, at_a_time);
  const std::size_t count = fault.ok() ? pieces.size() : world_.random().Below(pieces.size() + 1);
  const SimDisk::Call call = disk_.BeginCall();
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0 && i % at_a_time == 0) CO_RETURN_IF_ERROR(co_await Wait());
    const uint64_t at = pieces[i].offset.value;
    disk_.WriteSector(call, at, src.subspan(at - offset.value, pieces[i].length.value));
    NoteSize();
  }
  if (durable && fault.ok()) disk_.MakeDurable(call, range);
  CO_RETURN_IF_ERROR(co_await Answer());
  disk_.EndCall(call);
  co_return fault;
}

Task<absl::Status> SimFile::Zero(ByteRange range, ZeroMode mode) {
  CHECK(options_.writable);
  CheckAligned(Intersect(range, Range(0, size().value)), nullptr);
  const Visit visit(*this);
  CO_RETURN_IF_ERROR(co_await Wait());
  const bool keep = mode == ZeroMode::kKeepAllocated;
  if (keep ? !options_.can_keep_allocated : !options_.can_punch) {
    co_return ErrnoStatus(EOPNOTSUPP, "fallocate");
  }
  const bool fails = Happens(world_.faults().zero);
  const SimDisk::Call call = disk_.BeginCall();
  const uint64_t middle =
      std::max(range.offset.value,
               RoundDown(range.offset.value + world_.random().Below(range.length.value + 1),
                         SimDisk::kSector));
  disk_.Zero(call, Range(range.offset.value, middle - range.offset.value), keep);
  CO_RETURN_IF_ERROR(co_await Wait());
  if (!fails) disk_.Zero(call, Range(middle, range.end().value - middle), keep);
  disk_.EndCall(call);
  if (fails) co_return ErrnoStatus(EIO, "fallocate");
  co_return absl::OkStatus();
}

Task<absl::Status> SimFile::Sync() {
  const Visit visit(*this);
  const uint64_t begun = disk_.BeginSync();
  CO_RETURN_IF_ERROR(co_await Wait());
  if (lost_.ok() && Happens(world_.faults().sync)) lost_ = ErrnoStatus(EIO, "fdatasync");
  if (!lost_.ok()) co_return lost_;
  disk_.EndSync(begun);
  const absl::Status status = co_await Answer();
  co_return status;
}

Task<absl::Status> SimFile::Prefetch(ByteRange) {
  const Visit visit(*this);
  const absl::Status status = co_await Wait();
  co_return status;
}

Task<absl::StatusOr<std::vector<FileExtent>>> SimFile::Map(ByteRange range,
                                                           std::size_t max_extents) {
  CHECK(!range.empty());
  CHECK(FitsWithin(range, size()));
  CHECK_GE(max_extents, 1u);
  const Visit visit(*this);
  CO_RETURN_IF_ERROR(co_await Wait());
  if (!options_.can_map) co_return std::vector<FileExtent>{{range, false}};
  if (world_.random().OneIn(4)) max_extents = world_.random().Between(1, max_extents);
  std::vector<FileExtent> extents = disk_.Map(range, max_extents);
  CO_RETURN_IF_ERROR(co_await Answer());
  co_return extents;
}

Task<absl::Status> SimFile::Resize(ByteCount size) {
  CHECK(options_.writable);
  const Visit visit(*this, true);
  CO_RETURN_IF_ERROR(co_await Wait());
  if (size.value > disk_.size() && Happens(world_.faults().no_space)) {
    co_return ErrnoStatus(ENOSPC, "ftruncate");
  }
  const SimDisk::Call call = disk_.BeginCall();
  disk_.Resize(call, size.value);
  NoteSize();
  CO_RETURN_IF_ERROR(co_await Answer());
  disk_.EndCall(call);
  co_return absl::OkStatus();
}

Task<absl::Status> SimFile::Close() {
  const Visit visit(*this, true);
  const absl::Status status = co_await Wait();
  closed_ = true;
  co_return status;
}

}  // namespace

std::unique_ptr<io::File> OpenSimFile(SimWorld& world, SimDisk& disk,
                                      const SimFileOptions& options) {
  return std::make_unique<SimFile>(world, disk, options);
}

}  // namespace gabion::sim
