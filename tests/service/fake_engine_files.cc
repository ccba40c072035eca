// The files of the fake engine, and its work on them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "tests/service/fake_engine.h"

namespace gabion::service {

using engine::BuildProgress;
using engine::Callback;
using engine::ImageBuild;
using engine::ImageFormat;
using engine::ImageInfo;
using engine::ImageSpec;
using engine::RemovalProgress;

bool FakeFiles::Has(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return files_.contains(name);
}
FakeFiles::File FakeFiles::Get(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return files_.at(name);
}
void FakeFiles::Put(const std::string& name, File file) {
  const std::lock_guard lock(mutex_);
  files_[name] = std::move(file);
}
void FakeFiles::Remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  files_.erase(name);
}
void FakeFiles::Clear() {
  const std::lock_guard lock(mutex_);
  files_.clear();
}
void FakeFiles::SetLocked(const std::string& name, bool locked) {
  const std::lock_guard lock(mutex_);
  files_[name].locked = locked;
}
void FakeFiles::SetMaxSize(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  max_size_ = bytes;
}
uint64_t FakeFiles::max_size() const {
  const std::lock_guard lock(mutex_);
  return max_size_;
}
std::size_t FakeFiles::count() const {
  const std::lock_guard lock(mutex_);
  return files_.size();
}
std::map<std::string, std::string> FakeFiles::All() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, std::string> all;
  for (const auto& [name, file] : files_) all[name] = file.bytes;
  return all;
}
std::vector<std::string> FakeFiles::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) names.push_back(name);
  return names;
}

namespace {

std::string UnfinishedName(const ImageSpec& spec) {
  return absl::StrCat(".", spec.uid, ".unfinished");
}
std::string RemovedName(const ImageSpec& spec) { return absl::StrCat(".", spec.uid, ".removed"); }

// "UID" of ".UID.unfinished" and ".UID.removed"; empty for other names.
std::string UidIn(const std::string& name) {
  if (!name.starts_with('.')) return "";
  for (const std::string suffix : {".unfinished", ".removed"}) {
    if (name.ends_with(suffix) && name.size() > suffix.size() + 1) {
      return name.substr(1, name.size() - 1 - suffix.size());
    }
  }
  return "";
}

}  // namespace

absl::Status FakeEngine::CheckUnused(const ImageSpec& spec) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [name, exported] : exports_) {
    if (exported.spec.image.name != spec.name || exported.spec.image.uid != spec.uid) continue;
    return WithReason(absl::FailedPreconditionError(absl::StrCat(spec.name, " is in use")),
                      {"IMAGE_IN_USE", {{"image", spec.name}, {"exports", name}}});
  }
  if (open_targets_.contains(spec.file_name)) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(spec.name, " is looked into")),
                      {"IMAGE_IN_USE", {{"image", spec.name}}});
  }
  return absl::OkStatus();
}

absl::StatusOr<ImageInfo> FakeEngine::Info(const ImageSpec& spec) const {
  if (!files_.Has(spec.file_name)) {
    return WithReason(absl::FailedPreconditionError(
                          absl::StrCat(spec.name, ": there is no file ", spec.file_name)),
                      {"IMAGE_FILE_MISSING", {{"image", spec.name}}});
  }
  if (!spec.uid.empty() && !files_.Get(spec.file_name).uid.empty() &&
      files_.Get(spec.file_name).uid != spec.uid) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(spec.name, " has another image's file")),
        {"IMAGE_REPLACED", {{"image", spec.name}}});
  }
  const FakeFiles::File file = files_.Get(spec.file_name);
  const std::string& bytes = file.bytes;
  const auto allocated = bytes.size() - std::count(bytes.begin(), bytes.end(), '\0');
  ImageInfo info{ByteCount{bytes.size()}, ByteCount{allocated}};
  if (spec.format == ImageFormat::kQcow2) info.qcow2 = file.qcow2;
  return info;
}

absl::Status FakeEngine::CheckUnlocked(const ImageSpec& spec) const {
  if (!files_.Has(spec.file_name) || !files_.Get(spec.file_name).locked) return absl::OkStatus();
  return WithReason(absl::FailedPreconditionError(absl::StrCat(spec.name, " is locked")),
                    {"IMAGE_LOCKED", {{"image", spec.name}, {"perm-byte", "101"}}});
}

void FakeEngine::CreateImage(ImageSpec spec, ByteCount size,
                             Callback<absl::StatusOr<ImageInfo>> done) {
  Do<absl::StatusOr<ImageInfo>>(
      "CreateImage", std::move(done), [this, spec, size]() -> absl::StatusOr<ImageInfo> {
        if (files_.Has(spec.file_name) && files_.Get(spec.file_name).uid != spec.uid) {
          return WithReason(absl::AlreadyExistsError("the pool has such a file"),
                            {"RESOURCE_EXISTS", {{"file", spec.file_name}}});
        }
        files_.Put(spec.file_name, {spec.uid, std::string(size.value, '\0'), false});
        return Info(spec);
      });
}

