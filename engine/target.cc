#include "engine/target.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/explain.h"

namespace gabion::engine {
namespace {

using DataCallback = Callback<absl::StatusOr<std::vector<std::byte>>>;
using ExplanationsCallback = Callback<absl::StatusOr<std::vector<Explanation>>>;
using ExtentsCallback = Callback<absl::StatusOr<block::ExtentList>>;

absl::Status BeyondEnd(ByteRange range, ByteCount size) {
  return WithReason(
      absl::OutOfRangeError(absl::StrCat("offset ", range.offset.value, ", length ",
                                         range.length.value, " lies beyond the end at ",
                                         size.value)),
      {"OFFSET_BEYOND_END", {{"field", "offset"}, {"size", absl::StrCat(size.value)}}});
}

absl::Status ReadOnly() {
  return WithReason(absl::FailedPreconditionError("read-only"), {"EXPORT_READ_ONLY", {}});
}

// The calls on a disk; each checks its range against the disk as it is now.
Task<absl::Status> ReadDisk(block::Node& disk, ByteRange range, std::vector<std::byte>& data) {
  if (!FitsWithin(range, disk.limits().size)) co_return BeyondEnd(range, disk.limits().size);
  data.resize(range.length.value);
  co_return co_await disk.Read(range, data);
}

Task<absl::Status> WriteDisk(block::Node& disk, ByteRange range,
                             const std::vector<std::byte>& data) {
  if (!FitsWithin(range, disk.limits().size)) co_return BeyondEnd(range, disk.limits().size);
  if (!disk.limits().writable) co_return ReadOnly();
  co_return co_await disk.Write(range, data, {.durable = true});
}

Task<absl::Status> MapDisk(block::Node& disk, ByteRange range, std::size_t max_extents,
                           block::ExtentList& extents) {
  const ByteCount size = disk.limits().content_size();
  if (!FitsWithin(range, size) || range.empty()) co_return BeyondEnd(range, size);
  CO_ASSIGN_OR_RETURN(extents, co_await disk.BlockStatus(range, max_extents));
  co_return absl::OkStatus();
}

// What a call is let at: an image, or an export with all that it is made of.
struct Disk {
  block::Node& root;
  Image& image;
  const nbd::ExportVersion* version = nullptr;  // these two: of an export
  const FilterStack* stack = nullptr;
};

// The pieces of `range`, from its beginning, at most `most`.
Task<absl::Status> ExplainDisk(const Disk& disk, ByteRange range, std::size_t most,
                               std::vector<Explanation>& pieces) {
  ByteCount size = disk.root.limits().size;
  if (disk.version != nullptr) size = std::min(size, disk.version->info.traits.size);
  if (!FitsWithin(range, size) || range.empty()) co_return BeyondEnd(range, size);
  while (!range.empty() && pieces.size() < most) {
    Explanation& piece = pieces.emplace_back();
    if (disk.version == nullptr) {
      CO_ASSIGN_OR_RETURN(piece, co_await ExplainImage(disk.image, range));
    } else {
      CO_ASSIGN_OR_RETURN(piece,
                          co_await ExplainExport(*disk.version, *disk.stack, disk.image, range));
    }
    const ByteOffset next = piece.range.end();
    range = {next, range.end() - next};
  }
  co_return absl::OkStatus();
}

// One such call, to be made on whatever disk it is let at.
class DiskCall {
 public:
  virtual ~DiskCall() = default;
  virtual Task<absl::Status> Do(const Disk& disk) = 0;
  virtual void Answer(const absl::Status& status) = 0;
};

class ReadCall final : public DiskCall {
 public:
  ReadCall(ByteRange range, DataCallback done) : range_(range), done_(std::move(done)) {}
  Task<absl::Status> Do(const Disk& disk) override { return ReadDisk(disk.root, range_, data_); }
  void Answer(const absl::Status& status) override {
    if (!status.ok()) return std::move(done_)(status);
    std::move(done_)(std::move(data_));
  }

