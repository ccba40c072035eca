#include "engine/target.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/export_version.h"

namespace gabion::engine {
namespace {

// What lives on the shard. Destroyed there, when the last call is done.
struct Opened {
  explicit Opened(ShardServer& on) : server(&on), calls(on.shard().reactor().ready()) {}

  ShardServer* const server;
  runtime::TaskSet calls;
  Image* image = nullptr;
  bool writing = false;
  std::unique_ptr<nbd::ExportVersion> version;  // of an export's own view; else null
  block::Node* root = nullptr;
};

absl::Status BeyondEnd(ByteRange range, ByteCount size) {
  return WithReason(
      absl::OutOfRangeError(absl::StrCat("offset ", range.offset.value, ", length ",
                                         range.length.value, " lies beyond the end at ",
                                         size.value)),
      {"OFFSET_BEYOND_END", {{"field", "offset"}, {"size", absl::StrCat(size.value)}}});
}

Task<void> ReadThen(Opened* opened, ByteRange range,
                    Callback<absl::StatusOr<std::vector<std::byte>>> done) {
  std::vector<std::byte> data(range.length.value);
  const absl::Status status = co_await opened->root->Read(range, data);
  if (!status.ok()) {
    std::move(done)(status);
    co_return;
  }
  std::move(done)(std::move(data));
}

Task<void> WriteThen(Opened* opened, ByteOffset offset, std::vector<std::byte> data,
                     Callback<absl::Status> done) {
  const ByteRange range{offset, ByteCount{data.size()}};
  const absl::Status status = co_await opened->root->Write(range, data, {.durable = true});
  std::move(done)(status);
}

Task<void> MapThen(Opened* opened, ByteRange range, std::size_t max_extents,
                   Callback<absl::StatusOr<block::ExtentList>> done) {
  absl::StatusOr<block::ExtentList> extents =
      co_await opened->root->BlockStatus(range, max_extents);
  std::move(done)(std::move(extents));
}

Task<void> CloseTarget(std::unique_ptr<Opened> opened) {
  co_await opened->calls.Drain();
  opened->version.reset();
  co_await opened->server->ReleaseImage(opened->image, opened->writing);
}

class TargetImpl final : public Target {
 public:
  TargetImpl(std::unique_ptr<Opened> opened, ByteCount size, bool writable, uint32_t granule)
      : opened_(std::move(opened)),
        size_(size),
        content_size_(std::min(size, opened_->root->limits().content_size())),
        writable_(writable),
        granule_(granule) {}

  ~TargetImpl() override {
    // Calls that were posted before run before; their tasks may still wait, so closing waits for
    // them.
    ShardServer* server = opened_->server;
    server->shard().Post([server, opened = std::move(opened_)]() mutable {
      server->tasks().Add(CloseTarget(std::move(opened)));
    });
  }

  ByteCount size() const override { return size_; }
  ByteCount content_size() const override { return content_size_; }
  bool writable() const override { return writable_; }
  uint32_t granule() const override { return granule_; }

  void Read(ByteRange range, Callback<absl::StatusOr<std::vector<std::byte>>> done) override {
    if (!FitsWithin(range, size_)) return std::move(done)(BeyondEnd(range, size_));
    Post([opened = opened_.get(), range, done = std::move(done)]() mutable {
      return ReadThen(opened, range, std::move(done));
    });
  }

  void Write(ByteOffset offset, std::vector<std::byte> data, Callback<absl::Status> done) override {
    const ByteRange range{offset, ByteCount{data.size()}};
    if (!FitsWithin(range, size_)) return std::move(done)(BeyondEnd(range, size_));
    if (!writable_) {
      return std::move(done)(
          WithReason(absl::FailedPreconditionError("read-only"), {"EXPORT_READ_ONLY", {}}));
    }
    Post(
        [opened = opened_.get(), offset, data = std::move(data), done = std::move(done)]() mutable {
          return WriteThen(opened, offset, std::move(data), std::move(done));
        });
  }

  void Map(ByteRange range, std::size_t max_extents,
           Callback<absl::StatusOr<block::ExtentList>> done) override {
    if (!FitsWithin(range, content_size_) || range.empty()) {
      return std::move(done)(BeyondEnd(range, content_size_));
    }
    Post([opened = opened_.get(), range, max_extents, done = std::move(done)]() mutable {
      return MapThen(opened, range, max_extents, std::move(done));
    });
  }

 private:
  template <typename F>
  void Post(F start) {
    ShardServer* server = opened_->server;
    server->shard().Post(
        [server, start = std::move(start)]() mutable { server->tasks().Add(start()); });
  }

  std::unique_ptr<Opened> opened_;
  const ByteCount size_;
  const ByteCount content_size_;
  const bool writable_;
  const uint32_t granule_;
};

}  // namespace

Task<absl::StatusOr<std::unique_ptr<Target>>> OpenTarget(ShardServer& server, TargetSource source,
                                                         const io::Directory* pool) {
  auto opened = std::make_unique<Opened>(server);
  opened->writing = source.writable;
  const ImageSpec image = source.image;
  CO_ASSIGN_OR_RETURN(opened->image, co_await server.AcquireImage(image, pool, source.writable));
  opened->root = &opened->image->root();
  ByteCount size = opened->root->limits().size;
  uint32_t granule = 1;
  if (source.exported.has_value()) {
    absl::StatusOr<std::unique_ptr<nbd::ExportVersion>> version =
        MakeExportVersion(*source.exported, *opened->image, 0, server.shard().reactor().ready());
    if (!version.ok()) {
      co_await server.ReleaseImage(opened->image, opened->writing);
      co_return version.status();
    }
    opened->version = *std::move(version);
    opened->root = opened->version->root;
    size = opened->version->effective.export_size;
    granule = opened->version->effective.minimum.bytes;
  }
  std::unique_ptr<Target> target =
      std::make_unique<TargetImpl>(std::move(opened), size, source.writable, granule);
  co_return target;
}

}  // namespace gabion::engine