void FakeEngine::ImportImage(ImageSpec spec, std::string source_file, bool move,
                             Callback<absl::StatusOr<ImageInfo>> done) {
  Do<absl::StatusOr<ImageInfo>>(
      "ImportImage", std::move(done),
      [this, spec, source_file, move]() -> absl::StatusOr<ImageInfo> {
        if (files_.Has(spec.file_name) && files_.Get(spec.file_name).uid == spec.uid) {
          return Info(spec);
        }
        if (!files_.Has(source_file)) return absl::NotFoundError("there is no such file");
        if (files_.Has(spec.file_name)) return absl::AlreadyExistsError("there is such a file");
        FakeFiles::File file = files_.Get(source_file);
        file.uid = spec.uid;
        if (move) files_.Remove(source_file);
        files_.Put(spec.file_name, std::move(file));
        return Info(spec);
      });
}

void FakeEngine::StatImage(ImageSpec spec, Callback<absl::StatusOr<ImageInfo>> done) {
  Do<absl::StatusOr<ImageInfo>>("StatImage", std::move(done), [this, spec] { return Info(spec); });
}

void FakeEngine::CheckSize(std::string, ByteCount size, Callback<absl::Status> done) {
  Do<absl::Status>("CheckSize", std::move(done), [this, size] { return CheckFits(size); });
}

absl::Status FakeEngine::CheckFits(ByteCount size) const {
  if (size.value <= files_.max_size()) return absl::OkStatus();
  return WithReason(absl::ResourceExhaustedError("File too large"), {"SIZE_OUT_OF_RANGE", {}});
}

void FakeEngine::GrowImage(ImageSpec spec, ByteCount size,
                           Callback<absl::StatusOr<ImageInfo>> done) {
  Do<absl::StatusOr<ImageInfo>>(
      "GrowImage", std::move(done), [this, spec, size]() -> absl::StatusOr<ImageInfo> {
        RETURN_IF_ERROR(Info(spec).status());
        RETURN_IF_ERROR(CheckFits(size));
        FakeFiles::File file = files_.Get(spec.file_name);
        file.bytes.resize(std::max<std::size_t>(file.bytes.size(), size.value));
        files_.Put(spec.file_name, std::move(file));
        return Info(spec);
      });
}

void FakeEngine::ShrinkImage(ImageSpec spec, ByteCount size,
                             Callback<absl::StatusOr<ImageInfo>> done) {
  Do<absl::StatusOr<ImageInfo>>("ShrinkImage", std::move(done),
                                [this, spec, size]() -> absl::StatusOr<ImageInfo> {
                                  RETURN_IF_ERROR(Info(spec).status());
                                  RETURN_IF_ERROR(CheckUnused(spec));
                                  FakeFiles::File file = files_.Get(spec.file_name);
                                  if (size.value > file.bytes.size())
                                    return absl::InvalidArgumentError("It is smaller.");
                                  file.bytes.resize(size.value);
                                  files_.Put(spec.file_name, std::move(file));
                                  return Info(spec);
                                });
}

void FakeEngine::DeleteImage(ImageSpec spec, Callback<absl::Status> done) {
  Do<absl::Status>("DeleteImage", std::move(done), [this, spec]() -> absl::Status {
    RETURN_IF_ERROR(CheckUnlocked(spec));
    files_.Remove(spec.file_name);
    return absl::OkStatus();
  });
}

absl::StatusOr<BuildProgress> FakeEngine::Check(const ImageBuild& build) const {
  const ImageSpec& spec = build.spec;
  BuildProgress progress{ByteCount{0}, build.size, false, {}};
  progress.info.virtual_size = build.size;
  for (const ImageSpec& below : spec.backing) RETURN_IF_ERROR(Info(below).status());
  if (files_.Has(spec.file_name)) {
    if (files_.Get(spec.file_name).uid != spec.uid) {
      return WithReason(absl::AlreadyExistsError("the pool has such a file"),
                        {"RESOURCE_EXISTS", {{"file", spec.file_name}}});
    }
    ASSIGN_OR_RETURN(progress.info, Info(spec));
    progress.done = progress.total = progress.info.virtual_size;
    progress.complete = true;
    return progress;
  }
  if (build.source_file.empty()) {
    RETURN_IF_ERROR(CheckFits(build.size));
    return progress;
  }
  if (!files_.Has(build.source_file)) {
    return absl::NotFoundError(absl::StrCat(spec.name, ": there is no ", build.source_file));
  }
  const FakeFiles::File source = files_.Get(build.source_file);
  if (source.locked) {
    return WithReason(absl::FailedPreconditionError("the source is locked"),
                      {"IMAGE_LOCKED", {{"field", "source_file"}, {"perm-byte", "101"}}});
  }
  if (source.bytes.empty()) {
    return WithReason(absl::OutOfRangeError("the source is empty"),
                      {"SIZE_OUT_OF_RANGE", {{"field", "source_file"}, {"size", "0"}}});
  }
  progress.total = ByteCount{source.bytes.size()};
  progress.info.virtual_size = progress.total;
  return progress;
}