 private:
  const ByteRange range_;
  DataCallback done_;
  std::vector<std::byte> data_;
};

class WriteCall final : public DiskCall {
 public:
  WriteCall(ByteOffset offset, std::vector<std::byte> data, Callback<absl::Status> done)
      : offset_(offset), data_(std::move(data)), done_(std::move(done)) {}
  Task<absl::Status> Do(const Disk& disk) override {
    return WriteDisk(disk.root, {offset_, ByteCount{data_.size()}}, data_);
  }
  void Answer(const absl::Status& status) override { std::move(done_)(status); }

 private:
  const ByteOffset offset_;
  const std::vector<std::byte> data_;
  Callback<absl::Status> done_;
};

class MapCall final : public DiskCall {
 public:
  MapCall(ByteRange range, std::size_t max_extents, ExtentsCallback done)
      : range_(range), max_extents_(max_extents), done_(std::move(done)) {}
  Task<absl::Status> Do(const Disk& disk) override {
    return MapDisk(disk.root, range_, max_extents_, extents_);
  }
  void Answer(const absl::Status& status) override {
    if (!status.ok()) return std::move(done_)(status);
    std::move(done_)(std::move(extents_));
  }

 private:
  const ByteRange range_;
  const std::size_t max_extents_;
  ExtentsCallback done_;
  block::ExtentList extents_;
};

class ExplainCall final : public DiskCall {
 public:
  ExplainCall(ByteRange range, std::size_t most, ExplanationsCallback done)
      : range_(range), most_(most), done_(std::move(done)) {}
  Task<absl::Status> Do(const Disk& disk) override {
    return ExplainDisk(disk, range_, most_, pieces_);
  }
  void Answer(const absl::Status& status) override {
    if (!status.ok()) return std::move(done_)(status);
    std::move(done_)(std::move(pieces_));
  }

 private:
  const ByteRange range_;
  const std::size_t most_;
  ExplanationsCallback done_;
  std::vector<Explanation> pieces_;
};

// What both kinds of targets have in common: how big the disk was when it was opened, and calls
// that are checked against that before they travel.
class TargetBase : public Target {
 public:
  explicit TargetBase(const ShardServer::Seen& seen) : seen_(seen) {}

  ByteCount size() const override { return seen_.size; }
  ByteCount content_size() const override { return seen_.content_size; }
  bool writable() const override { return seen_.writable; }
  uint32_t granule() const override { return seen_.granule; }

  void Read(ByteRange range, DataCallback done) override {
    if (!FitsWithin(range, seen_.size)) return std::move(done)(BeyondEnd(range, seen_.size));
    Start(std::make_unique<ReadCall>(range, std::move(done)));
  }

  void Write(ByteOffset offset, std::vector<std::byte> data, Callback<absl::Status> done) override {
    const ByteRange range{offset, ByteCount{data.size()}};
    if (!FitsWithin(range, seen_.size)) return std::move(done)(BeyondEnd(range, seen_.size));
    if (!seen_.writable) return std::move(done)(ReadOnly());
    Start(std::make_unique<WriteCall>(offset, std::move(data), std::move(done)));
  }

  void Map(ByteRange range, std::size_t max_extents, ExtentsCallback done) override {
    if (!FitsWithin(range, seen_.content_size) || range.empty()) {
      return std::move(done)(BeyondEnd(range, seen_.content_size));
    }
    Start(std::make_unique<MapCall>(range, max_extents, std::move(done)));
  }

  void Explain(ByteRange range, std::size_t most, ExplanationsCallback done) override {
    if (!FitsWithin(range, seen_.size) || range.empty()) {
      return std::move(done)(BeyondEnd(range, seen_.size));
    }
    Start(std::make_unique<ExplainCall>(range, most, std::move(done)));
  }

 protected:
  // Makes the call on the shard.
  virtual void Start(std::unique_ptr<DiskCall> call) = 0;

 private:
  const ShardServer::Seen seen_;
};

// An image, on its shard. Destroyed there, when the last call is done.
struct Opened {
  explicit Opened(ShardServer& on) : server(&on) {}

