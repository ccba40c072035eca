#include "engine/image.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/image_format.h"

namespace gabion::engine {

absl::Status LockImage(const std::string& name, io::FileLock& lock, io::LockMode mode) {
  const absl::Status locked = lock.Acquire(mode);
  if (locked.ok() || locked.code() != absl::StatusCode::kFailedPrecondition) {
    return Annotate(locked, name);
  }
  const absl::optional<absl::Cord> byte = locked.GetPayload(AsAbsl(io::kLockBytePayload));
  const std::string perm_byte = byte.has_value() ? std::string(*byte) : std::string();
  return WithReason(Annotate(locked, name),
                    {"IMAGE_LOCKED", {{"image", name}, {"perm-byte", perm_byte}}});
}

ImageRoot::ImageRoot(block::Node& child, runtime::ReadyQueue& ready)
    : block::FilterNode(child), growing_(ready) {}

Task<absl::Status> ImageRoot::DoResize(ByteCount size) {
  const KeyedMutex::Lock lock = co_await growing_.Acquire("");
  if (limits().size >= size) co_return absl::OkStatus();
  CO_RETURN_IF_ERROR(co_await block::FilterNode::DoResize(size));
  if (observer_ != nullptr) observer_->OnGrown();
  co_return absl::OkStatus();
}

Image::Image(ImageSpec spec, Parts parts, runtime::ReadyQueue& ready, GrowthObserver& observer)
    : spec_(std::move(spec)),
      parts_(std::move(parts)),
      root_(parts_.aligned != nullptr ? *parts_.aligned : *parts_.format, ready),
      observer_(observer) {
  root_.SetObserver(this);
}

Image::~Image() {
  CHECK(closed_);
  CHECK_EQ(users_, 0u);
}

absl::Status Image::CheckUse(std::optional<ImageUse> from, ImageUse to) const {
  const uint32_t others_change = changing_ - (from.has_value() && ChangesContent(*from) ? 1 : 0);
  const uint32_t others_alone = alone_ - (from.has_value() && IsAlone(*from) ? 1 : 0);
  const Reason not_alone{"FILTER_PARAMETERS_INVALID", {{"image", spec_.name}}};
  if (IsAlone(to) && others_change > 0) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(
                          spec_.name, " is written to by others, which a filter would not see")),
                      not_alone);
  }
  if (ChangesContent(to) && others_alone > 0) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            spec_.name, " is used by a filter that would not see what others write to it")),
        not_alone);
  }
  if (!NeedsWriter(to) || (from.has_value() && NeedsWriter(*from))) return absl::OkStatus();
  RETURN_IF_ERROR(CheckSound());
  if (!root_.limits().writable) {
    return WithReason(
        absl::FailedPreconditionError("the image's file cannot be opened for writing"),
        {"IMAGE_NOT_WRITABLE", {{"image", spec_.name}}});
  }
  if (dependents_ == 0) return absl::OkStatus();
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat(spec_.name, " has images that stand on it, which are in use")),
                    {"IMAGE_HAS_DEPENDENTS", {{"image", spec_.name}}});
}

Task<absl::Status> Image::Begin(std::optional<ImageUse> from, ImageUse to) {
  CO_RETURN_IF_ERROR(CheckUse(from, to));
  if (NeedsWriter(to) && writers_ == 0) CO_RETURN_IF_ERROR(co_await BeginWriting());
  ++users_;
  if (NeedsWriter(to)) ++writers_;
  if (ChangesContent(to)) ++changing_;
  if (IsAlone(to)) ++alone_;
  co_return absl::OkStatus();
}

Task<absl::Status> Image::AddUser(ImageUse use) { return Begin(std::nullopt, use); }

Task<absl::Status> Image::ChangeUser(ImageUse from, ImageUse to) {
  if (from == to) co_return absl::OkStatus();
  CO_RETURN_IF_ERROR(co_await Begin(from, to));
  co_await RemoveUser(from);
  co_return absl::OkStatus();
}

Task<absl::Status> Image::BeginWriting() {
  CO_RETURN_IF_ERROR(LockImage(spec_.name, parts_.lock, io::LockMode::kWriter));
  if (parts_.qcow2 == nullptr) co_return absl::OkStatus();
  const absl::Status begun = co_await parts_.qcow2->BeginWriting();
  if (begun.ok()) co_return begun;
  parts_.lock.Acquire(io::LockMode::kReader).IgnoreError();
  co_return FormatError(begun, spec_);
}

Task<void> Image::RemoveUser(ImageUse use) {
  CHECK_GT(users_, 0u);
  --users_;
  if (ChangesContent(use)) --changing_;
  if (IsAlone(use)) --alone_;
  if (!NeedsWriter(use)) co_return;
  CHECK_GT(writers_, 0u);
  if (--writers_ > 0) co_return;
  if (parts_.qcow2 != nullptr) {
    // What could not be written was not called durable; the file is sound all the same.
    const absl::Status ended = co_await parts_.qcow2->EndWriting();
    ended.IgnoreError();
  }
  // To hold less than before cannot conflict with anybody. Where the file system fails all the
  // same, we go on holding more than we need, which is safe.
  parts_.lock.Acquire(io::LockMode::kReader).IgnoreError();
}

absl::Status Image::AddDependent() {
  if (writers_ > 0) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(spec_.name, " is being written to")),
        {"IMAGE_IN_USE", {{"image", spec_.name}}});
  }
  ++dependents_;
  return absl::OkStatus();
}

uint64_t Image::allocation_unit() const {
  if (parts_.qcow2 == nullptr) return 0;
  return qcow2::Geometry(parts_.qcow2->header()).subcluster_size();
}

absl::Status Image::health() const {
  if (parts_.qcow2 == nullptr) return absl::OkStatus();
  return FormatError(parts_.qcow2->health(), spec_);
}

absl::Status Image::CheckSound() const {
  if (parts_.qcow2 == nullptr || !parts_.qcow2->header().corrupt()) return health();
  return WithReason(
      absl::DataLossError(absl::StrCat(
          spec_.name, ": the file says that it contradicts itself; it can only be read")),
      {"IMAGE_CORRUPT", {{"image", spec_.name}}});
}

Task<absl::Status> Image::Grow(ByteCount size) { return root_.Resize(size); }

Task<absl::Status> Image::Shrink(ByteCount size) {
  CHECK_EQ(users_, 1u);
  CO_RETURN_IF_ERROR(co_await parts_.format->Resize(size));
  if (parts_.aligned != nullptr) static_cast<block::FilterNode&>(*parts_.aligned).Refresh();
  root_.Refresh();
  co_return co_await root_.Flush();
}

Task<absl::Status> Image::Close() {
  CHECK(!closed_);
  closed_ = true;
  absl::Status status = co_await root_.Close();
  if (parts_.aligned != nullptr) {
    const absl::Status aligned = co_await parts_.aligned->Close();
    status.Update(aligned);
  }
  const absl::Status format = co_await parts_.format->Close();
  status.Update(format);
  parts_.lock_fd = io::UniqueFd();
  co_return status;
}

}  // namespace gabion::engine