absl::StatusOr<BuildProgress> FakeEngine::Build(const ImageBuild& build, ByteOffset from,
                                                ByteCount budget) {
  ASSIGN_OR_RETURN(BuildProgress progress, Check(build));
  if (progress.complete) return progress;
  const std::string unfinished = UnfinishedName(build.spec);
  std::string bytes(progress.total.value, '\0');
  engine::Qcow2Info qcow2{.layout = build.qcow2};
  if (!build.source_file.empty()) {
    bytes = files_.Get(build.source_file).bytes;
    qcow2 = files_.Get(build.source_file).qcow2;
  }
  if (!build.spec.backing.empty()) qcow2.backing_file = build.spec.backing.front().file_name;
  const uint64_t begin = files_.Has(unfinished) ? std::min(from.value, progress.total.value) : 0;
  const uint64_t length = build.move ? bytes.size() : std::min(budget.value, bytes.size() - begin);
  progress.done = ByteCount{begin + length};
  progress.complete = progress.done == progress.total;
  if (!progress.complete) {
    files_.Put(unfinished, {build.spec.uid, bytes.substr(0, progress.done.value), false});
    return progress;
  }
  if (build.move) files_.Remove(build.source_file);
  files_.Remove(unfinished);
  files_.Put(build.spec.file_name, {build.spec.uid, std::move(bytes), false, std::move(qcow2)});
  ASSIGN_OR_RETURN(progress.info, Info(build.spec));
  return progress;
}

void FakeEngine::BuildImage(ImageBuild build, ByteOffset from, ByteCount budget,
                            Callback<absl::StatusOr<BuildProgress>> done) {
  Do<absl::StatusOr<BuildProgress>>("BuildImage", std::move(done), [this, build, from, budget] {
    return Build(build, from, budget);
  });
}

void FakeEngine::CheckBuild(ImageBuild build, Callback<absl::StatusOr<BuildProgress>> done) {
  Do<absl::StatusOr<BuildProgress>>("CheckBuild", std::move(done),
                                    [this, build] { return Check(build); });
}

absl::StatusOr<RemovalProgress> FakeEngine::Removal(const ImageSpec& spec, ByteCount budget) {
  RETURN_IF_ERROR(CheckUnused(spec));
  RETURN_IF_ERROR(CheckUnlocked(spec));
  const std::string removed = RemovedName(spec);
  for (const std::string& name : {spec.file_name, UnfinishedName(spec)}) {
    if (!files_.Has(name) || files_.Get(name).uid != spec.uid) continue;
    FakeFiles::File file = files_.Get(name);
    if (files_.Has(removed)) file.bytes += files_.Get(removed).bytes;
    files_.Put(removed, std::move(file));
    files_.Remove(name);
  }
  RemovalProgress progress;
  if (files_.Has(removed)) {
    FakeFiles::File file = files_.Get(removed);
    progress.total = ByteCount{file.bytes.size()};
    progress.done = std::min(budget, progress.total);
    file.bytes.resize(file.bytes.size() - progress.done.value);
    if (file.bytes.empty()) {
      files_.Remove(removed);
    } else {
      files_.Put(removed, std::move(file));
    }
  }
  progress.complete = progress.done == progress.total;
  return progress;
}

void FakeEngine::RemoveImage(ImageSpec spec, ByteCount budget,
                             Callback<absl::StatusOr<RemovalProgress>> done) {
  Do<absl::StatusOr<RemovalProgress>>("RemoveImage", std::move(done),
                                      [this, spec, budget] { return Removal(spec, budget); });
}

void FakeEngine::CheckRemoval(ImageSpec spec, Callback<absl::Status> done) {
  Do<absl::Status>("CheckRemoval", std::move(done), [this, spec]() -> absl::Status {
    RETURN_IF_ERROR(CheckUnused(spec));
    return CheckUnlocked(spec);
  });
}

void FakeEngine::SweepPool(std::string, std::vector<std::string> keep_uids,
                           Callback<absl::StatusOr<std::vector<std::string>>> done) {
  Do<absl::StatusOr<std::vector<std::string>>>(
      "SweepPool", std::move(done),
      [this, keep_uids]() -> absl::StatusOr<std::vector<std::string>> {
        const std::lock_guard lock(files_.mutex_);
        std::vector<std::string> swept;
        for (const auto& [name, file] : files_.files_) {
          const std::string uid = UidIn(name);
          if (uid.empty() || std::count(keep_uids.begin(), keep_uids.end(), uid) > 0) continue;
          swept.push_back(name);
        }
        for (const std::string& name : swept) files_.files_.erase(name);
        return swept;
      });
}

void FakeEngine::StatImages(std::vector<ImageSpec> specs,
                            Callback<std::vector<absl::StatusOr<ImageInfo>>> done) {
  Do<std::vector<absl::StatusOr<ImageInfo>>>("StatImages", std::move(done), [this, specs] {
    std::vector<absl::StatusOr<ImageInfo>> infos;
    for (const ImageSpec& spec : specs) infos.push_back(Info(spec));
    return infos;
  });
}

}  // namespace gabion::service