  ShardServer* const server;
  Image* image = nullptr;
  ImageUse use = ImageUse::kRead;
  uint32_t calls = 0;
  bool closing = false;
};

Task<void> CloseOpened(std::unique_ptr<Opened> opened) {
  co_await opened->server->ReleaseImage(opened->image, opened->use);
}

Task<void> MakeImageCall(Opened* opened, std::unique_ptr<DiskCall> call) {
  const Disk disk{.root = opened->image->root(), .image = *opened->image};
  const absl::Status status = co_await call->Do(disk);
  call->Answer(status);
  --opened->calls;
  if (opened->calls > 0 || !opened->closing) co_return;
  std::unique_ptr<Opened> owned(opened);
  Task<void> closed = CloseOpened(std::move(owned));
  co_await closed;
}

class ImageTarget final : public TargetBase {
 public:
  ImageTarget(std::unique_ptr<Opened> opened, const ShardServer::Seen& seen)
      : TargetBase(seen), server_(*opened->server), opened_(opened.release()) {}

  // Calls that were made before run before, and may still be under way then: the last one closes.
  ~ImageTarget() override {
    server_.shard().Post([opened = opened_] {
      opened->closing = true;
      if (opened->calls > 0) return;
      opened->server->tasks().Add(CloseOpened(std::unique_ptr<Opened>(opened)));
    });
  }

 private:
  void Start(std::unique_ptr<DiskCall> call) override {
    server_.shard().Post([opened = opened_, call = std::move(call)]() mutable {
      ++opened->calls;
      opened->server->tasks().Add(MakeImageCall(opened, std::move(call)));
    });
  }

  ShardServer& server_;
  Opened* const opened_;  // belongs to the shard
};

class ExportLook final : public ShardServer::Look {
 public:
  explicit ExportLook(DiskCall& call) : call_(call) {}
  Task<absl::Status> Do(const nbd::ExportVersion& version, const FilterStack& stack,
                        Image& image) override {
    const Disk disk{*version.root, image, &version, &stack};
    co_return co_await call_.Do(disk);
  }

 private:
  DiskCall& call_;
};

Task<void> MakeExportCall(ShardServer* server, std::string name, uint64_t incarnation,
                          std::unique_ptr<DiskCall> call) {
  ExportLook look(*call);
  const absl::Status status = co_await server->LookAt(name, incarnation, look);
  call->Answer(status);
}

class ExportTarget final : public TargetBase {
 public:
  ExportTarget(ShardServer& server, std::string name, const ShardServer::Seen& seen)
      : TargetBase(seen), server_(server), name_(std::move(name)), incarnation_(seen.incarnation) {}

 private:
  void Start(std::unique_ptr<DiskCall> call) override {
    server_.shard().Post([server = &server_, name = name_, incarnation = incarnation_,
                          call = std::move(call)]() mutable {
      server->tasks().Add(MakeExportCall(server, std::move(name), incarnation, std::move(call)));
    });
  }

  ShardServer& server_;
  const std::string name_;
  const uint64_t incarnation_;
};

}  // namespace

Task<absl::StatusOr<std::unique_ptr<Target>>> MakeImageTarget(ShardServer& server, ImageSpec image,
                                                              bool writable,
                                                              const io::Directory* pool) {
  auto opened = std::make_unique<Opened>(server);
  opened->use = writable ? ImageUse::kWrite : ImageUse::kRead;
  CO_ASSIGN_OR_RETURN(opened->image,
                      co_await server.AcquireImage(std::move(image), pool, opened->use));
  const block::Limits& limits = opened->image->root().limits();
  const ShardServer::Seen seen{
      .size = limits.size, .content_size = limits.content_size(), .writable = writable};
  std::unique_ptr<Target> target = std::make_unique<ImageTarget>(std::move(opened), seen);
  co_return target;
}

absl::StatusOr<std::unique_ptr<Target>> MakeExportTarget(ShardServer& server,
                                                         const std::string& export_name) {
  ASSIGN_OR_RETURN(const ShardServer::Seen seen, server.See(export_name));
  return std::make_unique<ExportTarget>(server, export_name, seen);
}

}  // namespace gabion::engine
