// The images of a shard.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/block/aligned_node.h"
#include "engine/export_use.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "engine/formats/raw/raw_node.h"
#include "engine/image_files.h"
#include "engine/image_format.h"
#include "engine/io/pool_file.h"
#include "engine/io/uring_file.h"
#include "engine/shard_server.h"

namespace gabion::engine {

absl::StatusOr<std::unique_ptr<io::File>> ShardServer::NewFile(io::UniqueFd fd) {
  return ring_ != nullptr ? io::NewUringFile(std::move(fd), *ring_, workers_)
                          : io::NewPoolFile(std::move(fd), workers_);
}

Task<absl::StatusOr<std::unique_ptr<Image>>> ShardServer::OpenImage(ImageSpec spec,
                                                                    const io::Directory* pool) {
  // Tables of qcow2 images go through the page cache, and so does their data.
  const bool direct = options_.direct_io && spec.format == ImageFormat::kRaw;
  absl::StatusOr<OpenedImage> opened =
      co_await workers_.Run([pool, &spec, direct] { return OpenImageFile(*pool, spec, direct); });
  if (!opened.ok()) co_return opened.status();
  absl::StatusOr<std::unique_ptr<io::File>> file = NewFile(std::move(opened->file));
  if (!file.ok()) co_return Annotate(file.status(), spec.name);
  Image::Parts parts{
      .lock_fd = std::move(opened->lock_fd), .lock = opened->lock, .file = opened->id};
  if (spec.format == ImageFormat::kQcow2) {
    std::unique_ptr<io::File> owned = *std::move(file);
    CO_RETURN_IF_ERROR(co_await OpenFormat(spec, pool, std::move(owned), parts));
  } else {
    const raw::RawOptions options{
        .request_alignment = ByteCount{std::max<uint32_t>(spec.request_alignment_bytes, 1)},
        .name = spec.name};
    parts.format = raw::NewRawNode(*std::move(file), options);
  }
  const block::Limits& limits = parts.format->limits();
  if (limits.alignment.value > 1 || limits.memory_alignment > 1) {
    parts.aligned = std::make_unique<block::AlignedNode>(*parts.format, shard_.reactor().ready());
  }
  Image::GrowthObserver& observer = *this;
  co_return std::make_unique<Image>(std::move(spec), std::move(parts), shard_.reactor().ready(),
                                    observer);
}

// The images below are opened first, or shared with who has opened them here.
Task<absl::Status> ShardServer::OpenFormat(const ImageSpec& spec, const io::Directory* pool,
                                           std::unique_ptr<io::File> file, Image::Parts& parts) {
  qcow2::Qcow2Options options{.name = spec.name, .workers = &workers_};
  options.cache_bytes = options_.qcow2_cache;
  options.cache_budget = &qcow2_budget_;
  if (!spec.backing.empty()) {
    const ImageSpec below = BackingOf(spec);
    const absl::StatusOr<Image*> backing = co_await AcquireImage(below, pool, ImageUse::kRead);
    if (!backing.ok()) {
      const absl::Status closed = co_await file->Close();
      closed.IgnoreError();
      co_return backing.status();
    }
    const absl::Status stands = (*backing)->AddDependent();
    if (!stands.ok()) {
      co_await ReleaseImage(*backing, ImageUse::kRead);
      const absl::Status closed = co_await file->Close();
      closed.IgnoreError();
      co_return stands;
    }
    parts.backing = *backing;
    options.backing = &parts.backing->root();
  }
  absl::StatusOr<std::unique_ptr<qcow2::Qcow2Node>> node =
      co_await qcow2::OpenQcow2(std::move(file), std::move(options), shard_.reactor().ready());
  if (!node.ok()) {
    if (parts.backing != nullptr) co_await ReleaseBacking(parts.backing);
    co_return FormatError(node.status(), spec);
  }
  parts.qcow2 = node->get();
  parts.format = *std::move(node);
  for (const std::string& warning : parts.qcow2->warnings()) {
    logger_.Log(LogLevel::kWarning, "engine", absl::StrCat(spec.name, ": ", warning));
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<Image*>> ShardServer::AcquireImage(ImageSpec spec, const io::Directory* pool,
                                                       ImageUse use) {
  const std::string name = spec.name;
  const KeyedMutex::Lock lock = co_await opening_.Acquire(name);
  auto found = images_.find(name);
  if (found == images_.end()) {
    absl::StatusOr<std::unique_ptr<Image>> image = co_await OpenImage(std::move(spec), pool);
    if (!image.ok()) co_return image.status();
    found = images_.emplace(name, *std::move(image)).first;
  }
  Image* image = found->second.get();
  absl::Status added = co_await image->AddUser(use);
  if (added.ok()) co_return image;
  if (image->users() == 0) co_await CloseImage(image);
  co_return added;
}

// The lock of its name is held.
Task<void> ShardServer::CloseImage(Image* image) {
  const std::string name = image->spec().name;
  Image* const backing = image->backing();
  const absl::Status status = co_await image->Close();
  if (!status.ok()) {
    logger_.Log(LogLevel::kError, "engine",
                absl::StrCat(name, ": closing the image: ", status.message()));
  }
  images_.erase(name);
  if (backing != nullptr) co_await ReleaseBacking(backing);
}

Task<void> ShardServer::ReleaseBacking(Image* backing) {
  backing->RemoveDependent();
  co_await ReleaseImage(backing, ImageUse::kRead);
}

// What the writer left in the page cache is its own business; what it flushed is safe. The lock
// goes with the user.
Task<void> ShardServer::ReleaseImage(Image* image, ImageUse use) {
  const std::string name = image->spec().name;
  const KeyedMutex::Lock lock = co_await opening_.Acquire(name);
  co_await image->RemoveUser(use);
  if (image->users() > 0) co_return;
  co_await CloseImage(image);
}

Task<absl::Status> ShardServer::ChangeUse(Image* image, ImageUse from, ImageUse to) {
  const std::string name = image->spec().name;
  const KeyedMutex::Lock lock = co_await opening_.Acquire(name);
  absl::Status changed = co_await image->ChangeUser(from, to);
  co_return changed;
}

Task<absl::StatusOr<std::unique_ptr<block::Node>>> ShardServer::NewScratchFile(
    const io::Directory* pool, ByteCount size) {
  absl::StatusOr<io::UniqueFd> fd = co_await workers_.Run([pool] { return pool->CreateUnnamed(); });
  if (!fd.ok()) co_return fd.status();
  absl::StatusOr<std::unique_ptr<io::File>> file = NewFile(*std::move(fd));
  if (!file.ok()) co_return file.status();
  const raw::RawOptions options{.name = "scratch space"};
  std::unique_ptr<block::Node> node = raw::NewRawNode(*std::move(file), options);
  const absl::Status sized = co_await node->Resize(size);
  if (sized.ok()) co_return node;
  const absl::Status closed = co_await node->Close();
  closed.IgnoreError();
  co_return sized;
}

Task<std::vector<std::optional<ShardServer::OpenFile>>> ShardServer::OpenFiles(
    std::span<const ImageSpec* const> specs) {
  std::vector<std::optional<OpenFile>> files;
  for (const ImageSpec* spec : specs) {
    const auto found = images_.find(spec->name);
    const bool open = found != images_.end() && found->second->spec().uid == spec->uid;
    if (open) {
      files.push_back(OpenFile{found->second->file(), found->second->health()});
    } else {
      files.push_back(std::nullopt);
    }
  }
  co_return files;
}

Task<absl::StatusOr<ImageInfo>> ShardServer::GrowImage(ImageSpec spec, ByteCount size,
                                                       const io::Directory* pool) {
  const std::string name = spec.name;
  CO_ASSIGN_OR_RETURN(Image* const image,
                      co_await AcquireImage(std::move(spec), pool, ImageUse::kResize));
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
  co_await ReleaseImage(image, ImageUse::kResize);
  if (!status.ok()) co_return status;
  co_return info;
}

Task<absl::Status> ShardServer::ShrinkImage(ImageSpec spec, ByteCount size,
                                            const io::Directory* pool) {
  const std::string name = spec.name;
  CO_ASSIGN_OR_RETURN(Image* const image,
                      co_await AcquireImage(std::move(spec), pool, ImageUse::kResize));
  absl::Status status;
  {
    const KeyedMutex::Lock lock = co_await opening_.Acquire(name);  // nobody joins meanwhile
    const ByteCount before = image->root().limits().size;
    if (image->users() > 1) {
      status = InUse(name);
    } else if (size > before) {
      status = WithReason(absl::InvalidArgumentError(absl::StrCat(
                              name, ": the image has ", before.value, " bytes, which is less than ",
                              size.value, "; it is grown by an update")),
                          {"SIZE_OUT_OF_RANGE", {{"field", "virtual_size_bytes"}}});
    } else {
      status = co_await image->Shrink(size);
    }
  }
  co_await ReleaseImage(image, ImageUse::kResize);
  co_return status;
}

Task<absl::Status> ShardServer::CheckUnused(ImageSpec spec) {
  const std::string image_name = spec.name;
  const KeyedMutex::Lock lock = co_await opening_.Acquire(image_name);
  const auto open = images_.find(image_name);
  if (open == images_.end() || open->second->spec().uid != spec.uid) co_return absl::OkStatus();
  co_return InUse(image_name);
}

absl::Status ShardServer::InUse(const std::string& image_name) const {
  std::string exports;
  for (const auto& [name, served] : exports_) {
    if (!UsesImage(served->spec, image_name)) continue;
    absl::StrAppend(&exports, exports.empty() ? "" : ",", name);
  }
  return WithReason(absl::FailedPreconditionError(absl::StrCat(image_name, " is in use")),
                    {"IMAGE_IN_USE", {{"image", image_name}, {"exports", exports}}});
}

}  // namespace gabion::engine
