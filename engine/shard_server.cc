#include "engine/shard_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/block/aligned_node.h"
#include "engine/formats/raw/raw_node.h"
#include "engine/image_files.h"
#include "engine/io/pool_file.h"
#include "engine/io/uring_file.h"

namespace gabion::engine {
namespace {

// Half of the budget is shared; the other half is enough for the own part of each connection, all
// of which may be on one shard.
uint64_t SharedBytes(uint64_t budget) { return budget - budget / 2; }
uint64_t OwnBytes(uint64_t budget, uint32_t connections) { return budget / 2 / connections; }

}  // namespace

ShardServer::ShardServer(runtime::Shard& shard, runtime::WorkerPool& pool, const Options& options,
                         ExportSink& sink, Logger& logger)
    : shard_(shard),
      options_(options),
      sink_(sink),
      logger_(logger),
      workers_(pool, shard.reactor()),
      budget_(shard.reactor().ready(), SharedBytes(options.budget_bytes),
              OwnBytes(options.budget_bytes, options.nbd.max_connections)),
      environment_{shard.reactor(), shard.buffers(), budget_, logger},
      session_limits_{.max_requests_in_flight = options.nbd.max_requests_in_flight,
                      .max_bytes_in_flight = options.nbd.max_bytes_in_flight.value},
      tasks_(shard.reactor().ready()),
      opening_(shard.reactor().ready()),
      next_version_(options.first_version) {}

absl::StatusOr<std::unique_ptr<ShardServer>> ShardServer::Create(runtime::Shard& shard,
                                                                 runtime::WorkerPool& pool,
                                                                 const Options& options,
                                                                 ExportSink& sink, Logger& logger) {
  std::unique_ptr<ShardServer> server(new ShardServer(shard, pool, options, sink, logger));
  if (options.io_driver == IoDriver::kThreads) {
    server->ring_refused_ = "the configuration asks for threads";
    return server;
  }
  absl::StatusOr<std::unique_ptr<io::Ring>> ring = io::Ring::Create(shard.reactor(), {});
  if (ring.ok()) {
    server->ring_ = *std::move(ring);
  } else if (options.io_driver == IoDriver::kIoUring) {
    return absl::UnavailableError(
        absl::StrCat("io_uring is required by the configuration, but the host refuses it: ",
                     ring.status().message()));
  } else {
    server->ring_refused_ = std::string(ring.status().message());
  }
  return server;
}

ShardServer::~ShardServer() {
  CHECK(images_.empty());
  CHECK(exports_.empty());
}

Task<absl::StatusOr<std::unique_ptr<Image>>> ShardServer::OpenImage(ImageSpec spec,
                                                                    const io::Directory* pool) {
  const bool direct = options_.direct_io;
  absl::StatusOr<OpenedImage> opened =
      co_await workers_.Run([pool, &spec, direct] { return OpenImageFile(*pool, spec, direct); });
  if (!opened.ok()) co_return opened.status();
  absl::StatusOr<std::unique_ptr<io::File>> file =
      ring_ != nullptr ? io::NewUringFile(std::move(opened->file), *ring_, workers_)
                       : io::NewPoolFile(std::move(opened->file), workers_);
  if (!file.ok()) co_return Annotate(file.status(), spec.name);
  Image::Parts parts{nullptr, nullptr, std::move(opened->lock_fd), opened->lock, opened->id};
  const raw::RawOptions options{
      .request_alignment = ByteCount{std::max<uint32_t>(spec.request_alignment_bytes, 1)},
      .name = spec.name};
  parts.format = raw::NewRawNode(*std::move(file), options);
  const block::Limits& limits = parts.format->limits();
  if (limits.alignment.value > 1 || limits.memory_alignment > 1) {
    parts.aligned = std::make_unique<block::AlignedNode>(*parts.format, shard_.reactor().ready());
  }
  Image::GrowthObserver& observer = *this;
  co_return std::make_unique<Image>(std::move(spec), std::move(parts), shard_.reactor().ready(),
                                    observer);
}

Task<absl::StatusOr<Image*>> ShardServer::AcquireImage(ImageSpec spec, const io::Directory* pool,
                                                       bool writing) {
  const std::string name = spec.name;
  const KeyedMutex::Lock lock = co_await opening_.Acquire(name);
  auto found = images_.find(name);
  if (found == images_.end()) {
    absl::StatusOr<std::unique_ptr<Image>> image = co_await OpenImage(std::move(spec), pool);
    if (!image.ok()) co_return image.status();
    found = images_.emplace(name, *std::move(image)).first;
  }
  Image* image = found->second.get();
  absl::Status added = image->AddUser(writing);
  if (added.ok()) co_return image;
  if (image->users() == 0) {
    co_await image->Close();
    images_.erase(found);
  }
  co_return added;
}

Task<void> ShardServer::ReleaseImage(Image* image, bool writing) {
  const std::string name = image->spec().name;
  const KeyedMutex::Lock lock = co_await opening_.Acquire(name);
  if (writing) {
    // What the writer left in the page cache is its own business; what it flushed is safe. The lock
    // goes with the user.
    image->RemoveUser(true);
  } else {
    image->RemoveUser(false);
  }
  if (image->users() > 0) co_return;
  const absl::Status status = co_await image->Close();
  if (!status.ok()) {
    logger_.Log(LogLevel::kError, "engine",
                absl::StrCat(name, ": closing the image: ", status.message()));
  }
  images_.erase(name);
}

Task<std::vector<std::optional<FileId>>> ShardServer::OpenFiles(
    std::span<const ImageSpec* const> specs) {
  std::vector<std::optional<FileId>> files;
  for (const ImageSpec* spec : specs) {
    const auto found = images_.find(spec->name);
    const bool open = found != images_.end() && found->second->spec().uid == spec->uid;
    files.push_back(open ? std::optional<FileId>(found->second->file()) : std::nullopt);
  }
  co_return files;
}

Task<absl::StatusOr<ImageInfo>> ShardServer::GrowImage(ImageSpec spec, ByteCount size,
                                                       const io::Directory* pool) {
  const std::string name = spec.name;
  CO_ASSIGN_OR_RETURN(Image* const image, co_await AcquireImage(std::move(spec), pool, true));
  absl::Status status;
  const ByteCount before = image->root().limits().size;
  if (size < before) {
    status = WithReason(
        absl::InvalidArgumentError(absl::StrCat(name, ": the image has ", before.value,
                                                " bytes and does not shrink to ", size.value)),
        {"SHRINK_NOT_ALLOWED", {{"field", "image.virtual_size_bytes"}}});
  } else {
    status = co_await image->Grow(size);
    if (status.ok()) status = co_await image->root().Flush();
  }
  const ImageInfo info{image->root().limits().size, ByteCount{0}};
  co_await ReleaseImage(image, true);
  if (!status.ok()) co_return status;
  co_return info;
}

Task<absl::Status> ShardServer::CheckUnused(ImageSpec spec) {
  const std::string image_name = spec.name;
  const KeyedMutex::Lock lock = co_await opening_.Acquire(image_name);
  const auto open = images_.find(image_name);
  if (open == images_.end() || open->second->spec().uid != spec.uid) co_return absl::OkStatus();
  std::string exports;
  for (const auto& [name, served] : exports_) {
    if (served->spec.image.name != image_name) continue;
    absl::StrAppend(&exports, exports.empty() ? "" : ",", name);
  }
  co_return WithReason(absl::FailedPreconditionError(absl::StrCat(image_name, " is in use")),
                       {"IMAGE_IN_USE", {{"image", image_name}, {"exports", exports}}});
}

Task<absl::Status> ShardServer::Close() {
  absl::Status status;
  // All at once: clients that do not take their replies cost one timeout, not one for each export.
  for (const auto& [name, served] : exports_) served->exported.BeginClose();
  while (!exports_.empty()) {
    std::string name = exports_.begin()->first;
    const absl::Status deleted = co_await DeleteExport(std::move(name), DeleteMode::kHard);
    status.Update(deleted);
  }
  co_await tasks_.Drain();
  if (ring_ != nullptr) co_await ring_->Close();
  co_return status;
}

}  // namespace gabion::engine
